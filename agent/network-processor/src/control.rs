//! Ending a run: through its job-processor's control socket, or by our own hand if it is adopted. And the question to the monitor.

use crate::agent::Agent;
use crate::disk::Disk;
use crate::errand::Hand;
use crate::event::Event;
use crate::pause::thaw;
use crate::run::{Delivery, Keeper, WantedStop};
use job::supervise::{Action, Event as Happened, GRACE_MS_DEFAULT, State};
use job::{RunId, StopCause};
use os::cgroup::Cgroup;
use os::pidfd::{Identity, Pidfd};
use os::seqpacket::{self, Received};
use os::signal::Signal;
use os::{clock, tree};
use prost::Message;
use protocol::message::{Control, ControlBody, Started, Stop, Stopping};
use spool::monitor::{Request, YES};
use spool::{CONTROL_SOCKET, DataRoot, MONITOR_SOCKET, Shelf};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// How long a local process may take to answer.
const ANSWER_MS_MAX: u64 = 2_000;

impl Agent {
    /// Somebody wants the run to end; kept until it did.
    pub(crate) fn want_stop(&mut self, run_id: RunId, stop: Stop) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        if run.ended.is_none() {
            run.stop = Some(WantedStop { stop, delivery: Delivery::Due });
            self.deliver_stop(run_id);
        }
    }

    /// Takes the next step towards the wanted end, if there is one.
    pub(crate) fn deliver_stop(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let grace_default = run.grace_ms.unwrap_or(GRACE_MS_DEFAULT);
        let Some(wanted) =
            run.stop.as_mut().filter(|wanted| wanted.delivery == Delivery::Due && run.ended.is_none())
        else {
            return;
        };
        match &run.keeper {
            Keeper::JobProcessor(_) => {
                wanted.delivery = Delivery::Trying;
                let stop = ControlBody::Stop(wanted.stop.clone());
                self.disk.ask(move |disk| {
                    Event::StopDelivered(run_id, tell_job_processor(&disk.root, run_id, stop).is_ok())
                });
            }
            Keeper::Adopted(_) => {
                wanted.delivery = Delivery::Done;
                let (by, grace_ms) = (wanted.stop.by.clone(), wanted.stop.grace_ms.unwrap_or(grace_default));
                self.step_adopted(run_id, Happened::Stop { by, grace_ms });
            }
            Keeper::Preparing | Keeper::Unread | Keeper::Nobody | Keeper::Over | Keeper::Quarantined => {}
        }
    }

    pub(crate) fn on_stop_delivered(&mut self, run_id: RunId, delivered: bool) {
        if let Some(wanted) = self.runs.get_mut(&run_id).and_then(|run| run.stop.as_mut())
            && wanted.delivery == Delivery::Trying
        {
            wanted.delivery = if delivered { Delivery::Done } else { Delivery::Due }; // the tick tries again
        }
    }

    /// A job-processor that went takes what it was told with it.
    pub(crate) fn retry_orders(&mut self) {
        let due = self.runs.iter().filter(|(_, run)| {
            run.stop.as_ref().is_some_and(|w| w.delivery == Delivery::Due)
                || run.pause.as_ref().is_some_and(|w| w.delivery == Delivery::Due)
        });
        let due: Vec<RunId> = due.map(|(run_id, _)| *run_id).collect();
        for run_id in due {
            self.deliver_stop(run_id);
            self.deliver_pause(run_id);
        }
    }

    /// One step of an adopted run's state machine.
    pub(crate) fn step_adopted(&mut self, run_id: RunId, happened: Happened) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let Some(started) = run.started.clone() else { return };
        let Keeper::Adopted(adopted) = &mut run.keeper else { return };
        let before = std::mem::replace(&mut adopted.state, State::Running { timeout: None });
        let (state, action) = before.on(happened, clock::boottime_ms());
        adopted.state = state;
        match action {
            None | Some(Action::Record) => {}
            Some(Action::Freeze { by }) => self.pause_adopted(run_id, started, by, true),
            Some(Action::Thaw { by }) => self.pause_adopted(run_id, started, by, false),
            Some(Action::SoftSignal(cause)) => {
                let hand = self.hand(run_id);
                self.disk.spawn(move |disk| {
                    soft_signal(&hand, disk, run_id, &started, &cause);
                    Event::Woken(run_id)
                });
            }
            Some(Action::KillTree | Action::KillTreeAndAlert) => {
                let hand = self.hand(run_id);
                self.disk.spawn(move |_| {
                    kill_tree(&hand, &started);
                    Event::Woken(run_id)
                });
            }
        }
    }
}

fn soft_signal(hand: &Hand, disk: &Disk, run_id: RunId, started: &Started, cause: &StopCause) {
    let stopping = match cause {
        StopCause::Kill { by } => Stopping { killed_by: Some(by.clone()), timed_out_after_ms: None },
        StopCause::TimedOut { timeout_ms } => {
            Stopping { killed_by: None, timed_out_after_ms: Some(*timeout_ms) }
        }
    };
    // A child that waits at its gate writes the next record itself if its job-processor is gone.
    if !spool::is_unexecuted(started)
        && let Err(e) = disk.note_stop(run_id, stopping)
    {
        tracing::warn!(run = %run_id, "why it is told to end could not be written down: {e}");
    }
    let processes = processes(started);
    hand.signal(&processes, Signal::TERM);
    // After a freeze that is under way: whoever comes later reads that it is told to end.
    if disk.as_it_says(run_id, |_| thaw(hand, started)).is_err() {
        thaw(hand, started); // its log cannot be read now; it has to hear the signal all the same
    }
}

fn kill_tree(hand: &Hand, started: &Started) {
    if let Some(cgroup) = started.cgroup.as_ref().and_then(|path| Cgroup::at(Path::new(path)))
        && cgroup.kill().is_ok()
    {
        return;
    }
    hand.signal(&processes(started), Signal::KILL);
}

/// The job's process and its descendants, each with what names it for ever.
pub(crate) fn processes(started: &Started) -> Vec<Identity> {
    let (Some(pid), Some(start_ticks)) = (started.pid, started.start_ticks) else { return Vec::new() };
    let leader = Identity { pid, start_ticks, pidfd_inode: started.pidfd_inode.unwrap_or(0) };
    match Pidfd::open_checked(&leader) {
        // Its pid is its own as long as we hold this descriptor and it lives, so its descendants are its own too.
        Ok(Some(held)) => {
            let mut found = tree::descendants(pid).unwrap_or_default();
            if held.has_ended().unwrap_or(true) {
                found.clear();
            }
            found.insert(0, leader);
            found
        }
        Ok(None) | Err(_) => Vec::new(),
    }
}

pub(crate) fn tell_job_processor(root: &DataRoot, run_id: RunId, what: ControlBody) -> io::Result<()> {
    let dir = root.run(Shelf::Live, run_id);
    let request = Control { body: Some(what) }.encode_to_vec();
    match ask(dir.path(), CONTROL_SOCKET, &request)?.as_slice() {
        b"ok" => Ok(()),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Whether the monitor is going to record the outcome of this run; `None`: there is no monitor. One that is there and does not answer now may
/// well be recording it.
pub(crate) fn ask_monitor(root: &DataRoot, run_id: RunId) -> Option<bool> {
    match ask(root.path(), MONITOR_SOCKET, &Request::Ask { run_id }.encode()) {
        Ok(answer) => Some(answer == YES),
        Err(_) if matches!(root.lock_holder("platform-agent"), Ok(Some(_))) => Some(true),
        Err(_) => None,
    }
}

/// Lets the monitor watch an adopted job beside us.
pub(crate) fn hand_to_monitor(root: &DataRoot, run_id: RunId, pid: u32, pidfd: &Pidfd) -> io::Result<()> {
    let socket = seqpacket::connect(root.path(), MONITOR_SOCKET)?;
    seqpacket::send(&socket, &Request::Watch { run_id, pid }.encode(), Some(pidfd.as_fd()))
}

fn ask(dir: &Path, name: &str, request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = seqpacket::connect(dir, name)?;
    seqpacket::send(&socket, request, None)?;
    if !seqpacket::wait_readable(&socket, Duration::from_millis(ANSWER_MS_MAX))? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match seqpacket::receive(&socket)? {
        Received::Message(answer, _) => Ok(answer),
        Received::Nothing | Received::Closed => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

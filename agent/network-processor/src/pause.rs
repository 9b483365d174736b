//! Letting a run stand still and go on: through its job-processor's control socket, or by our own hand if it is adopted. What is asked for is kept
//! until it is on disk; the log then says how the run stands, and who takes a run over lets it stand as its log says.

use crate::agent::Agent;
use crate::control::{processes, tell_job_processor};
use crate::disk::Disk;
use crate::errand::Hand;
use crate::event::Event;
use crate::run::{Delivery, Keeper, WantedPause};
use job::RunId;
use job::supervise::{Event as Happened, Pauses};
use os::cgroup::Cgroup;
use os::clock;
use os::signal::Signal;
use protocol::convert;
use protocol::message::{ControlBody, FactBody, PauseOrder, Resumed, Started, Suspended};
use spool::Ledger;
use std::io;
use std::path::Path;

impl Agent {
    pub(crate) fn on_pause(
        &mut self,
        session: u64,
        run_id: Option<Vec<u8>>,
        epoch: Option<u64>,
        suspend: bool,
        by: String,
    ) {
        let run_id = match convert::run_id("Suspend or Resume", &run_id) {
            Ok(run_id) => run_id,
            Err(e) => return self.sessions.complain(session, &e.to_string()),
        };
        if self.is_fenced(session, epoch) {
            return tracing::warn!(run = %run_id, suspend, "a server of an earlier epoch is not obeyed");
        }
        // Of a run that is not here or is over, the server knows more than this, or is about to.
        if let Some(run) = self.runs.get_mut(&run_id).filter(|run| run.ended.is_none()) {
            run.pause = Some(WantedPause { suspend, by, delivery: Delivery::Due });
            self.deliver_pause(run_id);
        }
    }

    /// Takes the next step towards what is wanted, if something is.
    pub(crate) fn deliver_pause(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id).filter(|run| run.ended.is_none()) else { return };
        let Some(wanted) = run.pause.as_mut().filter(|wanted| wanted.delivery == Delivery::Due) else {
            return;
        };
        let (suspend, by) = (wanted.suspend, wanted.by.clone());
        match &run.keeper {
            Keeper::JobProcessor(_) => {
                wanted.delivery = Delivery::Trying;
                let order = PauseOrder { by };
                let what = if suspend { ControlBody::Suspend(order) } else { ControlBody::Resume(order) };
                self.disk.ask(move |disk| {
                    Event::Paused(run_id, tell_job_processor(&disk.root, run_id, what).is_ok())
                });
            }
            Keeper::Adopted(_) => {
                run.pause = None;
                let happened = if suspend { Happened::Suspend { by } } else { Happened::Resume { by } };
                self.step_adopted(run_id, happened);
            }
            Keeper::Preparing | Keeper::Unread | Keeper::Nobody | Keeper::Over | Keeper::Quarantined => {}
        }
    }

    pub(crate) fn on_paused(&mut self, run_id: RunId, done: bool) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let Some(wanted) = run.pause.as_mut().filter(|wanted| wanted.delivery == Delivery::Trying) else {
            return; // something newer is wanted
        };
        if done {
            run.pause = None;
            self.read(run_id);
        } else {
            wanted.delivery = Delivery::Due; // the tick tries again
        }
    }

    /// An adopted run is to stand still, or to go on: its log first. If that cannot be written now, it is tried again.
    pub(crate) fn pause_adopted(&mut self, run_id: RunId, started: Started, by: String, suspend: bool) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        run.pause = Some(WantedPause { suspend, by: by.clone(), delivery: Delivery::Trying });
        let hand = self.hand(run_id);
        self.disk.spawn(move |disk| {
            let boottime_ms = Some(clock::boottime_ms());
            let fact = match suspend {
                true => FactBody::Suspended(Suspended { by, boottime_ms }),
                false => FactBody::Resumed(Resumed { by, boottime_ms }),
            };
            Event::PausedAdopted(run_id, suspend, pause(disk, &hand, run_id, &started, fact, suspend))
        });
    }

    pub(crate) fn on_paused_adopted(&mut self, run_id: RunId, suspended: bool, done: Result<(), String>) {
        let Err(e) = done else { return self.on_paused(run_id, true) };
        tracing::warn!(run = %run_id, suspended, "could not be written down, trying again: {e}");
        self.on_paused(run_id, false);
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let Keeper::Adopted(adopted) = &mut run.keeper else { return };
        // Nothing was done, so the machine goes back to where the log is.
        let by = String::new();
        let back = if suspended { Happened::Resume { by } } else { Happened::Suspend { by } };
        adopted.state = adopted.state.clone().on(back, clock::boottime_ms()).0;
    }

    /// The job-processor may have died between the record and the deed.
    pub(crate) fn stand_as_logged(&self, run_id: RunId, started: &Started, pauses: Pauses) {
        if pauses == Pauses::default() {
            return;
        }
        let (hand, disk, started) = (self.hand(run_id), self.disk.clone(), started.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(e) = disk.as_it_says(run_id, |ledger| stand(&hand, &started, stands_still(ledger))) {
                tracing::warn!(run = %run_id, "whether a job is to stand still cannot be read: {e}");
            }
        });
    }
}

fn pause(
    disk: &Disk,
    hand: &Hand,
    run_id: RunId,
    started: &Started,
    fact: FactBody,
    suspend: bool,
) -> Result<(), String> {
    if spool::is_unexecuted(started) {
        return Err("its process is about to go".to_owned()); // it writes the next record itself
    }
    disk.note(run_id, fact)?;
    // Another wish may have been written down since, and done by another thread: what the log says now is done.
    let done = disk.as_it_says(run_id, |ledger| stand(hand, started, stands_still(ledger)));
    done.or_else(|e| {
        tracing::warn!(run = %run_id, "whether a job is to stand still cannot be read again: {e}");
        stand(hand, started, suspend);
        Ok(())
    })
}

/// Whether the job is to stand still. One that was told to end is not: it has its grace to do so.
fn stands_still(ledger: &Ledger) -> bool {
    ledger.pauses.is_suspended() && ledger.stopping.is_none()
}

fn stand(hand: &Hand, started: &Started, still: bool) {
    if !still {
        thaw(hand, started);
    } else if let Err(e) = freeze(hand, started) {
        tracing::warn!(pid = started.pid, "a job cannot be suspended: {e}");
    }
}

fn freeze(hand: &Hand, started: &Started) -> io::Result<()> {
    if group(started).is_some_and(|group| group.freeze(true).is_ok()) {
        return Ok(());
    }
    hand.stop_all(|| processes(started))
}

/// Lets all processes of a job go on, however they were stopped.
pub(crate) fn thaw(hand: &Hand, started: &Started) {
    if let Some(group) = group(started) {
        let _ = group.freeze(false); // one without it was stopped by signals
    }
    hand.signal(&processes(started), Signal::CONT);
}

fn group(started: &Started) -> Option<Cgroup> {
    Cgroup::at(Path::new(started.cgroup.as_deref()?))
}

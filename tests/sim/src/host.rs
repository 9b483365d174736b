//! A host: its power, its kernel's table of job processes, the record locks, and the agent's processes on it.

use crate::disk::{Disk, Name, Shared};
use crate::job_processor::JobProcessor;
use crate::monitor::Monitor;
use crate::network_processor::NetworkProcessor;
use crate::queue::Ms;
use crate::rng::Rng;
use crate::world::{Event, World};
use job::{End, Never, Outcome, RunId, Witness};
use spool::Ledger;
use std::collections::BTreeMap;
use store::{Medium, SlotReader};

/// Who holds the record lock of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    JobProcessor(u32),
    Monitor,
    NetworkProcessor,
}

/// Who will be told the end of a process by `wait(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    JobProcessor(u32),
    NetworkProcessor(u64),
    Monitor(u64),
}

/// How far a job's process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Waits at the start gate.
    Gated,
    /// Executes.
    Running,
    /// Ended, and somebody has still to reap it.
    Zombie(End),
    /// Gone; a kernel that keeps exit information tells it to those who hold the process's descriptor.
    Reaped(End),
}

/// To whom what a job-processor leaves falls: to the network-processor that started it, and if that is gone to the monitor above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reapers {
    pub(crate) np: u64,
    pub(crate) monitor: Option<u64>,
}

/// What a gated child writes when its gate closes without a word.
#[derive(Clone, Debug)]
pub(crate) struct Farewell {
    /// Where the announcement stands, and what reads it.
    pub(crate) announced_at: u64,
    pub(crate) announced: SlotReader,
    /// Where the words go.
    pub(crate) at: u64,
    pub(crate) words: Vec<u8>,
}

/// A job's process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) run: RunId,
    pub(crate) life: Life,
    pub(crate) parent: Option<Parent>,
    /// The job's program was executed.
    pub(crate) has_executed: bool,
    pub(crate) farewell: Option<Farewell>,
    /// Ends when it is asked to.
    pub(crate) is_polite: bool,
}

/// A host.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) is_powered: bool,
    pub(crate) boot_id: [u8; 16],
    pub(crate) agent_id: [u8; 16],
    pub(crate) disk: Shared,
    pub(crate) processes: BTreeMap<u32, Process>,
    pub(crate) locks: BTreeMap<RunId, Holder>,
    pub(crate) monitor: Option<Monitor>,
    pub(crate) np: Option<NetworkProcessor>,
    pub(crate) jps: BTreeMap<u32, JobProcessor>,
    /// Its kernel tells the exit of a reaped process to whoever holds its descriptor (Linux 6.15 or later).
    pub(crate) tells_exits: bool,
}

impl Host {
    pub(crate) fn new(name: String, rng: &mut Rng) -> Host {
        Host {
            name,
            is_powered: true,
            boot_id: rng.bytes(),
            agent_id: rng.bytes(),
            disk: Disk::new(rng.fork()),
            processes: BTreeMap::new(),
            locks: BTreeMap::new(),
            monitor: None,
            np: None,
            jps: BTreeMap::new(),
            tells_exits: rng.percent(50),
        }
    }

    /// What is known of how a process ended, to whoever holds its descriptor.
    pub(crate) fn end_of(&self, pid: u32) -> Option<End> {
        match self.processes.get(&pid)?.life {
            Life::Zombie(end) => Some(end),
            Life::Reaped(end) => Some(end).filter(|_| self.tells_exits),
            Life::Gated | Life::Running => None,
        }
    }

    /// Whether the process exists, as somebody finds who opens it by its pid.
    pub(crate) fn exists(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| !matches!(process.life, Life::Reaped(_)))
    }

    /// The end of a process that this one has to reap and did not yet.
    pub(crate) fn zombie_of(&self, parent: Parent, pid: u32) -> Option<End> {
        match self.processes.get(&pid)? {
            Process { life: Life::Zombie(end), parent: Some(of), .. } if *of == parent => Some(*end),
            Process { .. } => None,
        }
    }

    /// What the end of a run's process says, to a witness (`spool::witnessed`): a process that executed nothing tells nothing of the job.
    pub(crate) fn witnessed(&self, ledger: &Ledger, end: End, witness: Witness, trusting: bool) -> Outcome {
        let pid = ledger.started.as_ref().and_then(|started| started.pid);
        let process = pid.filter(|pid| self.exists(*pid)).and_then(|pid| self.processes.get(&pid));
        if !trusting && process.is_some_and(|process| !process.has_executed) {
            let reason = "its process ended before it executed anything".to_owned();
            return Outcome::NeverStarted { reason, why: Never::Failed };
        }
        Outcome::Ended { end, cause: ledger.stop_cause(), witness, usage: None }
    }

    fn reaper(&self, reapers: Reapers) -> Option<Parent> {
        if self.np.as_ref().is_some_and(|np| np.id == reapers.np) {
            return Some(Parent::NetworkProcessor(reapers.np));
        }
        let monitor = self.monitor.as_ref().map(|monitor| monitor.id);
        monitor.filter(|id| Some(*id) == reapers.monitor).map(Parent::Monitor)
    }

    pub(crate) fn reap(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid)
            && let Life::Zombie(end) = process.life
        {
            process.life = Life::Reaped(end);
        }
    }

    pub(crate) fn unlock(&mut self, run: RunId, holder: Holder) {
        if self.locks.get(&run) == Some(&holder) {
            self.locks.remove(&run);
        }
    }
}

/// A slot.
const BLOCK_BYTES: usize = 4096;
/// How long a signal takes to end a process, milliseconds.
const DYING_MS: Ms = 3;

impl World {
    /// The clock of a host's disk is ours.
    pub(crate) fn disk(&self, host: usize) -> Shared {
        let disk = self.hosts[host].disk.clone();
        disk.borrow_mut().set_now_ms(self.queue.now_ms());
        disk
    }

    pub(crate) fn done_at_ms(&self, host: usize) -> Ms {
        self.hosts[host].disk.borrow().done_at_ms()
    }

    pub(crate) fn signal(&mut self, host: usize, pid: u32, kill: bool) {
        let Some(process) = self.hosts[host].processes.get(&pid) else { return };
        if kill || process.is_polite {
            let end = End::Signaled { signal: if kill { 9 } else { 15 }, core: false };
            self.queue.after(DYING_MS, Event::JobEnds { host, pid, end });
        }
    }

    /// A job's process ends, whoever wanted it.
    pub(crate) fn on_job_ends(&mut self, host: usize, pid: u32, end: End) {
        let Some(process) = self.hosts[host].processes.get_mut(&pid) else { return };
        if !matches!(process.life, Life::Gated | Life::Running) {
            return;
        }
        let (run, executed) = (process.run, process.life == Life::Running);
        process.life = Life::Zombie(end);
        if executed {
            self.oracle.on_job_ended(run, end);
        }
        let parent = process.parent;
        self.tell_end(host, pid, run);
        match parent {
            Some(Parent::JobProcessor(_) | Parent::NetworkProcessor(_)) => {}
            Some(Parent::Monitor(_)) => self.monitor_reaps(host),
            None => self.hosts[host].reap(pid),
        }
    }

    /// Gives a process to the next of its reapers; without one, `init` takes it.
    pub(crate) fn give_to_reaper(&mut self, host: usize, pid: u32, reaper: Option<Parent>) {
        let Some(process) = self.hosts[host].processes.get_mut(&pid) else { return };
        process.parent = reaper;
        match reaper {
            Some(Parent::Monitor(_)) => self.monitor_reaps(host),
            Some(Parent::JobProcessor(_) | Parent::NetworkProcessor(_)) => {}
            None => self.hosts[host].reap(pid),
        }
    }

    /// Everybody who holds the process's descriptor sees its end.
    fn tell_end(&mut self, host: usize, pid: u32, run: RunId) {
        let jp = self.hosts[host].jps.iter().find(|(_, jp)| jp.child == Some(pid)).map(|(jp, _)| *jp);
        if let Some(jp) = jp {
            self.queue.after(0, Event::Jp { host, jp });
        }
        if let Some(monitor) = self.hosts[host].monitor.as_ref().map(|monitor| monitor.id) {
            self.queue.after(0, Event::MonitorTry { host, monitor, run });
        }
        self.np_hears_of_job_gone(host, run);
    }

    /// A job-processor is gone, by itself or by force.
    pub(crate) fn on_jp_gone(&mut self, host: usize, jp: u32, well: bool) {
        let Some(gone) = self.hosts[host].jps.remove(&jp) else { return };
        self.hosts[host].unlock(gone.run, Holder::JobProcessor(jp));
        if !well {
            self.oracle.on_jp_died(gone.run);
        }
        if let Some(monitor) = &self.hosts[host].monitor {
            let delay_ms = self.rng.below(4);
            self.queue.after(delay_ms, Event::MonitorClosed { host, monitor: monitor.id, jp });
        }
        let is_child = self.hosts[host].np.as_ref().is_some_and(|np| np.id == gone.reapers.np);
        self.np_hears_of_jp_gone(host, jp, gone.run, well && is_child);
        let Some(pid) = gone.child else { return };
        let reaper = self.hosts[host].reaper(gone.reapers);
        self.give_to_reaper(host, pid, reaper);
        if self.hosts[host].processes.get(&pid).is_some_and(|process| process.life == Life::Gated) {
            let delay_ms = self.rng.below(10);
            self.queue.after(delay_ms, Event::GateClosed { host, pid });
        }
    }

    /// The child's farewell, as `lib/os/src/child/body.rs` says it: only if it was announced itself, and no outcome is there.
    pub(crate) fn on_gate_closed(&mut self, host: usize, pid: u32) {
        let Some(process) = self.hosts[host].processes.get(&pid) else { return };
        if process.life != Life::Gated {
            return;
        }
        let (run, farewell) = (process.run, process.farewell.clone());
        let disk = self.disk(host);
        say_farewell(&disk, run, pid, farewell);
        let done = self.done_at_ms(host);
        self.queue.at(done, Event::JobEnds { host, pid, end: End::Exited { code: 125 } });
    }

    /// The power of a host goes: every process, and what was not synced.
    pub(crate) fn on_power_cut(&mut self, host: usize) {
        let now_ms = self.queue.now_ms();
        if !self.hosts[host].is_powered {
            return;
        }
        self.drop_links(host);
        let boot_id = self.rng.bytes();
        let cut = &mut self.hosts[host];
        cut.is_powered = false;
        cut.boot_id = boot_id;
        (cut.monitor, cut.np) = (None, None);
        cut.jps.clear();
        cut.locks.clear();
        let runs: Vec<RunId> = cut.processes.values().map(|process| process.run).collect();
        cut.processes.clear();
        cut.disk.borrow_mut().power_cut(now_ms);
        self.oracle.on_power_cut(&runs);
        let delay_ms = self.rng.range(500, 6_000);
        self.queue.after(delay_ms, Event::PowerOn { host });
    }

    pub(crate) fn on_power_on(&mut self, host: usize) {
        self.hosts[host].is_powered = true;
        self.queue.after(10, Event::MonitorStart { host });
    }
}

/// If it cannot be said, whoever reaps the child sees that it never executed.
fn say_farewell(disk: &Shared, run: RunId, pid: u32, farewell: Option<Farewell>) {
    let Some(Farewell { announced_at, announced, at, words }) = farewell else { return };
    let Ok(mut log) = Disk::open_log(disk, Name::Live(run)) else { return };
    let Ok(bytes) = log.read() else { return };
    let behind = |at: u64| bytes.get(usize::try_from(at).unwrap_or(usize::MAX)..);
    let is_filled = behind(at).is_some_and(|bytes| bytes.iter().take(8).any(|byte| *byte != 0));
    let started = behind(announced_at).and_then(|block| announced.payload(block.get(..BLOCK_BYTES)?));
    if started.and_then(protocol::glance::started_pid) == Some(pid) && !is_filled {
        let said = log.write_at(&words, at).and_then(|()| log.sync());
        if said.is_err() {
            let _ = log.write_at(&vec![0; words.len()], at); // not promised: nobody may read it
        }
    }
}

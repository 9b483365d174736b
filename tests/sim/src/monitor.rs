//! The monitor: mirrors `agent/platform-agent/src/{monitor,witness}.rs`. It starts the network-processor, again and again, holds the descriptor
//! of every job, and records the end of an orphan before it reaps it.

use crate::disk::Name;
use crate::host::{Holder, Life, Parent};
use crate::log;
use crate::mutation::Mutation;
use crate::queue::Ms;
use crate::world::{Event, World};
use job::{End, RunId, Witness};
use spool::LedgerError;
use std::collections::BTreeMap;

/// Between two tries to record, milliseconds (`AGAIN_MS`, `AGAIN_SLOWLY_MS`).
const AGAIN_MS: Ms = 50;
const AGAIN_SLOWLY_MS: Ms = 1_000;
const QUICK_TRIES: u32 = 40;
/// Tries that are left to the parent of a job that is not our child (`PARENT_TRIES`).
const PARENT_TRIES: u32 = 10;
/// Tries to learn how a job ended that is not our child.
const FOREIGN_TRIES_MAX: u32 = 20;

/// A job without a job-processor.
#[derive(Clone, Copy, Debug)]
struct Orphan {
    pid: u32,
    tries: u32,
    /// A recording or the next try is under way.
    is_busy: bool,
}

/// The monitor.
pub(crate) struct Monitor {
    pub(crate) id: u64,
    /// By job-processor: the run and the process that it handed over.
    connections: BTreeMap<u32, Option<(RunId, u32)>>,
    orphans: BTreeMap<RunId, Orphan>,
}

impl Monitor {
    /// Whether it is going to record the end of that run.
    pub(crate) fn is_witness(&self, run: RunId) -> bool {
        self.orphans.contains_key(&run) || self.connections.values().flatten().any(|(held, _)| *held == run)
    }

    fn keeps(&self, pid: u32) -> bool {
        self.orphans.values().any(|orphan| orphan.pid == pid)
            || self.connections.values().flatten().any(|(_, held)| *held == pid)
    }
}

impl World {
    pub(crate) fn on_monitor_start(&mut self, host: usize) {
        if !self.hosts[host].is_powered || self.hosts[host].monitor.is_some() {
            return;
        }
        let id = self.new_instance();
        self.hosts[host].monitor =
            Some(Monitor { id, connections: BTreeMap::new(), orphans: BTreeMap::new() });
        self.queue.after(2, Event::NpStart { host });
        let jps: Vec<u32> = self.hosts[host].jps.keys().copied().collect();
        for jp in jps {
            let delay_ms = self.rng.range(100, 3_000);
            self.queue.after(delay_ms, Event::Introduce { host, jp });
        }
    }

    pub(crate) fn kill_monitor(&mut self, host: usize) {
        let Some(monitor) = self.hosts[host].monitor.take() else { return };
        let dead = self.hosts[host].locks.iter().filter(|(_, holder)| **holder == Holder::Monitor);
        let dead: Vec<RunId> = dead.map(|(run, _)| *run).collect();
        for run in dead {
            self.hosts[host].unlock(run, Holder::Monitor);
        }
        // Its children go to init, which reaps what has ended.
        let children = self.hosts[host].processes.iter_mut();
        let orphaned = children.filter(|(_, process)| process.parent == Some(Parent::Monitor(monitor.id)));
        let orphaned: Vec<u32> = orphaned
            .map(|(pid, process)| {
                process.parent = None;
                *pid
            })
            .collect();
        orphaned.into_iter().for_each(|pid| self.hosts[host].reap(pid));
        let delay_ms = self.rng.range(100, 3_000);
        self.queue.after(delay_ms, Event::MonitorStart { host });
    }

    /// A job-processor introduces itself.
    pub(crate) fn monitor_holds(&mut self, host: usize, jp: u32, run: RunId, pid: u32) {
        if let Some(monitor) = &mut self.hosts[host].monitor {
            monitor.connections.insert(jp, Some((run, pid)));
            monitor.orphans.remove(&run); // its job-processor lives after all
            self.monitor_reaps(host);
        }
    }

    /// The network-processor hands over an adopted job.
    pub(crate) fn monitor_watches(&mut self, host: usize, id: u64, run: RunId, pid: u32) {
        if let Some(monitor) = self.monitor(host, id) {
            monitor.orphans.entry(run).or_insert(Orphan { pid, tries: 0, is_busy: false });
            self.on_monitor_try(host, id, run);
        }
    }

    /// The outcome is on disk.
    pub(crate) fn monitor_lets_go(&mut self, host: usize, jp: u32) {
        if let Some(held) = self.hosts[host].monitor.as_mut().and_then(|m| m.connections.get_mut(&jp)) {
            *held = None;
        }
    }

    /// A job-processor's connection closed.
    pub(crate) fn on_monitor_closed(&mut self, host: usize, id: u64, jp: u32) {
        let Some(monitor) = self.monitor(host, id) else { return };
        if let Some(Some((run, pid))) = monitor.connections.remove(&jp) {
            monitor.orphans.entry(run).or_insert(Orphan { pid, tries: 0, is_busy: false });
            self.on_monitor_try(host, id, run);
        }
        self.monitor_reaps(host);
    }

    fn monitor(&mut self, host: usize, id: u64) -> Option<&mut Monitor> {
        self.hosts[host].monitor.as_mut().filter(|monitor| monitor.id == id)
    }

    /// Reaps every ended child but jobs whose end is not recorded.
    pub(crate) fn monitor_reaps(&mut self, host: usize) {
        let Some(monitor) = &self.hosts[host].monitor else { return };
        let ours = Some(Parent::Monitor(monitor.id));
        let is_over = |life: Life| matches!(life, Life::Zombie(_));
        let children = self.hosts[host].processes.iter();
        let ended = children.filter(|(pid, p)| p.parent == ours && is_over(p.life) && !monitor.keeps(**pid));
        let ended: Vec<u32> = ended.map(|(pid, _)| *pid).collect();
        ended.into_iter().for_each(|pid| self.hosts[host].reap(pid));
    }

    /// Looks at an orphan's end, and records it if it knows it.
    pub(crate) fn on_monitor_try(&mut self, host: usize, id: u64, run: RunId) {
        let now_ms = self.queue.now_ms();
        let Some(monitor) = self.monitor(host, id) else { return };
        let Some(orphan) = monitor.orphans.get_mut(&run).filter(|orphan| !orphan.is_busy) else { return };
        let (pid, tries) = (orphan.pid, orphan.tries);
        if matches!(self.hosts[host].processes.get(&pid).map(|p| p.life), Some(Life::Gated | Life::Running)) {
            return; // its end will be seen
        }
        let (ours, is_there) = (Parent::Monitor(id), self.hosts[host].exists(pid));
        if is_there && self.hosts[host].zombie_of(ours, pid).is_none() && tries < PARENT_TRIES {
            return self.monitor_again(host, id, run, u32::MAX);
        }
        let Some((end, witness)) = self.monitor_sees(host, id, pid) else {
            return self.monitor_again(host, id, run, FOREIGN_TRIES_MAX);
        };
        if self.hosts[host].locks.contains_key(&run) {
            return self.monitor_again(host, id, run, u32::MAX);
        }
        let trusting = self.mutation == Some(Mutation::TrustChild);
        let disk = self.disk(host);
        let taken = log::take(&disk, run);
        let recorded = match taken {
            Ok((_, ledger)) if ledger.ended.is_some() => Ok(false),
            Ok((_, ledger)) if ledger.started.as_ref().and_then(|started| started.pid) != Some(pid) => {
                Ok(false)
            }
            Ok((mut log, ledger)) => {
                let outcome = self.hosts[host].witnessed(&ledger, end, witness, trusting);
                log::record(&mut log, now_ms, log::ended(&outcome)).map(|_| true).map_err(|_| ())
            }
            Err(LedgerError::Damaged(_)) => Ok(false),
            Err(LedgerError::Io(_)) if !disk.borrow().exists(Name::Live(run)) => Ok(false),
            Err(LedgerError::Io(_)) => Err(()),
        };
        match recorded {
            Err(()) => self.monitor_again(host, id, run, u32::MAX),
            Ok(written) => {
                self.hosts[host].locks.insert(run, Holder::Monitor);
                if let Some(orphan) = self.monitor(host, id).and_then(|m| m.orphans.get_mut(&run)) {
                    orphan.is_busy = true;
                }
                let at_ms = self.done_at_ms(host);
                self.queue.at(at_ms, Event::MonitorDone { host, monitor: id, run, written });
            }
        }
    }

    fn monitor_sees(&self, host: usize, id: u64, pid: u32) -> Option<(End, Witness)> {
        let end = self.hosts[host].end_of(pid)?;
        let is_child = self.hosts[host].zombie_of(Parent::Monitor(id), pid).is_some();
        Some((end, if is_child { Witness::Monitor } else { Witness::Pidfd }))
    }

    fn monitor_again(&mut self, host: usize, id: u64, run: RunId, tries_max: u32) {
        let Some(monitor) = self.monitor(host, id) else { return };
        let Some(orphan) = monitor.orphans.get_mut(&run) else { return };
        orphan.tries += 1;
        if orphan.tries >= tries_max {
            monitor.orphans.remove(&run);
            return self.monitor_reaps(host);
        }
        let pause_ms = if orphan.tries < QUICK_TRIES { AGAIN_MS } else { AGAIN_SLOWLY_MS };
        self.queue.after(pause_ms, Event::MonitorTry { host, monitor: id, run });
    }

    /// What it wrote is durable: now the process is reaped, and the network-processor is hinted.
    pub(crate) fn on_monitor_done(&mut self, host: usize, id: u64, run: RunId, written: bool) {
        let Some(monitor) = self.monitor(host, id) else { return };
        let orphan = monitor.orphans.remove(&run);
        self.hosts[host].unlock(run, Holder::Monitor);
        if written {
            self.oracle.on_recorded(run);
        }
        if let Some(orphan) =
            orphan.filter(|o| self.hosts[host].zombie_of(Parent::Monitor(id), o.pid).is_some())
        {
            self.hosts[host].reap(orphan.pid);
        }
        self.np_is_woken(host, run);
    }
}

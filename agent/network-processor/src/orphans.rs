//! What comes to this process when a job-processor dies. Job-processors are its children, and it is the reaper of what they leave (a subreaper,
//! `prctl(2)`), so an orphaned job is its child too: one that ended stays a zombie, which tells exactly how, until that is recorded. If this process
//! dies, all of them go to the monitor, who is the next reaper.
//!
//! | dead                                         | a job that ends now is a zombie of |
//! |----------------------------------------------|------------------------------------|
//! | nobody                                       | its job-processor's                |
//! | its job-processor                            | ours                               |
//! | its job-processor and the monitor            | ours                               |
//! | its job-processor and we                     | the monitor's                      |
//! | the monitor, we, and later its job-processor | nobody's: `init` reaps it. Who holds a pidfd of it is told by the kernel (Linux ≥ 6.15) |
//!
//! So that there is such a holder, the monitor is handed a pidfd of every adopted job, at the adoption and when another monitor is found.
//!
//! Orphans that are no jobs (what a job left behind) are reaped here too, but not what may be a job of which we did not read yet.

use crate::agent::Agent;
use crate::control;
use crate::disk::Disk;
use crate::event::Event;
use crate::run::{Adopted, Keeper};
use job::RunId;
use os::{procfs, wait};
use std::collections::HashSet;

/// Our own programs, and what is a copy of one: whoever started them waits for them.
const OWN_NAME: &str = "job-processor";

/// Zombies that came to us.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    /// No jobs that we knew of when they were seen, each with its start time.
    seen: Vec<(u32, u64)>,
    /// The runs of which we did not know then whether they had a process. One of `seen` may be that process.
    unclear: HashSet<RunId>,
}

impl Agent {
    /// Reaps zombies that came to us and are nobody's outcome.
    pub(crate) fn reap_orphans(&mut self) {
        if !matches!(wait::peek_any(), Ok(Some(_))) {
            (self.orphans.seen, self.orphans.unclear) = (Vec::new(), HashSet::new());
            return;
        }
        let open = || self.runs.iter().filter(|(_, run)| run.ended.is_none());
        let unclear: HashSet<RunId> =
            open().filter(|(_, run)| run.started.is_none()).map(|(run_id, _)| *run_id).collect();
        self.orphans.unclear.retain(|run_id| unclear.contains(run_id));
        if !self.orphans.unclear.is_empty() {
            return; // in a later round
        }
        let jobs: HashSet<u32> =
            open().filter_map(|(_, run)| run.started.as_ref().and_then(|started| started.pid)).collect();
        for (pid, start_ticks) in std::mem::take(&mut self.orphans.seen) {
            if !jobs.contains(&pid) && zombie(pid) == Some(start_ticks) {
                let _ = wait::reap(pid); // a stranger's end, which nobody asks for
            }
        }
        let strangers = procfs::children(std::process::id()).into_iter().filter(|pid| !jobs.contains(pid));
        let strangers = strangers.filter_map(|pid| Some((pid, zombie(pid)?)));
        self.orphans.seen =
            strangers.filter(|(pid, _)| procfs::name(*pid).is_some_and(|name| name != OWN_NAME)).collect();
        self.orphans.unclear = if self.orphans.seen.is_empty() { HashSet::new() } else { unclear };
    }

    /// Looks whether another monitor is there than the one that has our pidfds.
    pub(crate) fn look_for_monitor(&self) {
        if self.adopted().next().is_some() {
            self.disk.ask(|disk| Event::MonitorSeen(monitor(disk)));
        }
    }

    pub(crate) fn on_monitor_seen(&self, monitor: Option<u32>) {
        let untold = self.adopted().filter(|(_, adopted)| monitor.is_some() && adopted.monitor != monitor);
        untold.for_each(|(run_id, _)| self.tell_monitor(run_id));
    }

    /// Hands the pidfd of an adopted job to the monitor, if there is one.
    pub(crate) fn tell_monitor(&self, run_id: RunId) {
        let Some(run) = self.runs.get(&run_id) else { return };
        let Keeper::Adopted(adopted) = &run.keeper else { return };
        let pid = run.started.as_ref().and_then(|started| started.pid);
        let pidfd = adopted.job.as_ref().and_then(|job| job.try_clone().ok());
        let Some((pid, pidfd)) = pid.zip(pidfd) else { return };
        self.disk.ask(move |disk| {
            let before = monitor(disk);
            let handed = control::hand_to_monitor(&disk.root, run_id, pid, &pidfd);
            Event::MonitorTold(run_id, before.filter(|_| handed.is_ok()))
        });
    }

    pub(crate) fn on_monitor_told(&mut self, run_id: RunId, monitor: Option<u32>) {
        if let Some(Keeper::Adopted(adopted)) = self.runs.get_mut(&run_id).map(|run| &mut run.keeper) {
            adopted.monitor = monitor;
        }
    }

    /// The runs that are looked after here.
    pub(crate) fn adopted(&self) -> impl Iterator<Item = (RunId, &Adopted)> {
        self.runs.iter().filter_map(|(run_id, run)| match &run.keeper {
            Keeper::Adopted(adopted) => Some((*run_id, adopted)),
            Keeper::Preparing
            | Keeper::Unread
            | Keeper::JobProcessor(_)
            | Keeper::Nobody
            | Keeper::Over
            | Keeper::Quarantined => None,
        })
    }
}

fn monitor(disk: &Disk) -> Option<u32> {
    disk.root.lock_holder("platform-agent").ok().flatten()
}

/// The start time of a process that is a zombie.
fn zombie(pid: u32) -> Option<u64> {
    let stat = procfs::stat(pid).ok()??;
    (stat.state == b'Z').then_some(stat.start_ticks)
}

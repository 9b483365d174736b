//! What this process may not do itself where job-processor alone has root's rights: signals to other users' processes, and the removal of what they
//! left in their working directories. A job-processor does it as that user.

use crate::agent::Agent;
use crate::disk::Disk;
use crate::launch::Launcher;
use crate::sudo::SUDO_MAX;
use crate::users;
use job::RunId;
use os::helper::Ended;
use os::pidfd::Identity;
use os::signal::Signal;
use spool::{RunDir, Shelf};
use std::ffi::OsString;
use std::io;
use std::time::Duration;

/// Rounds of SIGSTOP through errands: what was started during one is stopped in the next.
const STOP_ROUNDS: usize = 3;

/// How long the removal of what one job left may take.
const EMPTY_MAX: Duration = Duration::from_secs(600);

/// What reaches the processes of one run's job.
#[derive(Clone, Debug)]
pub(crate) struct Hand {
    launcher: Launcher,
    disk: Disk,
    run_id: RunId,
}

impl Agent {
    pub(crate) fn hand(&self, run_id: RunId) -> Hand {
        Hand { launcher: self.launcher.clone(), disk: self.disk.clone(), run_id }
    }
}

impl Hand {
    /// Signals processes of the job. May wait for a job-processor; not for the event loop.
    pub(crate) fn signal(&self, processes: &[Identity], signal: Signal) {
        self.launcher.signal(&self.disk, self.run_id, processes, signal);
    }

    /// SIGSTOP to all of them, also to those that are started meanwhile.
    pub(crate) fn stop_all(&self, processes: impl Fn() -> Vec<Identity>) -> io::Result<()> {
        if !self.launcher.users.switch.is_job_processors() {
            return os::tree::stop_all(|| Ok(processes())).map(drop);
        }
        (0..STOP_ROUNDS).for_each(|_| self.signal(&processes(), Signal::STOP));
        Ok(())
    }
}

impl Launcher {
    fn signal(&self, disk: &Disk, run_id: RunId, processes: &[Identity], signal: Signal) {
        let hit = os::tree::signal_all(processes, signal);
        if hit == processes.len() || !self.users.switch.is_job_processors() {
            return;
        }
        let mut arguments = vec!["--signal".into(), signal.as_raw().to_string().into()];
        let named = |p: &Identity| OsString::from(format!("{}:{}", p.pid, p.start_ticks));
        let done = self.user_of(disk, &disk.root.run(Shelf::Live, run_id)).and_then(|user| {
            arguments.extend(["--user".into(), user]);
            arguments.extend(processes.iter().map(named));
            self.run_errand(arguments, SUDO_MAX)
        });
        if let Err(e) = done {
            tracing::warn!(run = %run_id, ?signal, "not all processes of the job were signalled: {e}");
        }
    }

    /// Removes a settled run's directory.
    pub(crate) fn remove(&self, disk: &Disk, dir: &RunDir) -> io::Result<()> {
        os::crash::torn("retention.amid-removal", &[], |_| drop(std::fs::remove_file(dir.log())));
        match os::disk::remove_tree(dir.path()) {
            Err(e)
                if e.kind() == io::ErrorKind::PermissionDenied && self.users.switch.is_job_processors() => {}
            done => return done,
        }
        let user = self.user_of(disk, dir)?;
        self.run_errand(vec!["--empty".into(), "--user".into(), user, dir.path().into()], EMPTY_MAX)?;
        os::disk::remove_tree(dir.path())
    }

    fn user_of(&self, disk: &Disk, dir: &RunDir) -> io::Result<OsString> {
        let (ledger, _) = disk.read_at(dir).map_err(io::Error::other)?;
        let user = users::resolve(&self.agent, &self.users, &ledger.spec).map_err(io::Error::other)?;
        user.map(|user| user.to_string().into())
            .ok_or_else(|| io::Error::other("the job was of no other user"))
    }

    fn run_errand(&self, arguments: Vec<OsString>, time: Duration) -> io::Result<()> {
        let Ended { status, said, .. } = self.helpers.run(self.job_processor().args(arguments), time)?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("job-processor as the user: {status}: {said}")))
    }
}

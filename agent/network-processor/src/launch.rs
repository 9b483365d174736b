//! From a START to a job-processor: prepare the directory, make it durable, start the process.

use crate::disk::Disk;
use crate::event::{Event, NotPrepared};
use job::{Outcome, RunId};
use os::pidfd::Pidfd;
use protocol::RunSpec;
use spool::{PrepareError, Shelf};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How job-processors are started.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    program: PathBuf,
    cgroup_parent: Option<PathBuf>,
}

/// A run that was prepared.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Its job-processor; `None` for a run that was only prepared to say that it never starts.
    pub(crate) job_processor: Option<(u32, Pidfd)>,
}

impl Launcher {
    pub(crate) fn new(libexec: Option<&Path>, cgroup_parent: Option<PathBuf>) -> anyhow::Result<Launcher> {
        let beside = std::env::current_exe()?;
        let directory =
            libexec.or(beside.parent()).ok_or(anyhow::anyhow!("this program is in no directory"))?;
        let program = directory.join("job-processor");
        anyhow::ensure!(
            program.exists(),
            "{} does not exist: set \"libexec\" to the directory of the agent's programs",
            program.display()
        );
        Ok(Launcher { program, cgroup_parent })
    }

    /// Prepares a run and starts its job-processor. Reports [`Event::Prepared`].
    pub(crate) fn prepare(&self, disk: &Disk, run_id: RunId, spec: RunSpec, expired_ms: u64) {
        let launcher = self.clone();
        disk.spawn(move |disk| {
            let prepared =
                prepare(disk, run_id, &spec, expired_ms, None).and_then(|()| launcher.launch(disk, run_id));
            Event::Prepared(run_id, prepared)
        });
    }

    /// Writes down durably that a run which was never received never starts. Reports [`Event::Prepared`].
    pub(crate) fn entomb(&self, disk: &Disk, run_id: RunId, by: String) {
        disk.spawn(move |disk| {
            let reason = format!("killed by {by} before this agent had received it");
            let never = Outcome::NeverStarted { reason, canceled: true };
            let tombstone = prepare(disk, run_id, &RunSpec::default(), 0, Some(&never));
            let durable = tombstone.and_then(|()| disk.sync_runs().map_err(NotPrepared::Unsynced));
            Event::Prepared(run_id, durable.map(|()| Launched { job_processor: None }))
        });
    }

    /// Tries again to make a prepared run durable and to start it, if its log does not say that it never starts. Reports [`Event::Prepared`].
    pub(crate) fn prepare_again(&self, disk: &Disk, run_id: RunId) {
        let launcher = self.clone();
        disk.spawn(move |disk| {
            let ended = disk.read(run_id, false).is_ok_and(|seen| seen.ledger.ended.is_some());
            let prepared = match ended {
                true => {
                    disk.sync_runs().map(|()| Launched { job_processor: None }).map_err(NotPrepared::Unsynced)
                }
                false => launcher.launch(disk, run_id),
            };
            Event::Prepared(run_id, prepared)
        });
    }

    /// The directory is whole: makes its name durable, and only then starts the job-processor.
    fn launch(&self, disk: &Disk, run_id: RunId) -> Result<Launched, NotPrepared> {
        disk.sync_runs().map_err(NotPrepared::Unsynced)?;
        os::crash::point("accept.after-directory-sync");
        // It is accepted: a job-processor that cannot be started now is started later.
        Ok(self.start(disk, run_id).unwrap_or_else(|e| {
            tracing::warn!(run = %run_id, "no job-processor could be started: {e}");
            Launched { job_processor: None }
        }))
    }

    /// Starts another job-processor for a run that has not executed. Reports [`Event::Relaunched`].
    pub(crate) fn relaunch(&self, disk: &Disk, run_id: RunId) {
        let launcher = self.clone();
        disk.spawn(move |disk| Event::Relaunched(run_id, launcher.start(disk, run_id)));
    }

    fn start(&self, disk: &Disk, run_id: RunId) -> io::Result<Launched> {
        let dir = disk.root.run(Shelf::Live, run_id);
        let trace = disk.root.trace_dir().join("job-processor.log");
        let stderr = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(trace)
            .map_or(Stdio::null(), Stdio::from);
        let mut command = Command::new(&self.program);
        command.arg(dir.path()).args(&self.cgroup_parent).current_dir(disk.root.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn()?;
        let pid = child.id();
        // Nobody but us reaps it, so the pid is surely still its own.
        let pidfd = Pidfd::open(pid)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Launched { job_processor: Some((pid, pidfd)) })
    }
}

fn prepare(
    disk: &Disk,
    run_id: RunId,
    spec: &RunSpec,
    expired_ms: u64,
    never: Option<&Outcome>,
) -> Result<(), NotPrepared> {
    let io_error = |e| NotPrepared::Failed(PrepareError::Io(e));
    match disk.root.find(run_id).map_err(io_error)? {
        Some((Shelf::Settled, _)) => return Err(NotPrepared::Settled),
        Some((Shelf::Quarantined, _)) => return Err(NotPrepared::Quarantined),
        Some((Shelf::Live, _)) => return Err(NotPrepared::Present),
        None => {}
    }
    if run_id.wall_ms() <= expired_ms {
        return Err(NotPrepared::Expired);
    }
    let now_ms = os::clock::wall_ms();
    spool::prepare(&disk.root, run_id, spec, disk.boot_id, now_ms, never)
        .map(|_| ())
        .map_err(NotPrepared::Failed)
}

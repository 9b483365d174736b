//! From a START to a job-processor: prepare the directory, make it durable, start the process.

use crate::disk::Disk;
use crate::event::{Event, NotPrepared};
use crate::identity::IdentityFile;
use crate::nursery::Nursery;
use crate::sudo::Helpers;
use crate::users::{self, NotResolved};
use config::{AgentConfig, UserSwitch, Users};
use job::users::User;
use job::{Never, Outcome, RunId};
use os::pidfd::Pidfd;
use protocol::RunSpec;
use spool::{PrepareError, Prepared, Shelf, Stored};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// How job-processors are started.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    pub(crate) program: PathBuf,
    cgroup_parent: Option<PathBuf>,
    pub(crate) agent: String,
    pub(crate) users: Users,
    nursery: Arc<Nursery>,
    pub(crate) helpers: Helpers,
}

/// Why no job-processor was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotLaunched {
    /// The run may not have its user (any more): it never starts.
    #[error("{0}")]
    Refused(String),
    /// The system said no; it may say yes later.
    #[error("{0}")]
    NotNow(io::Error),
}

impl From<io::Error> for NotLaunched {
    fn from(error: io::Error) -> NotLaunched {
        NotLaunched::NotNow(error)
    }
}

impl From<NotResolved> for NotLaunched {
    fn from(error: NotResolved) -> NotLaunched {
        match error {
            NotResolved::Refused(reason) => NotLaunched::Refused(reason),
            e @ NotResolved::NotNow(_) => NotLaunched::NotNow(io::Error::other(e)),
        }
    }
}

/// A run that was prepared.
#[derive(Debug)]
pub(crate) struct Launched {
    /// What its log began with, if it was written just now.
    pub(crate) messages: Vec<Stored>,
    /// Its job-processor.
    pub(crate) job_processor: JobProcessor,
}

/// Where a run's job-processor stands.
#[derive(Debug)]
pub(crate) enum JobProcessor {
    /// There is none: it could not be started, or the run was only prepared to say that it never starts.
    Nobody,
    /// A child of ours, by birth or as an orphan that came to us.
    Child(u32, Pidfd),
    /// sudo is to be asked for it, and it for a job of that user.
    Due(Option<String>),
    /// It may have the run, and it is not known which process it is: the log's lock says who has it.
    Apart,
}

impl Launcher {
    pub(crate) fn new(config: &AgentConfig, cgroup_parent: Option<PathBuf>) -> anyhow::Result<Launcher> {
        let beside = std::env::current_exe()?;
        let directory = config
            .libexec
            .as_deref()
            .or(beside.parent())
            .ok_or(anyhow::anyhow!("this program is in no directory"))?;
        let program = directory.join("job-processor");
        anyhow::ensure!(
            program.exists(),
            "{} does not exist: set \"libexec\" to the directory of the agent's programs",
            program.display()
        );
        let (agent, users) = (config.name.clone(), config.users.clone());
        Ok(Launcher {
            program,
            cgroup_parent,
            agent,
            users,
            nursery: Arc::default(),
            helpers: Helpers::default(),
        })
    }

    /// The control group below which each run gets its own.
    pub(crate) fn cgroup_parent(&self) -> Option<&Path> {
        self.cgroup_parent.as_deref()
    }

    /// Prepares a run and starts its job-processor. Reports [`Event::Prepared`].
    /// With `refusing` it says so of a run that is not here already.
    pub(crate) fn prepare(
        &self,
        disk: &Disk,
        run_id: RunId,
        spec: RunSpec,
        identity: IdentityFile,
        refusing: String,
    ) {
        let launcher = self.clone();
        disk.spawn(move |disk| {
            let checked = check_new(disk, run_id, &identity).and_then(|()| match refusing.is_empty() {
                true => launcher.prepare_and_launch(disk, run_id, &spec),
                false => Err(NotPrepared::Refusing(refusing)),
            });
            Event::Prepared(run_id, checked)
        });
    }

    fn prepare_and_launch(
        &self,
        disk: &Disk,
        run_id: RunId,
        spec: &RunSpec,
    ) -> Result<Launched, NotPrepared> {
        let user = users::resolve(&self.agent, &self.users, spec).map_err(NotPrepared::User)?;
        let messages = prepare(disk, run_id, spec, None)?.messages;
        let launched =
            self.launch(disk, run_id, |launcher| launcher.start_as(disk, run_id, user.as_ref()))?;
        Ok(Launched { messages, ..launched })
    }

    /// Writes down durably that a run which was never received never starts. Reports [`Event::Prepared`].
    pub(crate) fn entomb(&self, disk: &Disk, run_id: RunId, by: String) {
        disk.spawn(move |disk| {
            let reason = format!("killed by {by} before this agent had received it");
            let never = Outcome::NeverStarted { reason, why: Never::Canceled };
            let tombstone = not_there(disk, run_id)
                .and_then(|()| prepare(disk, run_id, &RunSpec::default(), Some(&never)));
            let durable = tombstone.and_then(|_| disk.sync_runs().map_err(NotPrepared::Unsynced));
            Event::Prepared(run_id, durable.map(|()| Launched::nobody()))
        });
    }

    /// Tries again to make a prepared run durable and to start it, if its log does not say that it never starts. Reports [`Event::Prepared`].
    pub(crate) fn prepare_again(&self, disk: &Disk, run_id: RunId) {
        let launcher = self.clone();
        disk.spawn(move |disk| {
            let ended = disk
                .read_at(&disk.root.run(Shelf::Live, run_id))
                .is_ok_and(|(ledger, _)| ledger.ended.is_some());
            let prepared = match ended {
                true => disk.sync_runs().map(|()| Launched::nobody()).map_err(NotPrepared::Unsynced),
                false => launcher.launch(disk, run_id, |launcher| launcher.start(disk, run_id)),
            };
            Event::Prepared(run_id, prepared)
        });
    }

    /// The directory is whole: makes its name durable, and only then starts the job-processor.
    fn launch(
        &self,
        disk: &Disk,
        run_id: RunId,
        start: impl FnOnce(&Launcher) -> Result<Launched, NotLaunched>,
    ) -> Result<Launched, NotPrepared> {
        disk.sync_runs().map_err(NotPrepared::Unsynced)?;
        os::crash::point("accept.after-directory-sync");
        // It is accepted: a job-processor that cannot be started now is started later.
        Ok(start(self).unwrap_or_else(|e| {
            tracing::warn!(run = %run_id, "no job-processor could be started: {e}");
            Launched::nobody()
        }))
    }

    /// Starts another job-processor for a run that has not executed. Reports [`Event::Relaunched`].
    pub(crate) fn relaunch(&self, disk: &Disk, run_id: RunId) {
        let launcher = self.clone();
        disk.spawn(move |disk| Event::Relaunched(run_id, launcher.start(disk, run_id)));
    }

    /// As whom is looked up anew: from the log, and with the list as it is now.
    fn start(&self, disk: &Disk, run_id: RunId) -> Result<Launched, NotLaunched> {
        if self.users.switch == UserSwitch::None {
            return self.start_as(disk, run_id, None);
        }
        let (ledger, _) = disk.read_at(&disk.root.run(Shelf::Live, run_id)).map_err(io::Error::other)?;
        let user = users::resolve(&self.agent, &self.users, &ledger.spec)?;
        self.start_as(disk, run_id, user.as_ref())
    }

    fn start_as(&self, disk: &Disk, run_id: RunId, user: Option<&User>) -> Result<Launched, NotLaunched> {
        let user = user.map(User::to_string);
        // A program with root's rights is started for one run, and checks for itself what that is.
        let born = match self.users.switch {
            UserSwitch::Setuid => Err(io::ErrorKind::NotConnected.into()),
            UserSwitch::Sudo => return Ok(Launched::with(JobProcessor::Due(user))),
            UserSwitch::None | UserSwitch::Root => {
                self.nursery.job_processor(run_id, user.as_deref(), || self.nursery_command(disk))
            }
        };
        let pid = match born {
            Ok(pid) => pid,
            Err(e) if e.kind() == io::ErrorKind::NotConnected => {
                self.own_command(disk, run_id, user.as_deref()).spawn()?.id()
            }
            Err(e) => return Err(e.into()),
        };
        // Nobody but us reaps it, so the pid is surely still its own.
        let pidfd = Pidfd::open(pid)?.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Launched::with(JobProcessor::Child(pid, pidfd)))
    }

    /// The job-processors' complaints go into a new file from now on.
    pub(crate) fn renew_nursery(&self) {
        self.nursery.renew();
    }

    fn nursery_command(&self, disk: &Disk) -> Command {
        let mut command = self.command(disk);
        let pattern = disk.root.run(Shelf::Live, RunId::new(0, 0));
        command.arg("--nursery").arg(pattern.path()).args(&self.cgroup_parent);
        command
    }

    pub(crate) fn own_command(&self, disk: &Disk, run_id: RunId, user: Option<&str>) -> Command {
        let mut command = self.command(disk);
        if let Some(user) = user {
            command.args(["--user", user]);
        }
        command.arg(disk.root.run(Shelf::Live, run_id).path()).args(&self.cgroup_parent);
        command
    }

    fn command(&self, disk: &Disk) -> Command {
        let stderr = disk.root.job_processors_trace().map_or(Stdio::null(), Stdio::from);
        let mut command = self.job_processor();
        command.current_dir(disk.root.path()).stderr(stderr);
        command
    }
}

impl Launched {
    pub(crate) fn with(job_processor: JobProcessor) -> Launched {
        Launched { messages: Vec::new(), job_processor }
    }

    fn nobody() -> Launched {
        Launched::with(JobProcessor::Nobody)
    }
}

/// The run is on no shelf, and not as old as what was removed from one.
fn check_new(disk: &Disk, run_id: RunId, identity: &IdentityFile) -> Result<(), NotPrepared> {
    not_there(disk, run_id)?;
    // Asked after the directory was looked for: it may have been removed a moment ago.
    if run_id.wall_ms() <= identity.expired_ms() { Err(NotPrepared::Expired) } else { Ok(()) }
}

fn not_there(disk: &Disk, run_id: RunId) -> Result<(), NotPrepared> {
    let io_error = |e| NotPrepared::Failed(PrepareError::Io(e));
    match disk.root.find(run_id).map_err(io_error)? {
        Some((Shelf::Settled, _)) => Err(NotPrepared::Settled),
        Some((Shelf::Quarantined, _)) => Err(NotPrepared::Quarantined),
        Some((Shelf::Live, _)) => Err(NotPrepared::Present),
        None => Ok(()),
    }
}

fn prepare(
    disk: &Disk,
    run_id: RunId,
    spec: &RunSpec,
    never: Option<&Outcome>,
) -> Result<Prepared, NotPrepared> {
    let now_ms = os::clock::wall_ms();
    spool::prepare(&disk.root, run_id, spec, disk.boot_id, now_ms, never).map_err(NotPrepared::Failed)
}

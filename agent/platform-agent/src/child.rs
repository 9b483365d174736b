//! The network-processor as the monitor sees it: our child, one of an earlier monitor's, or to be started at a time.

use anyhow::Context;
use os::pidfd::Pidfd;
use os::signal::Signal;
use spool::DataRoot;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the network-processor stands.
#[derive(Debug)]
pub(crate) enum NetworkProcessor {
    /// It runs.
    Running {
        /// Its process id.
        pid: u32,
        /// Its descriptor.
        pidfd: Pidfd,
    },
    /// It ended and is started again then (`CLOCK_BOOTTIME` milliseconds).
    Due(u64),
}

/// How to start it.
#[derive(Debug)]
pub(crate) struct Starter {
    program: PathBuf,
    config: PathBuf,
}

impl Starter {
    pub(crate) fn new(libexec: Option<&Path>, config: &Path) -> anyhow::Result<Starter> {
        let beside = std::env::current_exe().context("where is this program?")?;
        let directory = libexec.or(beside.parent()).context("this program is in no directory")?;
        let program = directory.join("network-processor");
        anyhow::ensure!(
            program.exists(),
            "{} does not exist: set \"libexec\" to the directory of the agent's programs",
            program.display()
        );
        let config = std::path::absolute(config).context("the configuration's path")?;
        Ok(Starter { program, config })
    }

    /// Takes over the network-processor of an earlier monitor, or starts one.
    pub(crate) fn take_or_start(&self, root: &DataRoot) -> anyhow::Result<NetworkProcessor> {
        if let Some(pid) = root.lock_holder("network-processor").context("the network-processor's lock")?
            && let Some(pidfd) = Pidfd::open(pid)?
            && root.lock_holder("network-processor")? == Some(pid)
        {
            tracing::info!(pid, "found a running network-processor and watch it");
            return Ok(NetworkProcessor::Running { pid, pidfd });
        }
        self.start()
    }

    /// Where the program is.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn start(&self) -> anyhow::Result<NetworkProcessor> {
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let pid = child.id();
        // Our child cannot be reaped by anybody else, so the pid is surely still its own.
        let pidfd = Pidfd::open(pid)?.context("the network-processor was gone at once")?;
        tracing::info!(pid, "network-processor started");
        Ok(NetworkProcessor::Running { pid, pidfd })
    }
}

impl NetworkProcessor {
    /// Its process id while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            NetworkProcessor::Running { pid, .. } => Some(*pid),
            NetworkProcessor::Due(_) => None,
        }
    }

    /// Sends it a signal if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let NetworkProcessor::Running { pid, pidfd } = self
            && let Err(e) = pidfd.signal(signal)
        {
            tracing::warn!(pid, "cannot signal the network-processor: {e}");
        }
    }
}

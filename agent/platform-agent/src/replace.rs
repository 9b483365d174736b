//! How the monitor replaces itself, and the network-processor, by newer programs.
//!
//! The monitor stays the same process: exec(2) keeps its process id, its children, its locks and (as long as they are told to stay open) its
//! descriptors. What ended meanwhile waits as a zombie. Before the exec the new program is started once for a moment and has to say that it
//! reads this configuration and knows the format of the state that is handed over; if it does not, or the exec fails, the present one goes on and
//! says why. A file that was refused is not tried again until it changes.
//!
//! A network-processor whose program changed on disk is asked to go, as in a controlled stop, and the newer one is started at once.
//!
//! | dies                                     | then                                                                        |
//! |------------------------------------------|-----------------------------------------------------------------------------|
//! | an orphan, amid the exec                 | it stays a zombie; the new program records its exact end                    |
//! | the monitor, amid the exec               | as any other death of it: the next monitor and the pidfds are the witnesses |
//! | a job-processor, amid the exec           | its connection is found closed by the new program                           |
//!
//! The signals stay blocked over the exec: one that comes amid it is obeyed by the new program.

use crate::child::NetworkProcessor;
use crate::handover::Draft;
use crate::monitor::{Monitor, STOP_GRACE_MS};
use crate::program::{LOOK_MS, Program, dry_start};
use anyhow::Context;
use os::clock;
use os::signal::Signal;
use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use trace::Tracing;

const PIPE: i32 = 13;

/// What there is to replace.
#[derive(Debug)]
pub(crate) struct Replacement {
    own: Program,
    network_processor: Program,
    /// Somebody asked for it: now, and even by the same program.
    pub(crate) wanted: bool,
    /// When the programs on disk are looked at again, `CLOCK_BOOTTIME` milliseconds.
    pub(crate) look_at_ms: u64,
    /// The network-processor is making room for its newer program; then it is killed, `CLOCK_BOOTTIME` milliseconds.
    pub(crate) kill_at_ms: Option<u64>,
}

impl Replacement {
    pub(crate) fn new(network_processor: &Path) -> anyhow::Result<Replacement> {
        Ok(Replacement {
            own: Program::own()?,
            network_processor: Program::at(network_processor),
            wanted: false,
            look_at_ms: clock::boottime_ms(),
            kill_at_ms: None,
        })
    }
}

impl Monitor {
    /// Replaces what has a newer program on disk, or what was asked for.
    pub(crate) fn look_at_programs(&mut self, now_ms: u64, tracing: &Tracing) {
        let wanted = std::mem::take(&mut self.replacement.wanted);
        if !wanted && now_ms < self.replacement.look_at_ms {
            return;
        }
        self.replacement.look_at_ms = now_ms + LOOK_MS;
        if self.over || self.stop_by_ms.is_some() || self.replacement.kill_at_ms.is_some() {
            return;
        }
        if self.replacement.own.is_newer_than(std::process::id()) || wanted {
            // Returns only if it could not be done.
            let Err(e) = self.replace_itself(tracing);
            tracing::error!("the monitor goes on as it is: {e:#}");
            self.replacement.own.refuse();
        }
        if let NetworkProcessor::Running { pid, .. } = self.network_processor
            && self.replacement.network_processor.is_newer_than(pid)
        {
            tracing::info!(pid, "the network-processor has a newer program and is asked to make room for it");
            self.replacement.kill_at_ms = Some(now_ms + STOP_GRACE_MS);
            self.network_processor.signal(Signal::TERM);
        }
    }

    fn replace_itself(&mut self, tracing: &Tracing) -> anyhow::Result<Infallible> {
        let program = self.replacement.own.path().to_owned();
        dry_start(&program, &self.path)?;
        self.read_all_connections()?; // what was said to this program is not left to the next one
        let mut draft = Draft::new(&self.lock, &self.listener, &self.network_processor);
        self.connections.values().for_each(|connection| draft.connection(connection));
        self.orphans.values().for_each(|orphan| draft.orphan(orphan));
        let sealed = draft.seal()?;
        tracing::info!(
            program = %program.display(),
            connections = self.connections.len(),
            orphans = self.orphans.len(),
            "the monitor replaces itself"
        );
        tracing.flush();
        let mut command = Command::new(&program);
        command.arg("--config").arg(&self.path).args(["--take-over", &sealed.number().to_string()]);
        let error = command.exec();
        os::signal::ignore(&[PIPE]); // the attempt has reset that
        Err(error).with_context(|| format!("cannot execute {}", program.display()))
    }
}

//! Writing a run's log: by its job-processor, or by whoever records an outcome in its place. Both take the lock first.

use crate::ledger::{Ledger, LedgerError, encode, slot_of};
use crate::root::RunDir;
use crate::{SLOT_ENDED, SLOT_STARTED};
use job::{Outcome, RunId};
use os::child::Farewell;
use protocol::message::{Ended, Fact, FactBody};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use store::{Log, WriteError};

/// The writer of one run's log. While it lives the lock is held; dropping it lets go.
#[derive(Debug)]
pub struct Recorder {
    log: Log<File>,
}

/// Why a log could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Its writer is alive, however slow.
    #[error("another process holds the log")]
    Held,
    /// It cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Recorder {
    /// Opens the log once, takes its lock and reads it.
    pub fn take(dir: &RunDir) -> Result<(Recorder, Ledger), TakeError> {
        let io_error = |e: io::Error| TakeError::Ledger(LedgerError::Io(e));
        let file = Log::open_file(&dir.log()).map_err(io_error)?;
        if !os::lock::try_lock(&file).map_err(io_error)? {
            return Err(TakeError::Held);
        }
        let (log, contents) = Log::open(file).map_err(LedgerError::from)?;
        Ok((Recorder { log }, Ledger::from_contents(contents, dir.run_id())?))
    }

    /// What a gated child writes after STARTED if its job-processor dies before the start gate opens, or before it recorded that the program
    /// cannot be executed.
    pub fn farewell(&self) -> Result<Farewell, WriteError> {
        let gone = "the job-processor died before the start gate opened: nothing was executed".to_owned();
        let failed = "the command could not be executed, and the job-processor died before it could say why"
            .to_owned();
        let prepared = |outcome: &Outcome| {
            let fact = Fact::new(os::clock::wall_ms(), FactBody::Ended(Ended::from(outcome)));
            self.log.prepared(SLOT_ENDED, &encode(&fact), 1)
        };
        let (announced_at, _) = self.log.prepared(SLOT_STARTED, &[], 0)?;
        let (at, unexecuted) = prepared(&Outcome::NeverStarted { reason: gone, canceled: false })?;
        let (_, failed) = prepared(&Outcome::CannotExecute { reason: failed })?;
        Ok(Farewell { file: self.log.medium().as_raw_fd(), announced_at, at, unexecuted, failed })
    }

    /// Writes a fact durably: STARTED and ENDED into their slots, others at the end.
    pub fn record(&mut self, body: FactBody) -> Result<u64, WriteError> {
        let slot = slot_of(&body);
        let bytes = encode(&Fact::new(os::clock::wall_ms(), body));
        match slot {
            Some(slot) => self.log.fill(slot, &bytes),
            None => self.log.append(&bytes),
        }
    }

    /// Writes the outcome durably. A reason that is too long for its slot is cut.
    pub fn record_outcome(&mut self, outcome: &Outcome) -> Result<u64, WriteError> {
        const REASON_CHARS_MAX: usize = 800;
        let mut ended = Ended::from(outcome);
        if ended.reason.chars().count() > REASON_CHARS_MAX {
            ended.reason = ended.reason.chars().take(REASON_CHARS_MAX).chain(['…']).collect();
        }
        self.record(FactBody::Ended(ended))
    }
}

/// Records an outcome in the place of a job-processor that is gone. `decide` sees the log under its lock and gives the outcome, or `None`
/// to leave it open. An outcome that is there already stays. Returns whether one was written.
pub fn record_in_place_of(
    dir: &RunDir,
    decide: impl FnOnce(&Ledger) -> Option<Outcome>,
) -> Result<bool, RecordError> {
    let (mut recorder, ledger) = Recorder::take(dir)?;
    if ledger.ended.is_some() {
        return Ok(false);
    }
    match decide(&ledger) {
        None => Ok(false),
        Some(outcome) => {
            recorder.record_outcome(&outcome)?;
            Ok(true)
        }
    }
}

/// Why no outcome could be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The log could not be taken.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What the network-processor is told when something was recorded: the run's id.
pub fn wake(dir: &RunDir) -> io::Result<()> {
    let root = dir.root().ok_or(io::ErrorKind::InvalidInput)?;
    os::seqpacket::hint(root.path(), crate::WAKE_SOCKET, dir.run_id().as_bytes())
}

/// Reads a hint.
pub fn woken(message: &[u8]) -> Option<RunId> {
    RunId::from_bytes(message).ok()
}

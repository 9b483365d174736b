//! What a run's log says, in the terms of runs.

use crate::root::RunDir;
use crate::{SLOT_ENDED, SLOT_STARTED};
use job::supervise::Pauses;
use job::{BootId, Outcome, RunId, StopCause};
use os::cgroup::Cgroup;
use os::pidfd;
use prost::Message;
use protocol::message::{Accepted, Ended, Fact, FactBody, Started, Stopping};
use protocol::{Malformed, RunSpec};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use store::{Contents, ReadError};

/// One durable message, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub seq: u64,
    /// The encoded [`Fact`]: sent as it is.
    pub bytes: Vec<u8>,
}

/// A run's log, read.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Which run.
    pub run_id: RunId,
    /// What to run.
    pub spec: RunSpec,
    /// That its directory is durable, and in which boot it became so.
    pub accepted: Option<Accepted>,
    /// The process, once there was one.
    pub started: Option<Started>,
    /// Why it was told to end, if it was.
    pub stopping: Option<Stopping>,
    /// When it stood still.
    pub pauses: Pauses,
    /// The outcome.
    pub ended: Option<Ended>,
    /// Every message by number.
    pub messages: Vec<Stored>,
}

/// Why a log cannot be read as a run's.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be read now.
    #[error(transparent)]
    Io(std::io::Error),
    /// What is there is not what a crash leaves: quarantine.
    #[error("{0}")]
    Damaged(String),
}

impl From<ReadError> for LedgerError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(e) => LedgerError::Io(e),
            ReadError::Damaged(what) => LedgerError::Damaged(format!("the log is damaged: {what}")),
        }
    }
}

impl From<Malformed> for LedgerError {
    fn from(error: Malformed) -> Self {
        LedgerError::Damaged(format!("the log holds what no agent wrote: {error}"))
    }
}

impl Ledger {
    /// Reads a run's log without a lock.
    pub fn read(dir: &RunDir) -> Result<Ledger, LedgerError> {
        Ledger::read_from(&dir.open_log().map_err(LedgerError::Io)?, dir.run_id())
    }

    /// The same from the open log.
    pub fn read_from(log: &File, run_id: RunId) -> Result<Ledger, LedgerError> {
        Ledger::from_contents(store::read_file(log)?, run_id)
    }

    /// The same from what is read already.
    pub fn from_contents(contents: Contents, run_id: RunId) -> Result<Ledger, LedgerError> {
        if &contents.owner != run_id.as_bytes() {
            return Err(LedgerError::Damaged("the log belongs to another run".into()));
        }
        let mut ledger = Ledger {
            run_id,
            spec: RunSpec::decode(contents.head.as_slice())
                .map_err(|e| LedgerError::Damaged(format!("the head of the log is no specification: {e}")))?,
            accepted: None,
            started: None,
            stopping: None,
            pauses: Pauses::default(),
            ended: None,
            messages: Vec::with_capacity(contents.records.len()),
        };
        for record in contents.records {
            match Fact::read(&record.payload)?.body {
                Some(FactBody::Accepted(accepted)) => ledger.accepted = Some(accepted),
                Some(FactBody::Started(started)) => ledger.started = Some(started),
                Some(FactBody::Ended(ended)) => ledger.ended = Some(ended),
                Some(FactBody::Stopping(stopping)) => ledger.stopping = Some(stopping),
                Some(FactBody::Suspended(suspended)) => ledger.pauses.on_suspended(suspended.boottime_ms),
                Some(FactBody::Resumed(resumed)) => ledger.pauses.on_resumed(resumed.boottime_ms),
                Some(FactBody::Note(_) | FactBody::Captured(_) | FactBody::Gathered(_)) | None => {}
            }
            ledger.messages.push(Stored { seq: record.seq, bytes: record.payload });
        }
        Ok(ledger)
    }

    /// The names of the files that were kept.
    pub fn captured(&self) -> BTreeSet<String> {
        let name = |message: &Stored| match Fact::read(&message.bytes).ok()?.body? {
            FactBody::Captured(file) => Some(file.name),
            FactBody::Accepted(_)
            | FactBody::Started(_)
            | FactBody::Ended(_)
            | FactBody::Note(_)
            | FactBody::Stopping(_)
            | FactBody::Suspended(_)
            | FactBody::Resumed(_)
            | FactBody::Gathered(_) => None,
        };
        self.messages.iter().filter_map(name).collect()
    }

    /// The last message's number.
    pub fn last_seq(&self) -> u64 {
        self.messages.last().map_or(0, |m| m.seq)
    }

    /// The outcome in the terms of `job`.
    pub fn outcome(&self) -> Result<Option<Outcome>, Malformed> {
        self.ended.as_ref().map(Outcome::try_from).transpose()
    }

    /// Why the run was told to end, if it was.
    pub fn stop_cause(&self) -> Option<StopCause> {
        let stopping = self.stopping.as_ref()?;
        match (stopping.timed_out_after_ms, &stopping.killed_by) {
            (Some(timeout_ms), _) => Some(StopCause::TimedOut { timeout_ms }),
            (None, Some(by)) => Some(StopCause::Kill { by: by.clone() }),
            (None, None) => None,
        }
    }

    /// The boot in which the process was started.
    pub fn started_boot(&self) -> Option<BootId> {
        BootId::try_from(self.started.as_ref()?.boot_id.as_deref()?).ok()
    }

    /// Its control group, if it had one that still exists.
    pub fn cgroup(&self) -> Option<Cgroup> {
        Cgroup::at(Path::new(self.started.as_ref()?.cgroup.as_deref()?))
    }

    /// What names the process that was started.
    pub fn process(&self) -> Option<pidfd::Identity> {
        let started = self.started.as_ref()?;
        Some(pidfd::Identity {
            pid: started.pid?,
            start_ticks: started.start_ticks?,
            pidfd_inode: started.pidfd_inode.unwrap_or(0),
        })
    }
}

/// Whether the process that was announced is there, as a zombie too, and has executed nothing: it still is (or was) a copy of its job-processor before
/// its start gate. Then its end says nothing of the job.
pub fn is_unexecuted(started: &Started) -> bool {
    let Some(pid) = started.pid else { return false };
    let stat = os::procfs::stat(pid).ok().flatten();
    stat.is_some_and(|stat| Some(stat.start_ticks) == started.start_ticks && stat.unexecuted)
}

/// The bytes of a fact, for disk and wire.
pub(crate) fn encode(fact: &Fact) -> Vec<u8> {
    fact.encode_to_vec()
}

/// The slot that a fact belongs into, if it has one of its own.
pub fn slot_of(body: &FactBody) -> Option<u32> {
    match body {
        FactBody::Started(_) => Some(SLOT_STARTED),
        FactBody::Ended(_) => Some(SLOT_ENDED),
        FactBody::Accepted(_)
        | FactBody::Note(_)
        | FactBody::Stopping(_)
        | FactBody::Suspended(_)
        | FactBody::Resumed(_)
        | FactBody::Captured(_)
        | FactBody::Gathered(_) => None,
    }
}

//! Run logs on a simulated disk: mirrors `lib/spool/src/record.rs`, whose recorder is bound to a real file. The log itself is the real one.

use crate::disk::{Disk, File, Name, Shared};
use crate::world::WALL_MS;
use job::{Outcome, RunId};
use prost::Message;
use protocol::message::{Ended, Fact, FactBody};
use spool::{Ledger, LedgerError};
use store::{Log, WriteError};

/// Opens a log for writing; the caller has its lock.
pub(crate) fn take(disk: &Shared, run: RunId) -> Result<(Log<File>, Ledger), LedgerError> {
    let file = Disk::open_log(disk, Name::Live(run)).map_err(LedgerError::Io)?;
    let (log, contents) = Log::open(file).map_err(LedgerError::from)?;
    Ok((log, Ledger::from_contents(contents, run)?))
}

/// Reads a log.
pub(crate) fn read(disk: &Shared, name: Name, run: RunId) -> Result<Ledger, LedgerError> {
    let bytes = Disk::open_log(disk, name).and_then(|file| file.read()).map_err(LedgerError::Io)?;
    Ledger::from_contents(store::parse(&bytes).map_err(LedgerError::from)?, run)
}

/// Writes a fact: STARTED and ENDED into their slots, others at the end.
pub(crate) fn record(log: &mut Log<File>, now_ms: u64, body: FactBody) -> Result<u64, WriteError> {
    let slot = spool::slot_of(&body);
    let bytes = encode(now_ms, body);
    match slot {
        Some(slot) => log.fill(slot, &bytes),
        None => log.append(&bytes),
    }
}

pub(crate) fn encode(now_ms: u64, body: FactBody) -> Vec<u8> {
    Fact::new(wall_ms(now_ms), body).encode_to_vec()
}

pub(crate) fn ended(outcome: &Outcome) -> FactBody {
    FactBody::Ended(Ended::from(outcome))
}

pub(crate) fn wall_ms(now_ms: u64) -> i64 {
    WALL_MS + i64::try_from(now_ms).unwrap_or(i64::MAX)
}

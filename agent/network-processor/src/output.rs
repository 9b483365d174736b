//! The files that jobs write: finding, opening and reading them. Blocking; called from threads that may.

use crate::disk::Disk;
use job::{Outcome, RunId};
use protocol::message::StreamKind;
use spool::{RunDir, Shelf};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// An output file of a run, as far as there is one.
#[derive(Debug)]
pub(crate) enum Output {
    /// It is open.
    Open(File),
    /// The run is here and has written no such file, or not yet.
    NotWritten,
    /// The run is not here (any more).
    NoRecord,
}

/// Opens an output file of a run, wherever the run is kept. The error is for people.
pub(crate) fn open(disk: &Disk, run_id: RunId, stream: Option<StreamKind>) -> Result<Output, String> {
    let found = disk.root.find(run_id).map_err(|e| format!("the run's directory cannot be read: {e}"))?;
    let Some((shelf, dir)) = found else { return Ok(Output::NoRecord) };
    let path = match stream {
        Some(StreamKind::Stdout) => dir.out(),
        Some(StreamKind::Stderr) => dir.err(),
        Some(StreamKind::Unspecified) | None => {
            return Err("this agent does not know that file of a run".into());
        }
    };
    match File::open(path) {
        Ok(file) => Ok(Output::Open(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && is_stripped(disk, shelf, &dir) => {
            Err("the output was removed to make room (see [retention] in the agent's configuration)".into())
        }
        // Nothing was ever started, or not yet.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Output::NotWritten),
        Err(e) => Err(cannot_be_read(&e)),
    }
}

/// Whether a settled run was started and has no output any more.
fn is_stripped(disk: &Disk, shelf: Shelf, dir: &RunDir) -> bool {
    let is_executed = |ledger: spool::Ledger| {
        ledger.outcome().is_ok_and(|outcome| matches!(outcome, Some(Outcome::Ended { .. })))
    };
    shelf == Shelf::Settled && disk.read_at(dir).is_ok_and(|(ledger, _)| is_executed(ledger))
}

/// So many bytes from there on, as far as there are as many, and the size of the file.
pub(crate) fn read(file: &File, offset: u64, bytes_max: usize) -> Result<(Vec<u8>, u64), String> {
    try_read(file, offset, bytes_max).map_err(|e| cannot_be_read(&e))
}

/// What is said of a run that is not here.
pub(crate) fn no_record() -> String {
    "the agent has no record of this run; its output may be past its retention".into()
}

fn cannot_be_read(e: &io::Error) -> String {
    format!("the output cannot be read: {e}")
}

fn try_read(file: &File, offset: u64, bytes_max: usize) -> io::Result<(Vec<u8>, u64)> {
    let size = file.metadata()?.len();
    let wanted = size.saturating_sub(offset).min(bytes_max as u64);
    let mut data = vec![0; usize::try_from(wanted).unwrap_or(0)];
    let mut filled = 0;
    while filled < data.len() {
        match file.read_at(&mut data[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    data.truncate(filled);
    Ok((data, size))
}

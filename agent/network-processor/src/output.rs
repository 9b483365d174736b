//! The files that jobs write, and those that were kept of them: finding, opening and reading them. Blocking; called from threads that may.

use crate::disk::Disk;
use job::output::OutputLimit;
use job::{Outcome, RunId};
use protocol::message::StreamKind;
use protocol::stream::Which;
use spool::{RunDir, Shelf};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};

/// An output file of a run, as far as there is one.
#[derive(Debug)]
pub(crate) enum Output {
    /// It is open.
    Open(Open),
    /// The run is here and has written no such file, or not yet.
    NotWritten,
    /// The run is not here (any more).
    NoRecord,
}

/// An output file that is open.
#[derive(Debug)]
pub(crate) struct Open {
    file: File,
    /// What the run may write.
    limit: Option<OutputLimit>,
}

/// What is read at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// From where it was asked for; or from the end of the gap, if that is in the gap.
    pub(crate) data: Vec<u8>,
    /// Of the file.
    pub(crate) size: u64,
    /// What the output limit left out.
    pub(crate) gap: Option<Range<u64>>,
}

/// Why something cannot be read, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It may be readable later.
    Now(String),
    /// It is gone for good.
    Gone(String),
}

impl Unreadable {
    /// The reason, and whether it is for good.
    pub(crate) fn told(self) -> (String, bool) {
        match self {
            Unreadable::Now(reason) => (reason, false),
            Unreadable::Gone(reason) => (reason, true),
        }
    }
}

/// Opens a file of a run, wherever the run is kept.
pub(crate) fn open(disk: &Disk, run_id: RunId, which: Option<&Which>) -> Result<Output, Unreadable> {
    let found = disk.root.find(run_id);
    let found = found.map_err(|e| Unreadable::Now(format!("the run's directory cannot be read: {e}")))?;
    let Some((shelf, dir)) = found else { return Ok(Output::NoRecord) };
    let path = match which {
        Some(Which::Kept(name)) => return open_kept(shelf, &dir, name),
        Some(Which::Output(StreamKind::Stdout)) => dir.out(),
        Some(Which::Output(StreamKind::Stderr)) => dir.err(),
        Some(Which::Output(StreamKind::Unspecified)) | None => {
            return Err(Unreadable::Now("this agent does not know that file of a run".into()));
        }
    };
    match File::open(path) {
        Ok(file) => Ok(Output::Open(Open { file, limit: limit(disk, &dir) })),
        Err(e) if e.kind() == io::ErrorKind::NotFound && is_stripped(disk, shelf, &dir) => {
            Err(removed("the output", &dir))
        }
        // Nothing was ever started, or not yet.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Output::NotWritten),
        Err(e) => Err(Unreadable::Now(cannot_be_read(&e))),
    }
}

/// A file that was kept is whole as soon as it is there; of a settled run no other one will come.
fn open_kept(shelf: Shelf, dir: &RunDir, name: &str) -> Result<Output, Unreadable> {
    match dir.open_kept_file(name) {
        Ok(file) => Ok(Output::Open(Open { file, limit: None })),
        Err(e) if e.kind() == io::ErrorKind::NotFound && shelf == Shelf::Settled => {
            Err(removed(&format!("the file \"{name}\""), dir))
        }
        Err(e) => Err(Unreadable::Now(format!("the file \"{name}\" cannot be read: {e}"))),
    }
}

/// Retention removed it. Nothing else changes the directory of a settled run, so its time is the time of that.
fn removed(what: &str, dir: &RunDir) -> Unreadable {
    let at_s = dir.path().symlink_metadata().map_or(0, |metadata| metadata.mtime());
    let at = trace::rfc3339(u64::try_from(at_s).unwrap_or(0).saturating_mul(1000));
    Unreadable::Gone(format!(
        "{what} was removed by the agent's retention on {at}, to make room (see [retention] in the agent's configuration)"
    ))
}

/// The run's output limit; a log that cannot be read now has none.
fn limit(disk: &Disk, dir: &RunDir) -> Option<OutputLimit> {
    disk.read_at(dir).ok()?.0.spec.output_limit().unwrap_or_default()
}

impl Open {
    /// So many bytes from there on, as [`read`], gap and all.
    pub(crate) fn read(&self, offset: u64, bytes_max: usize) -> Result<(Vec<u8>, u64), String> {
        read(&self.file, offset, bytes_max)
    }

    /// So many bytes from there on, beside what the output limit left out.
    pub(crate) fn read_beside_the_gap(&self, offset: u64, bytes_max: usize) -> Result<Part, String> {
        self.try_read_beside_the_gap(offset, bytes_max).map_err(|e| cannot_be_read(&e))
    }

    /// Whoever supervises the run may widen the gap meanwhile: then it is read again, so that no zeros are taken for output.
    fn try_read_beside_the_gap(&self, offset: u64, bytes_max: usize) -> io::Result<Part> {
        let mut gap = self.gap()?;
        loop {
            let from = gap.as_ref().filter(|gap| gap.contains(&offset)).map_or(offset, |gap| gap.end);
            let until_gap = gap.as_ref().filter(|gap| from < gap.start).map(|gap| gap.start - from);
            let until_gap = until_gap.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
            let (data, size) = try_read(&self.file, from, bytes_max.min(until_gap))?;
            let now = self.gap()?;
            if now == gap {
                return Ok(Part { data, size, gap });
            }
            gap = now;
        }
    }

    fn gap(&self) -> io::Result<Option<Range<u64>>> {
        let size = self.file.metadata()?.len();
        let Some(from) = self.limit.and_then(|limit| limit.hole_from(size)) else { return Ok(None) };
        let to = os::disk::next_data(&self.file, from)?;
        Ok(to.filter(|to| *to > from).map(|to| from..to))
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

/// What is said of a run that is not here. `expired_ms`: of a run that was made then or before, its record was removed by retention if it is not here.
pub(crate) fn no_record(run_id: RunId, expired_ms: u64) -> Unreadable {
    Unreadable::Gone(match run_id.wall_ms() <= expired_ms {
        true => "the whole run was removed by the agent's retention, its output with it (see settled_retention and [retention] in the agent's \
                 configuration)"
            .into(),
        false => "the agent has no record of this run: its data root was replaced, or it never got it".into(),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use job::output::OutputPolicy;

    const K: u64 = 1 << 10;

    /// 400 KiB of the letter x, of which what the limit does not keep was made a hole, up to `to`.
    fn open(policy: OutputPolicy, to: u64) -> Open {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![b'x'; 400 * K as usize], 0).unwrap();
        os::disk::hollow(&file, 32 * K, to).unwrap();
        Open { file, limit: Some(OutputLimit { bytes_max: 64 * K, policy }) }
    }

    #[test]
    fn no_byte_of_the_gap_is_read_from_wherever_it_is_asked_for() {
        let open = open(OutputPolicy::KeepEnds, 368 * K);
        for (offset, bytes_max, expected) in [
            (0, 1000, 1000),
            (0, 64 * K, 32 * K),
            (31 * K, 64 * K, K),
            (32 * K, 64 * K, 32 * K),
            (100 * K, 10 * K, 10 * K),
            (368 * K, 64 * K, 32 * K),
            (400 * K, 64 * K, 0),
        ] {
            let part = open.read_beside_the_gap(offset, bytes_max as usize).unwrap();
            assert_eq!(part.data, vec![b'x'; expected as usize], "{bytes_max} bytes from {offset}");
            assert_eq!((part.size, part.gap), (400 * K, Some(32 * K..368 * K)));
        }
    }

    #[test]
    fn zeros_and_holes_that_the_job_made_are_its_output() {
        let open = open(OutputPolicy::Truncate, 368 * K);
        let part = open.read_beside_the_gap(30 * K, 4 * K as usize).unwrap();
        assert_eq!((part.data.len() as u64, part.gap), (4 * K, None));
    }
}

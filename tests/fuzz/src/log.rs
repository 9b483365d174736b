//! A run's log: what a disk gives back.

use job::RunId;
use spool::{Ledger, SLOT_ENDED};
use std::io;
use store::{Blank, Log, Medium, RECORD_BYTES_MAX, ReadError};

/// A file in memory.
struct Memory(Vec<u8>);

impl Medium for Memory {
    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.0.clone())
    }
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let end = at + bytes.len();
        assert!(end <= FILE_BYTES_MAX, "a write far behind the end of the file");
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.0[at..end].copy_from_slice(bytes);
        Ok(())
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.0.truncate(usize::try_from(length).map_err(io::Error::other)?);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Larger than any log that an input can make.
const FILE_BYTES_MAX: usize = 16 << 20;
/// STARTED and ENDED.
const SLOTS: u32 = SLOT_ENDED + 1;

/// Reads bytes as a log: as they are, or (first byte odd) with the checksums put right, so that what stands behind them is reached.
/// What was read is still there after the next writer opened the log and wrote.
pub(crate) fn log(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if choice & 1 == 1 {
        repair(&mut bytes);
    }
    if choice & 2 == 2 {
        written_then_damaged(&bytes);
        return;
    }
    read_and_write(bytes);
}

fn read_and_write(bytes: Vec<u8>) {
    let Ok(before) = store::parse(&bytes) else { return };
    let (mut log, opened) = match Log::open(Memory(bytes)) {
        Ok(opened) => opened,
        Err(ReadError::Damaged(what)) => panic!("read, and not opened: {what}"),
        Err(ReadError::Io(e)) => panic!("a file in memory failed: {e}"),
    };
    assert_eq!(opened.records, before.records);
    if let Ok(run_id) = RunId::from_bytes(&before.owner)
        && let Ok(ledger) = Ledger::from_contents(before.clone(), run_id)
    {
        assert_eq!(ledger.messages.len(), before.records.len());
        let _ = (ledger.outcome(), ledger.stop_cause(), ledger.captured(), ledger.process());
    }
    let seq = match log.append(b"behind it") {
        Ok(seq) => seq,
        Err(e) => panic!("a log that can be read takes no record: {e}"),
    };
    let after = store::parse(&log.medium().0).expect("what was written can be read");
    assert_eq!(after.records.len(), before.records.len() + 1, "a record was lost or invented");
    for record in &before.records {
        assert!(after.records.contains(record), "record {} is not what it was", record.seq);
    }
    assert_eq!(after.last_seq(), seq);
}

/// A log that was written in good order, then some of its bytes were turned: no record is invented or changed.
fn written_then_damaged(bytes: &[u8]) {
    let Some(([count, payloads, at_high, at_low, turned], rest)) = bytes.split_first_chunk::<5>() else {
        return;
    };
    let mut medium = Memory(Vec::new());
    let head = rest.get(..usize::from(*count)).unwrap_or_default();
    let blank = Blank {
        owner: *RunId::new(1, 1).as_bytes(),
        head,
        slots: SLOTS,
        first: &[b"first"],
        room_bytes: 2048,
    };
    if store::create(&mut medium, &blank).is_err() {
        return;
    }
    let (mut log, _) = Log::open(medium).expect("a new log");
    for (n, payload) in rest.chunks(usize::from(*payloads) + 1).take(32).enumerate() {
        assert!(payload.len() <= RECORD_BYTES_MAX);
        let written = match u32::try_from(n) {
            Ok(slot) if slot < SLOTS => log.fill(slot, payload),
            Ok(_) | Err(_) => log.append(payload),
        };
        written.expect("a log in good order takes a record");
    }
    let before = store::parse(&log.medium().0).expect("what was written can be read");
    let mut damaged = log.medium().0.clone();
    let at = usize::from(u16::from_be_bytes([*at_high, *at_low])) % damaged.len();
    damaged[at] ^= turned;
    let Ok(after) = store::parse(&damaged) else { return };
    for record in &after.records {
        assert!(before.records.contains(record), "record {} was invented or changed", record.seq);
    }
}

/// Puts the checksums of header, head and records right (`docs/store-states.md` has the format).
fn repair(bytes: &mut [u8]) {
    const HEADER: usize = 64;
    const HEADER_CRC_AT: usize = 56;
    const RECORD_HEADER: usize = 24;
    const RECORD_MAGIC: [u8; 4] = 0x5257_4c52u32.to_le_bytes();
    let number = |bytes: &[u8], at: usize| -> usize {
        bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, |b| u32::from_le_bytes(b) as usize)
    };
    if bytes.len() < HEADER {
        return;
    }
    let head_end = HEADER.saturating_add(number(bytes, 16)).min(bytes.len());
    let head = store::checksum(&bytes[HEADER..head_end]);
    bytes[20..24].copy_from_slice(&head.to_le_bytes());
    let header = store::checksum(&bytes[..HEADER_CRC_AT]);
    bytes[HEADER_CRC_AT..HEADER_CRC_AT + 4].copy_from_slice(&header.to_le_bytes());
    let owner = bytes[32..48].to_vec();
    for at in (HEADER..bytes.len().saturating_sub(RECORD_HEADER)).step_by(8) {
        let end = at + RECORD_HEADER + number(bytes, at + 4);
        if bytes[at..at + 4] != RECORD_MAGIC || end > bytes.len() {
            continue;
        }
        // Over the owner, then sequence, length and payload, in the order of the record.
        let sealed =
            [&owner[..], &bytes[at + 8..at + 16], &bytes[at + 4..at + 8], &bytes[at + RECORD_HEADER..end]];
        let sum = store::checksum(&sealed.concat());
        bytes[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repaired_log_of_the_corpus_is_read() {
        let input = include_bytes!("../../../fuzz/corpus/log/whole");
        let mut bytes = input[1..].to_vec();
        assert!(store::parse(&bytes).is_err(), "its checksums are not right yet");
        repair(&mut bytes);
        let contents = store::parse(&bytes).expect("its checksums are right");
        assert_eq!(contents.records.len(), 5);
        let run_id = RunId::from_bytes(&contents.owner).expect("an owner");
        assert!(Ledger::from_contents(contents, run_id).is_ok_and(|ledger| ledger.ended.is_some()));
    }
}

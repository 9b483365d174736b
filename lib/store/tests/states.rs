//! Every state of `docs/store-states.md`, made by hand, and what is read from it.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use std::io;
use store::{Blank, Contents, Log, Medium, Place, ReadError, WriteError, create, parse};

/// A disk in memory that can fail, and that counts its syncs.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    room: Option<usize>,
    /// The sync with that number is the first of those that fail.
    syncs_before_failure: Option<usize>,
    syncs: usize,
}

impl Medium for Disk {
    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.bytes.clone())
    }
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let end = at as usize + bytes.len();
        let can = self.room.map_or(end, |room| end.min(room.max(self.bytes.len())));
        if can > self.bytes.len() {
            self.bytes.resize(can, 0);
        }
        let whole = can.saturating_sub(at as usize).min(bytes.len());
        self.bytes[at as usize..at as usize + whole].copy_from_slice(&bytes[..whole]);
        if can < end { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.bytes.truncate(length as usize);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        let fails = self.syncs_before_failure.is_some_and(|before| self.syncs > before);
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

const OWNER: [u8; 16] = *b"0123456789abcdef";

fn fresh(head: &[u8]) -> Disk {
    let mut disk = Disk::default();
    let blank = Blank { owner: OWNER, head, slots: 2, first: &[b"accepted"], room_bytes: 1024 };
    create(&mut disk, &blank).unwrap();
    disk
}

fn open(disk: &Disk) -> (Log<Disk>, Contents) {
    Log::open(disk.clone()).unwrap()
}

fn seqs(contents: &Contents) -> Vec<(u64, Place)> {
    contents.records.iter().map(|r| (r.seq, r.place)).collect()
}

#[test]
fn what_was_written_is_read_in_the_order_of_writing() {
    let (mut log, _) = open(&fresh(b"the spec"));
    assert_eq!(log.fill(0, b"started").unwrap(), 2);
    assert_eq!(log.append(b"note").unwrap(), 3);
    assert_eq!(log.fill(1, b"ended").unwrap(), 4);
    let contents = parse(&log.medium().bytes).unwrap();
    assert_eq!(contents.head, b"the spec");
    assert_eq!(contents.owner, OWNER);
    assert_eq!(
        seqs(&contents),
        [(1, Place::Area), (2, Place::Slot(0)), (3, Place::Area), (4, Place::Slot(1))]
    );
    assert_eq!(contents.slot(1).unwrap().payload, b"ended");
}

#[test]
fn each_record_costs_one_sync() {
    let (mut log, _) = open(&fresh(b""));
    let before = log.medium().syncs;
    log.fill(0, b"started").unwrap();
    log.append(b"note").unwrap();
    assert_eq!(log.medium().syncs - before, 2);
}

#[test]
fn a_filled_slot_is_never_overwritten() {
    let (mut log, _) = open(&fresh(b""));
    log.fill(1, b"first").unwrap();
    assert!(matches!(log.fill(1, b"second"), Err(WriteError::Filled(1))));
    let (mut again, _) = open(log.medium());
    assert!(matches!(again.fill(1, b"third"), Err(WriteError::Filled(1))));
    assert_eq!(parse(&again.medium().bytes).unwrap().slot(1).unwrap().payload, b"first");
}

#[test]
fn a_torn_tail_is_cut_off_and_its_number_is_used_again() {
    let (mut log, _) = open(&fresh(b""));
    log.append(b"whole").unwrap();
    let mut disk = log.medium().clone();
    let end = parse(&disk.bytes).unwrap().records.len();
    let half = b"RLWR\x20\0\0\0\x03\0\0\0\0\0\0\0";
    let at = disk.bytes.windows(5).position(|w| w == b"whole").unwrap() + 8;
    disk.bytes[at..at + half.len()].copy_from_slice(half);
    let (mut log, contents) = open(&disk);
    assert!(contents.torn_tail);
    assert_eq!(contents.records.len(), end);
    assert_eq!(log.append(b"next").unwrap(), 3);
    assert!(!parse(&log.medium().bytes).unwrap().torn_tail);
}

#[test]
fn a_torn_slot_counts_as_empty_and_can_be_filled() {
    let (mut log, _) = open(&fresh(b""));
    log.fill(1, b"ended with 7").unwrap();
    let mut disk = log.medium().clone();
    let at = disk.bytes.windows(5).position(|w| w == b"ended").unwrap();
    disk.bytes[at + 3] ^= 1;
    let (mut log, contents) = open(&disk);
    assert_eq!((contents.slot(1), &contents.torn_slots[..]), (None, &[1][..]));
    log.fill(1, b"unknown").unwrap();
    assert_eq!(parse(&log.medium().bytes).unwrap().slot(1).unwrap().payload, b"unknown");
}

#[test]
fn damage_before_a_valid_record_is_told_apart_from_a_torn_end() {
    let (mut log, _) = open(&fresh(b""));
    log.append(b"one").unwrap();
    log.append(b"two").unwrap();
    let mut disk = log.medium().clone();
    let at = disk.bytes.windows(3).position(|w| w == b"one").unwrap();
    disk.bytes[at] ^= 1;
    assert!(matches!(parse(&disk.bytes), Err(ReadError::Damaged(_))));
}

#[test]
fn a_lost_record_in_the_middle_is_damage() {
    let (mut log, _) = open(&fresh(b""));
    log.fill(0, b"started").unwrap();
    log.append(b"note").unwrap();
    let mut disk = log.medium().clone();
    let at = disk.bytes.windows(7).position(|w| w == b"started").unwrap();
    disk.bytes[at - 24..at + 8].fill(0);
    assert!(matches!(parse(&disk.bytes), Err(ReadError::Damaged(_))));
}

#[test]
fn a_bad_header_or_head_is_damage() {
    for at in [0, 9, 60, 70] {
        let mut disk = fresh(b"some head");
        disk.bytes[at] ^= 0x40;
        let read = parse(&disk.bytes);
        assert!(at == 60 || matches!(read, Err(ReadError::Damaged(_))), "byte {at}: {read:?}");
    }
    assert!(matches!(parse(&fresh(b"").bytes[..5000]), Err(ReadError::Damaged(_))));
    assert!(matches!(parse(b""), Err(ReadError::Damaged(_))));
}

#[test]
fn a_failed_sync_is_final_for_the_handle() {
    let (mut log, _) = open(&fresh(b""));
    log.fill(0, b"started").unwrap();
    let last_good = log.medium().syncs + 1;
    let mut failing = open(&Disk { syncs_before_failure: Some(last_good), ..log.medium().clone() }).0;
    assert!(matches!(failing.fill(1, b"ended"), Err(WriteError::Failed(_))));
    assert!(matches!(failing.append(b"more"), Err(WriteError::Failed(_))));
}

/// A disk whose kernel takes pages for clean when their sync failed, and shows them all the same.
#[derive(Clone, Debug, Default)]
struct Forgetful {
    cached: Disk,
    dirty: Vec<(u64, Vec<u8>)>,
    durable: Disk,
}

impl Medium for Forgetful {
    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        self.cached.read_all()
    }
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.dirty.push((at, bytes.to_vec()));
        self.cached.write_at(bytes, at)
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.cached.cut(length)
    }
    fn sync(&mut self) -> io::Result<()> {
        let dirty = std::mem::take(&mut self.dirty);
        self.cached.sync()?;
        dirty.iter().try_for_each(|(at, bytes)| self.durable.write_at(bytes, *at))
    }
}

#[test]
fn what_a_dead_writer_left_in_the_cache_only_is_durable_when_the_log_was_opened_anew() {
    let (mut log, _) = open(&fresh(b"head"));
    log.fill(0, b"started").unwrap();
    let durable = log.medium().clone();
    log.append(b"note").unwrap();
    log.fill(1, b"ended").unwrap();
    let mut left = Forgetful { cached: log.medium().clone(), dirty: Vec::new(), durable };
    left.cached.syncs_before_failure = Some(0);
    assert!(Log::open(left.clone()).is_err(), "what is not durable is not given out");
    left.cached.syncs_before_failure = None;
    let (log, contents) = Log::open(left).unwrap();
    assert_eq!(contents.slot(1).unwrap().payload, b"ended");
    assert_eq!(parse(&log.medium().durable.bytes).unwrap().records, contents.records);
}

#[test]
fn a_record_whose_sync_failed_is_not_shown_to_readers() {
    let (mut log, _) = open(&fresh(b""));
    log.fill(0, b"started").unwrap();
    let good = log.medium().syncs + 1;
    for write in [|log: &mut Log<Disk>| log.fill(1, b"ended"), |log: &mut Log<Disk>| log.append(&[7; 3000])] {
        let mut failing = open(&Disk { syncs_before_failure: Some(good), ..log.medium().clone() }).0;
        assert!(matches!(write(&mut failing), Err(WriteError::Failed(_))));
        assert_eq!(seqs(&parse(&failing.medium().bytes).unwrap()), [(1, Place::Area), (2, Place::Slot(0))]);
    }
}

#[test]
fn a_full_disk_refuses_an_append_and_still_takes_the_outcome() {
    let mut disk = fresh(b"");
    disk.room = Some(disk.bytes.len());
    let (mut log, _) = open(&disk);
    let error = log.append(&[7; 100_000]).unwrap_err();
    assert!(matches!(&error, WriteError::Failed(e) if e.kind() == io::ErrorKind::StorageFull), "{error}");
    assert_eq!(log.fill(1, b"ended").unwrap(), 2);
    let contents = parse(&log.medium().bytes).unwrap();
    assert_eq!((contents.last_seq(), contents.torn_tail), (2, false));
}

#[test]
fn a_record_of_another_log_is_not_taken_for_one_of_this() {
    let (mut log, _) = open(&fresh(b""));
    log.fill(1, b"ended").unwrap();
    let mut other = Disk::default();
    create(
        &mut other,
        &Blank { owner: [9; 16], head: b"", slots: 2, first: &[b"accepted"], room_bytes: 1024 },
    )
    .unwrap();
    let at = 2 * 4096;
    other.bytes[at..at + 4096].copy_from_slice(&log.medium().bytes[at..at + 4096]);
    let contents = parse(&other.bytes).unwrap();
    assert_eq!((contents.slot(1), &contents.torn_slots[..]), (None, &[1][..]));
}

#[test]
fn prepared_bytes_are_what_a_later_fill_would_have_written() {
    let (mut log, _) = open(&fresh(b""));
    let (at, bytes) = log.prepared(1, b"never executed", 1).unwrap();
    log.fill(0, b"started").unwrap();
    let mut disk = log.medium().clone();
    disk.write_at(&bytes, at).unwrap();
    let contents = parse(&disk.bytes).unwrap();
    assert_eq!((contents.slot(1).unwrap().seq, contents.last_seq()), (3, 3));
}

#[test]
fn what_is_too_long_is_refused_before_anything_is_written() {
    let (mut log, _) = open(&fresh(b""));
    assert!(matches!(log.fill(1, &[0; 4096]), Err(WriteError::TooLong { .. })));
    assert!(matches!(log.append(&vec![0; store::RECORD_BYTES_MAX + 1]), Err(WriteError::TooLong { .. })));
    assert_eq!(log.fill(1, b"ended").unwrap(), 2);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_flipped_bit_invents_or_changes_a_record(at in 0usize..16_384, bit in 0u8..8) {
        let (mut log, _) = open(&fresh(b"head"));
        log.fill(0, b"started").unwrap();
        log.append(b"note").unwrap();
        log.fill(1, b"ended").unwrap();
        let whole = parse(&log.medium().bytes).unwrap();
        let mut bytes = log.medium().bytes.clone();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(read) = parse(&bytes) {
            prop_assert!(read.records.iter().all(|r| whole.records.contains(r)));
        }
    }

    #[test]
    fn a_write_that_stops_anywhere_leaves_all_earlier_records(cut in 0usize..64) {
        let (mut log, _) = open(&fresh(b"head"));
        log.append(b"promised").unwrap();
        let before = log.medium().bytes.clone();
        log.append(b"in the middle of being written").unwrap();
        let after = log.medium().bytes.clone();
        let from = before.iter().zip(&after).position(|(a, b)| a != b).unwrap();
        let mut torn = before.clone();
        torn[from..from + cut].copy_from_slice(&after[from..from + cut]);
        let read = parse(&torn).unwrap();
        prop_assert!(read.last_seq() >= 2);
        prop_assert_eq!(&read.records[1].payload, b"promised");
    }
}

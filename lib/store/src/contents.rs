//! Reading a log, also one that is being written, torn or damaged.
//!
//! | in the file                                          | means                          | read as            |
//! |------------------------------------------------------|--------------------------------|--------------------|
//! | zeros where a record could be                        | nothing was written there      | the end            |
//! | no valid record, and none after it                   | torn or still being written: it was never promised | the end (`torn_tail`) |
//! | no valid record, but a valid one after it            | disk damage                    | `Damaged`          |
//! | slot of zeros                                        | not filled                     | `None`             |
//! | slot with something that is no valid record          | torn: it was never promised    | `None` (`torn_slots`) |
//! | sequence numbers with a gap or a repetition          | disk damage                    | `Damaged`          |
//! | bad header or head                                   | disk damage (a log gets its name only when whole) | `Damaged` |

use crate::layout::{BLOCK_BYTES, HEADER_BYTES, Layout, RECORD_BYTES_MAX, SLOT_PAYLOAD_BYTES_MAX};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the reserved slot of that number.
    Slot(u32),
    /// Appended.
    Area,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// Where it stands.
    pub place: Place,
    /// What was written.
    pub payload: Vec<u8>,
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Whose log it is: 16 bytes chosen by its creator.
    pub owner: [u8; 16],
    /// The head: written once at creation.
    pub head: Vec<u8>,
    /// All valid records by sequence.
    pub records: Vec<Record>,
    /// Slots with something in them that is no valid record.
    pub torn_slots: Vec<u32>,
    /// Something that is no valid record stands after the last one.
    pub torn_tail: bool,
    pub(crate) layout: Layout,
    pub(crate) area_end: usize,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read at all.
    #[error("the log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// What is there was not left by a crash: set it aside and tell people.
    #[error("the log is damaged: {0}")]
    Damaged(String),
}

impl Contents {
    /// The record in a slot.
    pub fn slot(&self, slot: u32) -> Option<&Record> {
        self.records.iter().find(|record| record.place == Place::Slot(slot))
    }

    /// The last sequence number, 0 if there is no record.
    pub fn last_seq(&self) -> u64 {
        self.records.last().map_or(0, |record| record.seq)
    }
}

/// Reads a log without a lock. What its writer is writing at this moment is not seen.
pub fn read(path: &Path) -> Result<Contents, ReadError> {
    read_file(&File::open(path)?)
}

/// Reads a log that is open, from its beginning.
pub fn read_file(mut file: &File) -> Result<Contents, ReadError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    parse(&bytes)
}

/// Reads the bytes of a log. Never panics, allocates no more than a few times their length.
pub fn parse(bytes: &[u8]) -> Result<Contents, ReadError> {
    let layout = Layout::parse(bytes).map_err(ReadError::Damaged)?;
    let head = bytes
        .get(HEADER_BYTES..HEADER_BYTES + layout.head_bytes)
        .filter(|head| crc32c::crc32c(head) == layout.head_crc)
        .ok_or_else(|| ReadError::Damaged("the head's checksum is wrong".into()))?;
    if bytes.len() < layout.area {
        return Err(ReadError::Damaged(format!("{} bytes, the slots end at {}", bytes.len(), layout.area)));
    }
    let mut contents = Contents {
        owner: layout.owner,
        head: head.to_vec(),
        records: Vec::new(),
        torn_slots: Vec::new(),
        torn_tail: false,
        layout,
        area_end: layout.area,
    };
    read_slots(&mut contents, bytes);
    read_area(&mut contents, bytes)?;
    contents.records.sort_by_key(|record| record.seq);
    for (expected, record) in (1..).zip(&contents.records) {
        if record.seq != expected {
            return Err(ReadError::Damaged(format!(
                "record {expected} is not there, but record {} is",
                record.seq
            )));
        }
    }
    Ok(contents)
}

fn read_slots(contents: &mut Contents, bytes: &[u8]) {
    for slot in 0..contents.layout.slots {
        let at = contents.layout.slot_at(slot);
        let block = &bytes[at..at + BLOCK_BYTES];
        match contents.layout.parse_record(block, SLOT_PAYLOAD_BYTES_MAX) {
            Some((seq, payload, _)) => {
                contents.records.push(Record { seq, place: Place::Slot(slot), payload: payload.to_vec() });
            }
            None if block.iter().all(|b| *b == 0) => {}
            None => contents.torn_slots.push(slot),
        }
    }
}

fn read_area(contents: &mut Contents, bytes: &[u8]) -> Result<(), ReadError> {
    let layout = contents.layout;
    while let Some((seq, payload, length)) =
        layout.parse_record(&bytes[contents.area_end..], RECORD_BYTES_MAX)
    {
        contents.records.push(Record { seq, place: Place::Area, payload: payload.to_vec() });
        contents.area_end = (contents.area_end + length).min(bytes.len());
    }
    let rest = &bytes[contents.area_end..];
    contents.torn_tail = rest.iter().any(|b| *b != 0);
    let later =
        (8..rest.len()).step_by(8).find(|at| layout.parse_record(&rest[*at..], RECORD_BYTES_MAX).is_some());
    match later.filter(|_| contents.torn_tail) {
        None => Ok(()),
        Some(at) => Err(ReadError::Damaged(format!(
            "no valid record at byte {}, but one at byte {}",
            contents.area_end,
            contents.area_end + at
        ))),
    }
}

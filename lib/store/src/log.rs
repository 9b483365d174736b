//! Writing a log.
//!
//! Every write is one `pwrite` and one `fdatasync`; a record is promised when the call returns. A failed write or sync is final for the
//! handle ([`WriteError::Failed`]): the kernel may have dropped the pages, so a second sync would only seem to succeed. What was written is
//! wiped out again, so that no reader takes it for promised. Open the log anew and write again. A writer that died amid its sync wipes out
//! nothing, and the kernel may show from its cache what the disk does not have: so [`Log::open`] writes the records that it finds once more.

use crate::contents::{Contents, Place, ReadError, parse};
use crate::layout::{
    BLOCK_BYTES, HEAD_BYTES_MAX, HEADER_BYTES, Layout, RECORD_BYTES_MAX, SLOT_PAYLOAD_BYTES_MAX, SLOTS_MAX,
};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The file under a log. The simulation and the tests of failing disks have their own.
pub trait Medium {
    /// The whole content.
    fn read_all(&mut self) -> io::Result<Vec<u8>>;
    /// Writes all the bytes there.
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Cuts the file off.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Makes content (and a changed length) durable.
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Seek::rewind(self)?;
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        os::crash::fault("log.write")?;
        os::crash::torn("log.torn-write", bytes, |half| drop(FileExt::write_all_at(self, half, at)));
        FileExt::write_all_at(self, bytes, at)
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        os::crash::fault("log.cut")?;
        self.set_len(length)
    }
    fn sync(&mut self) -> io::Result<()> {
        os::crash::fault("log.sync")?;
        self.sync_data()
    }
}

/// A log to be created.
#[derive(Clone, Copy, Debug)]
pub struct Blank<'a> {
    /// Whose log it is.
    pub owner: [u8; 16],
    /// What never changes.
    pub head: &'a [u8],
    /// How many slots are reserved.
    pub slots: u32,
    /// The first appended records.
    pub first: &'a [&'a [u8]],
    /// Bytes written in advance for more of them.
    pub room_bytes: usize,
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The slot is filled already: what stands there stays.
    #[error("slot {0} is filled already")]
    Filled(u32),
    /// Longer than a record may be. Nothing was written.
    #[error("{length} bytes are more than the {max} of one record")]
    TooLong {
        /// Its length, bytes.
        length: usize,
        /// The limit, bytes.
        max: usize,
    },
    /// Writing or syncing failed, now or before: this handle is done with. What was written may or may not be there.
    #[error("the log cannot be written: {0}")]
    Failed(io::Error),
}

/// Writes a new log into an empty file and makes it durable (not its name: sync the directory).
pub fn create(medium: &mut impl Medium, blank: &Blank<'_>) -> Result<(), WriteError> {
    let max = HEAD_BYTES_MAX;
    if blank.head.len() > max {
        return Err(WriteError::TooLong { length: blank.head.len(), max });
    }
    assert!(blank.slots <= SLOTS_MAX, "a log has at most {SLOTS_MAX} slots");
    let layout = Layout::new(blank.owner, blank.slots, blank.head);
    let mut bytes = vec![0u8; layout.area];
    bytes[..HEADER_BYTES].copy_from_slice(&layout.header());
    bytes[HEADER_BYTES..][..blank.head.len()].copy_from_slice(blank.head);
    for (seq, payload) in (1..).zip(blank.first) {
        check_length(payload, RECORD_BYTES_MAX)?;
        bytes.extend_from_slice(&layout.record(seq, payload));
    }
    bytes.resize((bytes.len() + blank.room_bytes).next_multiple_of(BLOCK_BYTES), 0);
    medium.write_at(&bytes, 0).and_then(|()| medium.sync()).map_err(WriteError::Failed)
}

/// A log open for writing. Its owner holds the lock of the file; this type does not take it.
#[derive(Debug)]
pub struct Log<M: Medium = File> {
    medium: M,
    layout: Layout,
    next_seq: u64,
    area_end: usize,
    filled: Vec<u32>,
    failed: Option<io::ErrorKind>,
}

impl Log<File> {
    /// Opens the file for reading and writing, once: see `os::lock` for why no second descriptor of it may be closed.
    pub fn open_file(path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).open(path)
    }
}

impl<M: Medium> Log<M> {
    /// Takes a log over. A torn tail is cut off, a torn slot is emptied and what was written since the creation is written again, durably, before
    /// anything else is.
    pub fn open(mut medium: M) -> Result<(Log<M>, Contents), ReadError> {
        let bytes = medium.read_all()?;
        let contents = parse(&bytes)?;
        if contents.torn_tail {
            medium.write_at(&vec![0; bytes.len() - contents.area_end], contents.area_end as u64)?;
        }
        for slot in &contents.torn_slots {
            medium.write_at(&[0; BLOCK_BYTES], contents.layout.slot_at(*slot) as u64)?;
        }
        // A log that nobody wrote to since it was created costs nothing: its creator synced it before it got its name.
        let is_used = contents.records.len() > 1;
        if is_used {
            for (at, record) in again(&contents) {
                medium.write_at(&record, at as u64)?;
            }
        }
        if contents.torn_tail || !contents.torn_slots.is_empty() || is_used {
            medium.sync()?;
        }
        let log = Log {
            medium,
            layout: contents.layout,
            next_seq: contents.last_seq() + 1,
            area_end: contents.area_end,
            filled: contents
                .records
                .iter()
                .filter_map(|r| if let Place::Slot(n) = r.place { Some(n) } else { None })
                .collect(),
            failed: None,
        };
        Ok((log, contents))
    }

    /// Fills a slot, durably. Needs no free block on the disk. Returns the record's sequence number.
    pub fn fill(&mut self, slot: u32, payload: &[u8]) -> Result<u64, WriteError> {
        assert!(slot < self.layout.slots, "this log has {} slots", self.layout.slots);
        if self.filled.contains(&slot) {
            return Err(WriteError::Filled(slot));
        }
        check_length(payload, SLOT_PAYLOAD_BYTES_MAX)?;
        let seq = self.write(payload, self.layout.slot_at(slot))?.0;
        self.filled.push(slot);
        Ok(seq)
    }

    /// What [`Log::fill`] of `slot` would write after `others` more records, and where: for a process that may do nothing but write bytes.
    pub fn prepared(&self, slot: u32, payload: &[u8], others: u64) -> Result<(u64, Vec<u8>), WriteError> {
        check_length(payload, SLOT_PAYLOAD_BYTES_MAX)?;
        Ok((self.layout.slot_at(slot) as u64, self.layout.record(self.next_seq + others, payload)))
    }

    /// Where a slot begins, and what reads the block that stands there: for a process that may do nothing but look at bytes.
    pub fn slot(&self, slot: u32) -> (u64, SlotReader) {
        (self.layout.slot_at(slot) as u64, SlotReader(self.layout))
    }

    /// Appends a record, durably. Returns its sequence number. May need free blocks; with none left it fails with
    /// [`io::ErrorKind::StorageFull`] and the half-written end is cut off, so that the handle stays good for the slots.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, WriteError> {
        check_length(payload, RECORD_BYTES_MAX)?;
        let at = self.area_end;
        match self.write(payload, at) {
            Ok((seq, length)) => {
                self.area_end = at + length;
                Ok(seq)
            }
            Err(WriteError::Failed(e)) if os::disk::is_no_room(&e) => {
                // No block could be had, so nothing of this was promised. Undo what was written, and only then go on.
                let length = (crate::layout::RECORD_HEADER_BYTES + payload.len()).next_multiple_of(8);
                if self.undo(at, length).is_ok() {
                    self.failed = None;
                }
                Err(WriteError::Failed(e))
            }
            Err(e) => Err(e),
        }
    }

    fn undo(&mut self, at: usize, length: usize) -> io::Result<()> {
        let size = self.medium.read_all()?.len();
        let inside = size.saturating_sub(at).min(length);
        self.medium.write_at(&vec![0; inside], at as u64)?;
        self.medium.cut(size.min(at.next_multiple_of(BLOCK_BYTES).max(at + inside)) as u64)?;
        self.medium.sync()
    }

    fn write(&mut self, payload: &[u8], at: usize) -> Result<(u64, usize), WriteError> {
        if let Some(kind) = self.failed {
            return Err(WriteError::Failed(io::Error::new(kind, "an earlier write to this handle failed")));
        }
        let seq = self.next_seq;
        let record = self.layout.record(seq, payload);
        match self.medium.write_at(&record, at as u64).and_then(|()| self.medium.sync()) {
            Ok(()) => {
                self.next_seq += 1;
                Ok((seq, record.len()))
            }
            Err(e) => {
                self.failed = Some(e.kind());
                // Whoever reads the file now must not take for promised what the disk may not have. Best effort: the next writer decides.
                let _ =
                    self.medium.write_at(&vec![0; record.len()], at as u64).and_then(|()| self.medium.sync());
                Err(WriteError::Failed(e))
            }
        }
    }

    /// The file, for its lock.
    pub fn medium(&self) -> &M {
        &self.medium
    }
}

/// The records behind the first one, and where each stands.
fn again(contents: &Contents) -> Vec<(usize, Vec<u8>)> {
    let layout = &contents.layout;
    let mut area = layout.area;
    let mut found = Vec::new();
    for record in &contents.records {
        let bytes = layout.record(record.seq, &record.payload);
        let at = match record.place {
            Place::Slot(slot) => layout.slot_at(slot),
            Place::Area => {
                area += bytes.len();
                area - bytes.len()
            }
        };
        found.push((at, bytes));
    }
    found.split_off(1.min(found.len()))
}

/// Reads the slots of one log. Allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct SlotReader(Layout);

impl SlotReader {
    /// What was written into the slot of this block; `None` if it is empty or torn.
    pub fn payload<'a>(&self, block: &'a [u8]) -> Option<&'a [u8]> {
        self.0.parse_record(block, SLOT_PAYLOAD_BYTES_MAX).map(|(_, payload, _)| payload)
    }
}

fn check_length(payload: &[u8], max: usize) -> Result<(), WriteError> {
    if payload.len() > max { Err(WriteError::TooLong { length: payload.len(), max }) } else { Ok(()) }
}

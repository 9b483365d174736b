//! The format of a log, version 1. All numbers are little-endian.
//!
//! ```text
//!  0     header: magic 8 | version u32 | slots u32 | head length u32 | head CRC u32 | area offset u32 | 0 u32 | owner 16 | 0 8 | CRC u32 | 0 u32
//!  64    head: bytes of the owner, written once
//!  ⌈4096⌉ slot 0, slot 1, …: 4096 bytes each, one record or zeros: overwritten in place, so that no block is needed
//!  area  records one after another, each at a multiple of 8; zeros up to the end that was written in advance
//!
//!  record: magic u32 | payload length u32 | sequence u64 | CRC u32 | 0 u32 | payload | zeros up to a multiple of 8
//! ```
//!
//! Checksums are CRC32C; that of a record covers the owner too, so a block of another log is never taken for one of this.

pub(crate) const MAGIC: [u8; 8] = *b"LASTWORD";
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const BLOCK_BYTES: usize = 4096;
pub(crate) const RECORD_MAGIC: u32 = 0x5257_4c52;
pub(crate) const RECORD_HEADER_BYTES: usize = 24;
/// More slots than any user of this crate needs: a limit for what a damaged header can claim.
pub(crate) const SLOTS_MAX: u32 = 16;
/// A longer head is refused.
pub(crate) const HEAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The longest payload of an appended record, bytes.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// The longest payload of a slot, bytes.
pub const SLOT_PAYLOAD_BYTES_MAX: usize = BLOCK_BYTES - RECORD_HEADER_BYTES;

/// Where things stand in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) owner: [u8; 16],
    pub(crate) slots: u32,
    pub(crate) head_bytes: usize,
    pub(crate) head_crc: u32,
    pub(crate) area: usize,
}

impl Layout {
    pub(crate) fn new(owner: [u8; 16], slots: u32, head: &[u8]) -> Layout {
        let slots_at = (HEADER_BYTES + head.len()).next_multiple_of(BLOCK_BYTES);
        let area = slots_at + slots as usize * BLOCK_BYTES;
        Layout { owner, slots, head_bytes: head.len(), head_crc: crc32c::crc32c(head), area }
    }

    pub(crate) fn slot_at(&self, slot: u32) -> usize {
        self.area - (self.slots - slot) as usize * BLOCK_BYTES
    }

    pub(crate) fn header(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        put(&mut bytes, 8, VERSION);
        put(&mut bytes, 12, self.slots);
        put(&mut bytes, 16, self.head_bytes as u32);
        put(&mut bytes, 20, self.head_crc);
        put(&mut bytes, 24, self.area as u32);
        bytes[32..48].copy_from_slice(&self.owner);
        let crc = crc32c::crc32c(&bytes[..56]);
        put(&mut bytes, 56, crc);
        bytes
    }

    /// Reads a header. The error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Layout, String> {
        let Some(header) = bytes.get(..HEADER_BYTES) else {
            return Err(format!("{} bytes, shorter than a header", bytes.len()));
        };
        if header[..8] != MAGIC {
            return Err("does not begin as a log".into());
        }
        if crc32c::crc32c(&header[..56]) != get(header, 56) {
            return Err("the header's checksum is wrong".into());
        }
        if get(header, 8) != VERSION {
            return Err(format!("format version {}, this program reads {VERSION}", get(header, 8)));
        }
        let mut owner = [0u8; 16];
        owner.copy_from_slice(&header[32..48]);
        let (slots, head_bytes, area) = (get(header, 12), get(header, 16) as usize, get(header, 24) as usize);
        let layout = Layout { owner, slots, head_bytes, head_crc: get(header, 20), area };
        let expected =
            (HEADER_BYTES + head_bytes).next_multiple_of(BLOCK_BYTES) + slots as usize * BLOCK_BYTES;
        if slots > SLOTS_MAX || head_bytes > HEAD_BYTES_MAX || area != expected {
            return Err("the header's numbers do not fit each other".into());
        }
        Ok(layout)
    }

    /// A record as it stands in the file.
    pub(crate) fn record(&self, seq: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; (RECORD_HEADER_BYTES + payload.len()).next_multiple_of(8)];
        put(&mut bytes, 0, RECORD_MAGIC);
        put(&mut bytes, 4, payload.len() as u32);
        bytes[8..16].copy_from_slice(&seq.to_le_bytes());
        put(&mut bytes, 16, self.record_crc(seq, payload));
        bytes[RECORD_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
        bytes
    }

    /// The record at the beginning of `bytes`: sequence, payload, and how many bytes it takes.
    pub(crate) fn parse_record<'a>(
        &self,
        bytes: &'a [u8],
        payload_max: usize,
    ) -> Option<(u64, &'a [u8], usize)> {
        let header = bytes.get(..RECORD_HEADER_BYTES)?;
        let length = get(header, 4) as usize;
        if get(header, 0) != RECORD_MAGIC || length > payload_max {
            return None;
        }
        let mut seq = [0u8; 8];
        seq.copy_from_slice(&header[8..16]);
        let seq = u64::from_le_bytes(seq);
        let payload = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + length)?;
        let fits = get(header, 16) == self.record_crc(seq, payload) && seq != 0;
        fits.then_some((seq, payload, (RECORD_HEADER_BYTES + length).next_multiple_of(8)))
    }

    fn record_crc(&self, seq: u64, payload: &[u8]) -> u32 {
        let crc = crc32c::crc32c(&self.owner);
        let crc = crc32c::crc32c_append(crc, &seq.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &(payload.len() as u32).to_le_bytes());
        crc32c::crc32c_append(crc, payload)
    }
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

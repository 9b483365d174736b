//! The durable message log: one file, one writer that holds its lock, any number of readers without one. Bytes in, bytes out; what a
//! record means is not known here.
//!
//! [`layout`] is the format, [`contents`] reads it, [`log`] writes it. `docs/store-states.md` lists every state that a crash can leave.

#![forbid(unsafe_code)]

mod contents;
mod layout;
mod log;

pub use contents::{Contents, Place, ReadError, Record, parse, read, read_file};
pub use layout::{RECORD_BYTES_MAX, SLOT_PAYLOAD_BYTES_MAX};
pub use log::{Blank, Log, Medium, SlotReader, WriteError, create};

/// CRC32C, the checksum of everything that the agent keeps on disk.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

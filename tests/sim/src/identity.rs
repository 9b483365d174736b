//! The identity file: mirrors `lib/spool/src/identity.rs`, which is bound to a real file. Two copies, the older one overwritten and synced.

use crate::disk::{Disk, File, Shared};
use spool::Fence;
use std::io;
use store::{Medium, checksum};

const COPY_BYTES: usize = 4096;
const LENGTH: usize = 64;

/// What the agent knows of itself and of its server.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    file: File,
    number: u64,
    pub(crate) incarnation: u64,
    pub(crate) fence: Fence,
    pub(crate) acked: ([u8; 16], u64),
}

impl Identity {
    /// Opens it, and counts this start durably.
    pub(crate) fn open(disk: &Shared) -> io::Result<Identity> {
        let mut file = Disk::open_identity(disk);
        let bytes = file.read_all()?;
        let newest = bytes.chunks(COPY_BYTES).filter_map(|copy| parse(&file, copy)).max_by_key(|i| i.number);
        let mut identity = match newest {
            Some(mut identity) => {
                identity.write(identity.number)?;
                identity
            }
            // Of a first start. The simulation begins behind it: a power cut amid the first write leaves an agent that refuses to start.
            None if bytes.iter().all(|byte| *byte == 0) => {
                file.write_at(&[0; 2 * COPY_BYTES], 0)?;
                file.sync()?;
                Identity { file, number: 0, incarnation: 0, fence: Fence::default(), acked: ([0; 16], 0) }
            }
            None => return Err(io::Error::other("both copies of the identity are damaged")),
        };
        identity.incarnation += 1;
        identity.save()?;
        Ok(identity)
    }

    /// Raises the fence durably.
    pub(crate) fn raise(&mut self, fence: Fence) -> io::Result<()> {
        let before = std::mem::replace(&mut self.fence, fence);
        self.save().inspect_err(|_| self.fence = before)
    }

    /// Writes the older copy anew, durably.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        self.write(self.number + 1)
    }

    fn write(&mut self, number: u64) -> io::Result<()> {
        let mut copy = Vec::with_capacity(LENGTH + 4);
        copy.extend(number.to_le_bytes());
        copy.extend(self.incarnation.to_le_bytes());
        copy.extend(self.fence.epoch.to_le_bytes());
        copy.extend(self.fence.incarnation);
        copy.extend(self.acked.0);
        copy.extend(self.acked.1.to_le_bytes());
        copy.extend(checksum(&copy).to_le_bytes());
        self.file.write_at(&copy, (number % 2) * COPY_BYTES as u64)?;
        self.file.sync()?;
        self.number = number;
        Ok(())
    }
}

fn parse(file: &File, copy: &[u8]) -> Option<Identity> {
    let crc = u32::from_le_bytes(copy.get(LENGTH..LENGTH + 4)?.try_into().ok()?);
    let number = |at: usize| Some(u64::from_le_bytes(copy.get(at..at + 8)?.try_into().ok()?));
    let id = |at: usize| copy.get(at..at + 16)?.try_into().ok();
    let is_whole = checksum(&copy[..LENGTH]) == crc && number(0)? > 0;
    is_whole.then_some(())?;
    Some(Identity {
        file: file.clone(),
        number: number(0)?,
        incarnation: number(8)?,
        fence: Fence { epoch: number(16)?, incarnation: id(24)? },
        acked: (id(40)?, number(56)?),
    })
}

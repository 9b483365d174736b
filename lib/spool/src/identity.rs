//! The data root's identity and its fence: agent id, incarnation, the highest epoch seen.
//!
//! One file of two blocks, each a whole copy with a number and a checksum; the older one is overwritten in place and synced, so that neither a
//! full disk nor a crash can lose the fence.
//!
//! | a crash leaves                | recovery                                                                  |
//! |-------------------------------|---------------------------------------------------------------------------|
//! | no file, or an empty one      | first start: a new identity                                               |
//! | one copy torn                 | the other one holds (what was being written was not acted on yet)         |
//! | both copies bad               | refused: somebody must say whether this is still the same agent           |
//! | a copy in the kernel's cache whose sync failed | written again and synced before the other one is overwritten |

use job::AgentId;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const MAGIC: &[u8; 8] = b"LWIDENT1";
const COPY_BYTES: usize = 4096;

/// What the agent knows of itself and of its server. The writer holds the network-processor's lock.
#[derive(Debug)]
pub struct Identity {
    file: File,
    number: u64,
    /// Chosen at random at the first start.
    pub agent_id: AgentId,
    /// Counts the starts of the network-processor.
    pub incarnation: u64,
    /// The highest epoch seen, and whose.
    pub fence: Fence,
    /// Database and commit that last acknowledged something; zeros before that. Kept on a best-effort basis.
    pub acked: ([u8; 16], u64),
    /// The latest making of a run id (wall clock, milliseconds) whose settled record was removed: of a run as old or older nobody can tell
    /// whether it ran here.
    pub expired_ms: u64,
}

/// The highest epoch seen, and the incarnation of the server that had it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// The epoch; 0 before any was seen.
    pub epoch: u64,
    /// That server's incarnation.
    pub incarnation: [u8; 16],
}

impl Fence {
    /// Whether a server with that epoch and incarnation may command.
    pub fn admits(&self, other: &Fence) -> bool {
        other.epoch > self.epoch || other == self
    }
}

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The system said no.
    #[error("identity file: {0}")]
    Io(#[from] io::Error),
    /// Neither copy can be read.
    #[error(
        "identity file {0}: both copies are damaged; restore it, or remove it to make this a new agent (the server will ask for that to be confirmed)"
    )]
    Damaged(String),
}

impl Identity {
    /// Opens `<root>/identity`, makes it at the first start with `fresh` (random bytes), and counts this start durably.
    pub fn open(root: &Path, fresh: AgentId) -> Result<Identity, IdentityError> {
        let path = root.join("identity");
        let file =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let mut bytes = vec![0u8; 2 * COPY_BYTES];
        let length = file.metadata()?.len();
        let read = file.read_at(&mut bytes, 0)?;
        let copies = bytes[..read].chunks(COPY_BYTES).filter_map(|copy| Identity::parse(&file, copy));
        let newest = copies.filter_map(Result::ok).max_by_key(|identity| identity.number);
        let mut identity = match newest {
            Some(mut identity) => {
                identity.write(identity.number)?;
                identity
            }
            None if length == 0 || bytes[..read].iter().all(|b| *b == 0) => {
                file.write_all_at(&[0; 2 * COPY_BYTES], 0)?;
                file.sync_all()?;
                os::disk::sync_dir(os::disk::open_dir(root)?)?;
                let file = file.try_clone()?;
                Identity {
                    file,
                    number: 0,
                    agent_id: fresh,
                    incarnation: 0,
                    fence: Fence::default(),
                    acked: ([0; 16], 0),
                    expired_ms: 0,
                }
            }
            None => return Err(IdentityError::Damaged(path.display().to_string())),
        };
        identity.incarnation += 1;
        identity.save()?;
        Ok(identity)
    }

    /// Raises the fence durably; call it before obeying.
    pub fn raise(&mut self, fence: Fence) -> io::Result<()> {
        let before = std::mem::replace(&mut self.fence, fence);
        self.save().inspect_err(|_| self.fence = before)
    }

    /// Writes the older copy anew, durably.
    pub fn save(&mut self) -> io::Result<()> {
        self.write(self.number + 1)
    }

    fn write(&mut self, number: u64) -> io::Result<()> {
        let mut copy = [0u8; COPY_BYTES];
        copy[0..8].copy_from_slice(MAGIC);
        copy[8..16].copy_from_slice(&number.to_le_bytes());
        copy[16..32].copy_from_slice(&self.agent_id.0);
        copy[32..40].copy_from_slice(&self.incarnation.to_le_bytes());
        copy[40..48].copy_from_slice(&self.fence.epoch.to_le_bytes());
        copy[48..64].copy_from_slice(&self.fence.incarnation);
        copy[64..80].copy_from_slice(&self.acked.0);
        copy[80..88].copy_from_slice(&self.acked.1.to_le_bytes());
        copy[88..96].copy_from_slice(&self.expired_ms.to_le_bytes());
        let crc = store::checksum(&copy[..96]);
        copy[96..100].copy_from_slice(&crc.to_le_bytes());
        let at = (number % 2) * COPY_BYTES as u64;
        os::crash::fault("identity.write")?;
        os::crash::torn("identity.torn-write", &copy[..100], |half| drop(self.file.write_all_at(half, at)));
        self.file.write_all_at(&copy, at)?;
        os::crash::fault("identity.sync")?;
        self.file.sync_data()?;
        self.number = number;
        Ok(())
    }

    fn parse(file: &File, copy: &[u8]) -> Option<io::Result<Identity>> {
        if copy.len() < 100 || &copy[..8] != MAGIC || store::checksum(&copy[..96]) != u32_at(copy, 96) {
            return None;
        }
        Some(file.try_clone().map(|file| Identity {
            file,
            number: u64_at(copy, 8),
            agent_id: AgentId(id_at(copy, 16)),
            incarnation: u64_at(copy, 32),
            fence: Fence { epoch: u64_at(copy, 40), incarnation: id_at(copy, 48) },
            acked: (id_at(copy, 64), u64_at(copy, 80)),
            expired_ms: u64_at(copy, 88),
        }))
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0u8; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

fn id_at(bytes: &[u8], at: usize) -> [u8; 16] {
    array(bytes, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flip(path: &Path, at: u64) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0u8];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }

    #[test]
    fn an_identity_is_made_once_and_counts_its_starts() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path(), AgentId([1; 16])).unwrap();
        assert_eq!((first.agent_id, first.incarnation), (AgentId([1; 16]), 1));
        let second = Identity::open(dir.path(), AgentId([2; 16])).unwrap();
        assert_eq!((second.agent_id, second.incarnation), (AgentId([1; 16]), 2));
    }

    #[test]
    fn a_torn_copy_leaves_the_other_and_two_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let mut identity = Identity::open(dir.path(), AgentId([1; 16])).unwrap(); // copy 1
        identity.raise(Fence { epoch: 5, incarnation: [5; 16] }).unwrap(); // copy 0
        flip(&path, 40);
        let again = Identity::open(dir.path(), AgentId([2; 16])).unwrap();
        assert_eq!((again.agent_id, again.fence.epoch), (AgentId([1; 16]), 0));
        flip(&path, 40);
        flip(&path, 40 + 4096);
        assert!(matches!(Identity::open(dir.path(), AgentId([2; 16])), Err(IdentityError::Damaged(_))));
    }

    #[test]
    fn the_fence_admits_the_same_server_and_higher_epochs_only() {
        let fence = Fence { epoch: 5, incarnation: [5; 16] };
        assert!(fence.admits(&fence));
        assert!(fence.admits(&Fence { epoch: 6, incarnation: [1; 16] }));
        assert!(!fence.admits(&Fence { epoch: 5, incarnation: [6; 16] }));
        assert!(!fence.admits(&Fence { epoch: 4, incarnation: [5; 16] }));
    }
}

//! The room on the disk, and the ballast: a file that takes room while there is some, and is given up when there is none, so that what
//! runs can be finished and housekeeping can work. While it is given up no new run is taken.
//!
//! | on disk                        | meaning                                   | what is done                               |
//! |--------------------------------|-------------------------------------------|--------------------------------------------|
//! | `reserve` of the wanted length | all is well                               | removed when less than 2 MiB are free      |
//! | none, or a shorter one         | given up, first start, died while it grew | made (again) when there is room for it and 4 MiB more |
//! | a longer one                   | the key was changed                       | cut                                        |

use os::disk::{self, FileSystem};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Below this many free bytes no new run is taken.
pub(crate) const FREE_BYTES_MIN: u64 = 2 << 20;
/// Below this many free inodes no new run is taken.
const FREE_INODES_MIN: u64 = 64;
/// So much more than the ballast must be free before it is made.
pub(crate) const MARGIN_BYTES: u64 = 2 * FREE_BYTES_MIN;
/// The ballast is at most this part of the file system.
const BALLAST_PART: u64 = 16;

/// What to do, for people.
const MAKE_ROOM: &str = "make room there, or let [retention] of the agent keep less";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Why no new run is taken; empty if there is room.
    pub(crate) refusing: String,
    /// Free room, bytes.
    pub(crate) free_bytes: u64,
    /// The disk is full: even what is kept for 24 h may go.
    pub(crate) is_full: bool,
}

/// Looks at the disk, and gives up or makes the ballast. `wanted` bytes; 0: none.
pub(crate) fn look(root: &Path, wanted: u64) -> io::Result<Room> {
    look_at(root, wanted, disk::file_system(root)?)
}

fn look_at(root: &Path, wanted: u64, fs: FileSystem) -> io::Result<Room> {
    let wanted = wanted.min(fs.total_bytes / BALLAST_PART);
    let path = root.join("reserve");
    let there = std::fs::metadata(&path).map_or(0, |m| m.len());
    let mut free_bytes = fs.free_bytes;
    if free_bytes < FREE_BYTES_MIN && there > 0 {
        std::fs::remove_file(&path)?;
        free_bytes = disk::file_system(root)?.free_bytes;
        tracing::warn!(
            bytes = there,
            "the disk is full: the ballast is given up, so that what runs can be finished"
        );
    } else if there > wanted {
        File::options().write(true).open(&path)?.set_len(wanted)?;
    } else if there < wanted && free_bytes >= wanted + MARGIN_BYTES {
        match make(&path, wanted) {
            Ok(()) => tracing::info!(bytes = wanted, "the ballast is there"),
            Err(e) if disk::is_no_room(&e) => {} // somebody was quicker: as if it had not been tried
            Err(e) => return Err(e),
        }
    }
    let is_there = std::fs::metadata(&path).map_or(0, |m| m.len()) >= wanted;
    let free = free_bytes >> 10;
    let refusing = if fs.free_bytes < FREE_BYTES_MIN {
        format!("disk full: {free} KiB are free in the data root; {MAKE_ROOM}")
    } else if !is_there {
        format!(
            "disk full: {free} KiB are free in the data root, too little for the ballast of {} KiB; {MAKE_ROOM}",
            wanted >> 10
        )
    } else if fs.free_inodes < FREE_INODES_MIN {
        format!("disk full: {} inodes are free in the data root; {MAKE_ROOM}", fs.free_inodes)
    } else {
        String::new()
    };
    let is_full = fs.free_bytes < FREE_BYTES_MIN || !is_there;
    Ok(Room { refusing, free_bytes, is_full })
}

/// Takes the room under another name first, so that a file of the whole length has all its blocks.
fn make(path: &Path, bytes: u64) -> io::Result<()> {
    let growing = PathBuf::from(format!("{}.new", path.display()));
    let made =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&growing).and_then(|file| {
            disk::reserve(&file, bytes)?;
            file.set_len(bytes)?;
            std::fs::rename(&growing, path)
        });
    if made.is_err() {
        let _ = std::fs::remove_file(&growing); // it takes room for nothing
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn fs(free: u64) -> FileSystem {
        FileSystem { free_bytes: free, free_inodes: u64::MAX, total_bytes: 100 * MIB, network: None }
    }

    #[test]
    fn the_ballast_is_given_up_when_the_disk_is_full_and_made_again_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let look = |wanted, free| look_at(dir.path(), wanted, fs(free)).unwrap();
        let there = || std::fs::metadata(dir.path().join("reserve")).map_or(0, |m| m.len());
        let room = look(4 * MIB, 50 * MIB);
        assert_eq!((room.refusing.as_str(), room.is_full, there()), ("", false, 4 * MIB));
        let room = look(4 * MIB, MIB);
        assert!(room.is_full && room.refusing.contains("disk full") && there() == 0, "{room:?}");
        let room = look(4 * MIB, 6 * MIB);
        assert!(
            room.refusing.contains("ballast") && there() == 0,
            "it would be full again at once: {room:?}"
        );
        assert!(look(4 * MIB, 9 * MIB).refusing.is_empty() && there() == 4 * MIB);
    }

    #[test]
    fn the_ballast_follows_its_key_and_never_takes_much_of_a_small_disk() {
        let dir = tempfile::tempdir().unwrap();
        let look = |wanted, free| look_at(dir.path(), wanted, fs(free)).unwrap();
        let there = || std::fs::metadata(dir.path().join("reserve")).map_or(0, |m| m.len());
        look(u64::MAX / 2, 50 * MIB);
        assert_eq!(there(), 100 * MIB / 16);
        look(MIB, 50 * MIB);
        assert_eq!(there(), MIB);
        assert!(look(0, 3 * MIB).refusing.is_empty());
    }
}

//! Durable file operations. Each says what is on disk when it returns.

use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Opens a directory, to sync it or to reach into it.
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes the entries of a directory durable: what was created, renamed or removed in it.
pub fn sync_dir(dir: impl AsFd) -> io::Result<()> {
    crate::crash::fault("directory.sync")?;
    Ok(fs::fsync(dir)?)
}

/// Creates a new file, 0600, for reading and writing; refuses an existing one.
pub fn create_new(path: &Path) -> io::Result<File> {
    crate::crash::fault("file.create")?;
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Opens a plain file for reading: no symbolic link at its end, no waiting for the writer of a pipe.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    plain(File::from(fs::open(path, flags, Mode::empty())?))
}

/// As [`open_plain`], by its name in an open directory.
pub fn open_plain_at(dir: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::LOOP) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link")),
        opened => plain(File::from(opened?)),
    }
}

/// As [`open_plain`], for writing in place; the file must be there.
pub fn open_plain_for_writing(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    plain(File::from(fs::open(path, flags, Mode::empty())?))
}

fn plain(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")),
    }
}

/// Opens a directory by its name in an open one; a symbolic link is not followed.
pub fn open_dir_at(dir: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(fs::openat(dir, name, flags, Mode::empty())?)
}

/// The names in an open directory, but `.` and `..` and what is no UTF-8.
pub fn names(dir: impl AsFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        if let Ok(name) = entry?.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Gives the blocks of a range back (`fallocate(2)`, `PUNCH_HOLE`): it reads as zeros, and the size stays.
pub fn hollow(file: &File, from: u64, to: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fs::fallocate(file, flags, from, to.saturating_sub(from))?)
}

/// Where the first data at or after `from` begins (`lseek(2)`, `SEEK_DATA`); `None` if there is none. A file system that does not know holes
/// calls all of it data. Moves the position of the file.
pub fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    match fs::seek(file, fs::SeekFrom::Data(from)) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(rustix::io::Errno::INVAL) => Ok(Some(from)),
        Err(e) => Err(e.into()),
    }
}

/// Reserves blocks for the first `bytes` of a file, so that later writes there cannot meet a full disk. Where the file system
/// cannot reserve (`EOPNOTSUPP`), the caller's own writing of zeros must do.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    match fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Replaces a small file: afterwards either the old or the new content is there, and the new one durably. Needs free blocks.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary: PathBuf = dir.join(format!(".{}.tmp", name.to_string_lossy()));
    let file = File::options().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    let fault = crate::crash::fault;
    let written = fault("replace.write").and_then(|()| file.write_all_at(content, 0));
    let synced = written.and_then(|()| fault("replace.sync")).and_then(|()| file.sync_all());
    let renamed =
        synced.and_then(|()| fault("replace.rename")).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(e) = renamed {
        let _ = std::fs::remove_file(&temporary); // best effort: the name is ours and is truncated at the next use
        return Err(e);
    }
    sync_dir(open_dir(dir)?)
}

/// Free bytes for this user, and whether the path is on a network file system (NFS, SMB, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes that this user may still allocate.
    pub free_bytes: u64,
    /// All bytes of the file system, used ones too.
    pub total_bytes: u64,
    /// Inodes that are free; `u64::MAX` where the file system does not count them.
    pub free_inodes: u64,
    /// What kind of network file system it is, if it is one.
    pub network: Option<&'static str>,
}

/// Asks `statfs(2)`.
pub fn file_system(path: &Path) -> io::Result<FileSystem> {
    let s = fs::statfs(path)?;
    let network = network_kind(s.f_type as u64);
    let free_inodes = if s.f_files == 0 { u64::MAX } else { s.f_ffree };
    let bytes = |blocks: u64| blocks.saturating_mul(s.f_bsize as u64);
    Ok(FileSystem { free_bytes: bytes(s.f_bavail), total_bytes: bytes(s.f_blocks), free_inodes, network })
}

/// The network file systems by the number that `statfs(2)` has for them.
fn network_kind(f_type: u64) -> Option<&'static str> {
    match f_type & 0xffff_ffff {
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Some("SMB"),
        0x0102_1997 => Some("9P"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x00c3_6400 => Some("Ceph"),
        _ => None,
    }
}

/// Removes a directory with all that is in it, entry by entry; what is gone already is no error.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Whether there is anything at the path (a broken link counts).
pub fn exists(path: &Path) -> io::Result<bool> {
    match fs::statat(fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether the error says that there is no room (blocks, inodes or quota).
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_the_kernels_numbers_also_where_those_are_negative() {
        let magic = |f_type: i64| network_kind(f_type as u64);
        assert_eq!(magic(0x6969), Some("NFS")); // NFS_SUPER_MAGIC
        assert_eq!(magic(0x517b), Some("SMB")); // SMB_SUPER_MAGIC
        for signed in [0xff53_4d42_u32 as i32, 0xfe53_4d42_u32 as i32] {
            assert_eq!(magic(i64::from(signed)), Some("SMB")); // CIFS and SMB2, as a 32-bit kernel has them
        }
        assert_eq!(magic(0xff53_4d42), Some("SMB"));
        for local in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994] {
            assert_eq!(magic(local), None); // ext4, XFS, Btrfs, tmpfs
        }
        assert_eq!(file_system(Path::new("/proc")).unwrap().network, None);
    }
}

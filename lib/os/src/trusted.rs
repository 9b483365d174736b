//! Files that root alone can have written: what they say may be believed by a program with privileges.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// There is none.
    #[error("{0} does not exist")]
    Absent(PathBuf),
    /// A symbolic link on the way could lead anywhere.
    #[error("{0} is a symbolic link, or there is one in its path; give the path itself")]
    Link(PathBuf),
    /// Somebody else can change it, or what it is called.
    #[error("{path} is not root's alone (owner {uid}, mode {mode:o}): chown root, chmod go-w")]
    Writable {
        /// The file, or a directory above it.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Not a plain file, or one that is too long.
    #[error("{path} is no plain file of at most {bytes_max} bytes of text")]
    Strange {
        /// The file.
        path: PathBuf,
        /// The longest.
        bytes_max: u64,
    },
    /// The system said no.
    #[error("{path} cannot be read: {source}")]
    Io {
        /// The file, or a directory above it.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Reads a file that must be root's, as all directories above it, and writable for nobody else (in a directory with the sticky bit others cannot
/// rename what is root's). Symbolic links are refused anywhere in the path. Needs Linux 5.6.
pub fn read(path: &Path, bytes_max: u64) -> Result<String, TrustError> {
    let (file, metadata) = open(path, OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK)?;
    let strange = || TrustError::Strange { path: path.to_owned(), bytes_max };
    if !metadata.is_file() || metadata.len() > bytes_max {
        return Err(strange());
    }
    check_all(path, &metadata)?;
    let mut text = String::new();
    match file.take(bytes_max).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(strange()),
        Err(source) => Err(TrustError::Io { path: path.to_owned(), source }),
    }
}

/// Whether a file is as [`read`] wants it, whatever is in it: a program that runs as root. Who asks need not be able to read it.
pub fn verify(path: &Path) -> Result<(), TrustError> {
    let (_, metadata) = open(path, OFlags::PATH)?;
    check_all(path, &metadata)
}

fn open(path: &Path, how: OFlags) -> Result<(File, Metadata), TrustError> {
    let io_error = |source| TrustError::Io { path: path.to_owned(), source };
    let no_links = ResolveFlags::NO_SYMLINKS;
    let opened = rustix::fs::openat2(rustix::fs::CWD, path, how | OFlags::CLOEXEC, Mode::empty(), no_links);
    let file = match opened {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => return Err(TrustError::Absent(path.to_owned())),
        Err(rustix::io::Errno::LOOP) => return Err(TrustError::Link(path.to_owned())),
        Err(e) => return Err(io_error(e.into())),
    };
    let metadata = file.metadata().map_err(io_error)?;
    Ok((file, metadata))
}

/// The file, and every directory above it.
fn check_all(path: &Path, metadata: &Metadata) -> Result<(), TrustError> {
    check(path, metadata, false)?;
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        let metadata = std::fs::symlink_metadata(above)
            .map_err(|source| TrustError::Io { path: above.to_owned(), source })?;
        check(above, &metadata, true)?;
    }
    Ok(())
}

fn check(path: &Path, metadata: &Metadata, sticky_will_do: bool) -> Result<(), TrustError> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let mode = metadata.mode() & 0o7777;
    let closed = mode & OTHERS_WRITE == 0 || sticky_will_do && mode & STICKY != 0;
    if metadata.uid() == 0 && closed {
        return Ok(());
    }
    Err(TrustError::Writable { path: path.to_owned(), uid: metadata.uid(), mode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn only_a_file_that_root_alone_can_change_is_believed() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: only root can own such a file");
        }
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("list"), dir.path().join("link"));
        let mode =
            |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        mode(dir.path(), 0o755);
        assert!(matches!(read(&path, 100), Err(TrustError::Absent(_))));
        std::fs::write(&path, "ann\n").unwrap();
        mode(&path, 0o644);
        assert_eq!(read(&path, 100).unwrap(), "ann\n");
        assert!(matches!(read(&path, 3), Err(TrustError::Strange { .. })));
        assert!(matches!(read(dir.path(), 100), Err(TrustError::Strange { .. })));
        symlink(&path, &link).unwrap();
        assert!(matches!(read(&link, 100), Err(TrustError::Link(_))));
        for bad in [0o664, 0o646] {
            mode(&path, bad);
            assert!(matches!(read(&path, 100), Err(TrustError::Writable { .. })), "{bad:o}");
            assert!(matches!(verify(&path), Err(TrustError::Writable { .. })), "{bad:o}");
        }
        mode(&path, 0o644);
        assert!(matches!(verify(&link), Err(TrustError::Link(_))));
        assert!(verify(&path).is_ok());
        mode(dir.path(), 0o777);
        assert!(matches!(read(&path, 100), Err(TrustError::Writable { .. })));
        assert!(matches!(verify(&path), Err(TrustError::Writable { .. })));
        mode(dir.path(), 0o1777);
        assert!(read(&path, 100).is_ok());
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        assert!(matches!(read(&path, 100), Err(TrustError::Writable { uid: 12_345, .. })));
    }
}

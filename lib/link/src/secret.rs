//! Shared secrets and the files that hold them.

use protocol::handshake::HandshakeError;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

/// A secret has at least this many bytes.
pub const SECRET_BYTES_MIN: usize = 32;
/// And at most this many.
pub const SECRET_BYTES_MAX: usize = 4096;

/// A secret that an agent and its servers share. Wiped from memory with its last clone; never shown.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

/// Whose secret is whose: asked anew for every connection, so that a rotation needs no restart.
pub trait Secrets: Send + Sync + 'static {
    /// The secrets that are valid with the peer of this name, newest first; none: the peer is not known.
    fn of_peer(&self, name: &str) -> Vec<Secret>;

    /// A peer did not prove itself; the name is what it said, or who was dialled, and it may be anybody.
    fn on_failure(&self, _name: Option<&str>, _address: SocketAddr, _reason: &HandshakeError) {}
}

/// A secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not there, or not to be read by us.
    #[error("cannot read the secret file {path}: {source}; make one with `lastword secret new {path}`", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A symbolic link could be turned to another file by somebody else.
    #[error("the secret file {path} is a symbolic link, which is refused: name the file itself", path = path.display())]
    SymbolicLink {
        /// The file.
        path: PathBuf,
    },
    /// A directory, a device, a pipe.
    #[error("the secret file {path} is not a regular file", path = path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or change it.
    #[error("others may access the secret file {path} (mode {mode:04o}): run `chmod 600 {path}`", path = path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else can change it.
    #[error("the secret file {path} belongs to user id {owner}; it must belong to root or to us (user id {us}): run `chown {us} {path}`", path = path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Our effective user id.
        us: u32,
    },
    /// Too little to be a secret.
    #[error(
        "a secret of {bytes} bytes is too short: at least {SECRET_BYTES_MIN} random bytes are needed; make one with `lastword secret new FILE`"
    )]
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// Surely not a secret.
    #[error("a secret of more than {SECRET_BYTES_MAX} bytes: this is some other file")]
    TooLong,
}

impl Secret {
    /// Whether both are the same bytes.
    pub fn is_same(&self, other: &Secret) -> bool {
        **self.0 == **other.0
    }

    /// Takes the bytes of a secret; refuses what is too short or too long.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Secret, SecretError> {
        let bytes = Zeroizing::new(bytes);
        match bytes.len() {
            len if len < SECRET_BYTES_MIN => Err(SecretError::TooShort { bytes: len }),
            len if len > SECRET_BYTES_MAX => Err(SecretError::TooLong),
            _ => Ok(Secret(Arc::new(bytes))),
        }
    }

    /// Reads a secret file: a regular file, no symbolic link, nothing allowed to group and others, owned by us or by root; one line
    /// end at its end does not count.
    pub fn load(path: &Path) -> Result<Secret, SecretError> {
        let file = open(path)?;
        check(path, &file)?;
        // Room for all that may come from the start: growing would leave copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 2));
        file.take(SECRET_BYTES_MAX as u64 + 2)
            .read_to_end(&mut bytes)
            .map_err(|source| SecretError::Io { path: path.to_owned(), source })?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Secret::from_bytes(std::mem::take(&mut *bytes))
    }
}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn open(path: &Path) -> Result<File, SecretError> {
    // NONBLOCK: a pipe with nobody at its other end must not stop us; it is refused afterwards.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(rustix::io::Errno::LOOP) => Err(SecretError::SymbolicLink { path: path.to_owned() }),
        Err(errno) => Err(SecretError::Io { path: path.to_owned(), source: errno.into() }),
    }
}

fn check(path: &Path, file: &File) -> Result<(), SecretError> {
    let path = path.to_owned();
    let meta = file.metadata().map_err(|source| SecretError::Io { path: path.clone(), source })?;
    let (mode, owner, us) = (meta.mode() & 0o7777, meta.uid(), rustix::process::geteuid().as_raw());
    if !meta.is_file() {
        Err(SecretError::NotAFile { path })
    } else if mode & 0o077 != 0 {
        Err(SecretError::Mode { path, mode })
    } else if owner != us && owner != 0 {
        Err(SecretError::Owner { path, owner, us })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn file(dir: &tempfile::TempDir, content: &[u8], mode: u32) -> PathBuf {
        let path = dir.path().join("agent.secret");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_good_secret_file_is_read_without_its_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let secret = Secret::load(&file(&dir, &[&[7; 32][..], b"\n"].concat(), 0o600)).unwrap();
        assert_eq!(secret.as_ref(), [7; 32]);
        assert_eq!(Secret::load(&file(&dir, &[7; 33], 0o400)).unwrap().as_ref().len(), 33);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn files_that_others_can_reach_are_refused_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let error = Secret::load(&file(&dir, &[7; 32], mode)).unwrap_err();
            assert!(
                matches!(error, SecretError::Mode { .. }) && error.to_string().contains("chmod 600"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_not_a_plain_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, &[7; 32], 0o600);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(Secret::load(&link), Err(SecretError::SymbolicLink { .. })));
        assert!(matches!(Secret::load(dir.path()), Err(SecretError::NotAFile { .. })));
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        assert!(matches!(Secret::load(&fifo), Err(SecretError::NotAFile { .. })));
        let missing = Secret::load(&dir.path().join("missing")).unwrap_err();
        assert!(missing.to_string().contains("lastword secret new"), "{missing}");
    }

    #[test]
    fn a_secret_is_neither_too_short_nor_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let short = file(&dir, &[&[7; 31][..], b"\n"].concat(), 0o600);
        assert!(matches!(Secret::load(&short), Err(SecretError::TooShort { bytes: 31 })));
        assert!(Secret::load(&file(&dir, &[7; SECRET_BYTES_MAX], 0o600)).is_ok());
        assert!(matches!(
            Secret::load(&file(&dir, &[7; SECRET_BYTES_MAX + 1], 0o600)),
            Err(SecretError::TooLong)
        ));
        assert!(matches!(Secret::load(Path::new("/dev/zero")), Err(SecretError::NotAFile { .. })));
    }
}

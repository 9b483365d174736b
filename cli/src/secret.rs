//! Makes shared secrets, and reads the files that hold them.

use crate::exit::{CANNOT_CREATE, CONFIG, IO, NOT_FOUND, failure};
use clap::Subcommand;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How many random bytes make a secret.
const SECRET_BYTES: usize = 32;
/// A secret file is not larger.
const SECRET_FILE_BYTES_MAX: u64 = 4097;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a new secret for an agent: 32 random bytes in a file that only its owner may read.
    #[command(after_help = "\
Example:
  lastword secret new host1.secret
  lastword agent add host1 --host host1.example --secret-file host1.secret
then copy the file to the host, as the secret_file of its agent.toml (owner: the agent's user, mode 0600).")]
    New {
        /// The file to make; must not exist.
        file: PathBuf,
    },
}

impl Verb {
    pub(crate) fn run(self) -> anyhow::Result<u8> {
        let Verb::New { file } = self;
        write_new(&file)?;
        Ok(0)
    }
}

fn write_new(path: &Path) -> anyhow::Result<()> {
    let mut random = [0u8; SECRET_BYTES];
    getrandom::fill(&mut random).map_err(|e| failure(IO, format!("cannot get random bytes: {e}")))?;
    let text = hex(&random) + "\n";
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| {
        failure(
            CANNOT_CREATE,
            format!(
                "cannot make the secret file {}: {e}; an existing file is never replaced",
                path.display()
            ),
        )
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|e| {
        // Half a secret is worse than none; if it cannot be removed either, the message names the file.
        let _ = fs::remove_file(path);
        failure(IO, format!("cannot write the secret file {}: {e}", path.display()))
    })
}

/// Reads a secret file by the agent's rules (a regular file, no link, nobody else's, one line end at its end does not count) and
/// writes its bytes as hexadecimal digits.
pub(crate) fn read_hex(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let cannot = |e| {
        failure(
            NOT_FOUND,
            format!("cannot read the secret file {shown}: {e}; make one with: lastword secret new {shown}"),
        )
    };
    let meta = fs::symlink_metadata(path).map_err(cannot)?;
    let us = fs::metadata("/proc/self").map(|m| m.uid());
    let refused = if !meta.is_file() {
        Some("is not a regular file (a symbolic link is refused: name the file itself)".to_owned())
    } else if meta.mode() & 0o077 != 0 {
        Some(format!("can be accessed by others; run: chmod 600 {shown}"))
    } else if us.is_ok_and(|us| us != 0 && meta.uid() != us && meta.uid() != 0) {
        Some("belongs to another user".to_owned())
    } else if meta.len() > SECRET_FILE_BYTES_MAX {
        Some("is too large for a secret".to_owned())
    } else {
        None
    };
    if let Some(why) = refused {
        return Err(failure(CONFIG, format!("the secret file {shown} {why}")));
    }
    let bytes = fs::read(path).map_err(cannot)?;
    Ok(hex(bytes.strip_suffix(b"\n").unwrap_or(&bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_new_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1"), dir.path().join("2"));
        write_new(&one).unwrap();
        write_new(&two).unwrap();
        let text = fs::read_to_string(&one).unwrap();
        assert_eq!((text.len(), text.ends_with('\n')), (65, true));
        assert_ne!(text, fs::read_to_string(&two).unwrap());
        assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write_new(&one).is_err());
        assert_eq!(fs::read_to_string(&one).unwrap(), text);
        assert_eq!(read_hex(&one).unwrap(), hex(text.trim_end().as_bytes()));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, [0xffu8; 32]).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read_hex(&file).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_hex(&file).unwrap(), "ff".repeat(32));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(read_hex(&link).is_err());
    }
}

//! The agent's secrets: the same for every server, read from their files, and again when a file changes.

use config::AgentConfig;
use link::{Secret, SecretError, Secrets};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The secrets that are valid, and where they are from.
#[derive(Debug)]
pub(crate) struct FileSecrets {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    files: Vec<PathBuf>,
    /// What the files looked like when they were read last.
    stamps: Vec<Option<Stamp>>,
    /// Newest first.
    secrets: Vec<Secret>,
}

/// Tells one content of a file from the next: device, inode, bytes, change time.
type Stamp = (u64, u64, u64, i64, i64);

impl FileSecrets {
    /// Reads the files.
    pub(crate) fn load(config: &AgentConfig) -> Result<FileSecrets, SecretError> {
        let files = files(config);
        // Looked at before they are read: a change in between is seen later.
        let stamps = stamps(&files);
        let secrets = read_all(&files)?;
        Ok(FileSecrets { state: Mutex::new(State { files, stamps, secrets }) })
    }

    /// Reads the files of that configuration; on an error the secrets stay.
    pub(crate) fn reload(&self, config: &AgentConfig) -> Result<(), SecretError> {
        let files = files(config);
        let stamps = stamps(&files);
        let secrets = read_all(&files)?;
        *self.lock() = State { files, stamps, secrets };
        Ok(())
    }

    /// Reads the files anew if one of them changed; on an error the secrets stay, and it is said once for each change.
    pub(crate) fn refresh(&self) {
        let (files, before) = {
            let state = self.lock();
            (state.files.clone(), state.stamps.clone())
        };
        let stamps = stamps(&files);
        if stamps == before {
            return;
        }
        let read = read_all(&files);
        let mut state = self.lock();
        if state.files != files {
            return; // another configuration was read meanwhile
        }
        state.stamps = stamps;
        match read {
            Ok(secrets) => {
                state.secrets = secrets;
                tracing::info!(
                    "a secret file changed: {} secrets are valid now; links in use stay",
                    files.len()
                );
            }
            Err(e) => tracing::error!(
                "a secret file changed and cannot be used, the secrets stay as they were: {e}"
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Secrets for FileSecrets {
    fn of_peer(&self, _name: &str) -> Vec<Secret> {
        self.lock().secrets.clone()
    }
}

fn files(config: &AgentConfig) -> Vec<PathBuf> {
    [Some(config.secret_file.clone()), config.old_secret_file.clone()].into_iter().flatten().collect()
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Secret>, SecretError> {
    files.iter().map(|file: &PathBuf| Secret::load(file)).collect()
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &Path| {
        let m = std::fs::symlink_metadata(file).ok()?;
        Some((m.dev(), m.ino(), m.size(), m.ctime(), m.ctime_nsec()))
    };
    files.iter().map(|file| stamp(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn put(path: &Path, byte: u8, mode: u32) {
        std::fs::write(path, [byte; 32]).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_that_changed_is_read_anew_and_one_that_cannot_be_used_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (file, toml) = (dir.path().join("secret"), dir.path().join("agent.toml"));
        put(&file, 1, 0o600);
        let text = format!(
            "name = \"a\"\ndata_root = \"/d\"\nsecret_file = \"{}\"\nlisten = \"[::1]:0\"\n",
            file.display()
        );
        std::fs::write(&toml, text).unwrap();
        let config = AgentConfig::load(&toml).unwrap();
        let secrets = FileSecrets::load(&config).unwrap();
        let first = |byte| secrets.of_peer("any")[0].as_ref() == [byte; 32];
        let new = dir.path().join("new");
        put(&new, 2, 0o600);
        std::fs::rename(&new, &file).unwrap();
        secrets.refresh();
        assert!(first(2));
        put(&new, 3, 0o644);
        std::fs::rename(&new, &file).unwrap();
        secrets.refresh();
        assert!(first(2) && secrets.reload(&config).is_err() && first(2));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        secrets.refresh();
        assert!(first(3));
    }
}

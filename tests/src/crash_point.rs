//! A named place in a program where it dies by SIGKILL (`os::crash`; not in release builds).

use crate::wait_until;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The place, and the file that lets a process die there once: it is removed as the process dies.
pub struct CrashPoint {
    name: String,
    token: PathBuf,
}

impl CrashPoint {
    /// A place that is not armed yet; the token will lie in `dir`.
    pub fn new(name: &str, dir: &Path) -> CrashPoint {
        CrashPoint { name: name.to_owned(), token: dir.join(format!("{name}.token")) }
    }

    /// What to start the program with.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("LASTWORD_CRASH_AT".into(), self.name.clone()),
            ("LASTWORD_CRASH_TOKEN".into(), self.token.to_string_lossy().into_owned()),
        ]
    }

    /// The next process that comes there dies.
    pub fn arm(&self) -> Result<()> {
        Ok(std::fs::write(&self.token, "")?)
    }

    /// Waits until one died there.
    pub fn wait_fired(&self) -> Result<()> {
        wait_until(&format!("a process to die at {}", self.name), || Ok(!self.token.exists()))
    }
}

//! A named place in a program where it dies, stands still or fails (`os::crash`; not in release builds). Every process of a site asks the same
//! directory, so a test arms what it likes, when it likes.

use crate::{Process, wait_for};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// What happens at the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The process dies by SIGKILL.
    Kill,
    /// It stops itself.
    Stop,
    /// What it does there fails: no room.
    NoSpace,
    /// What it does there fails: the disk.
    DiskError,
    /// The same at every passing, until it is disarmed.
    DiskErrors,
}

/// The place, and the file that arms it: it is renamed by the process that it befalls.
pub struct CrashPoint {
    name: String,
    folder: PathBuf,
}

/// Where the files lie that arm points, in a site's directory.
pub(crate) fn folder(site: &Path) -> PathBuf {
    site.join("points")
}

/// What to start every program with.
pub(crate) fn environment(site: &Path) -> (&'static str, PathBuf) {
    (os::crash::POINTS, folder(site))
}

impl CrashPoint {
    /// A place that is not armed yet, for the processes of the site in that directory.
    pub fn new(name: &str, site: &Path) -> CrashPoint {
        CrashPoint { name: name.to_owned(), folder: folder(site) }
    }

    /// The next process that comes there dies.
    pub fn arm(&self) -> Result<()> {
        self.arm_with(Deed::Kill, 1)
    }

    /// It befalls whoever is the `nth` to come there.
    pub fn arm_with(&self, deed: Deed, nth: u32) -> Result<()> {
        let text = match deed {
            Deed::Kill => format!("kill {nth}"),
            Deed::Stop => format!("stop {nth}"),
            Deed::NoSpace => format!("ENOSPC {nth}"),
            Deed::DiskError => format!("EIO {nth}"),
            Deed::DiskErrors => "EIO 0".to_owned(),
        };
        std::fs::create_dir_all(&self.folder)?;
        // Whole at once: a process may come there at this moment.
        let new = self.folder.join(format!(".new-{}", self.name));
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, self.folder.join(&self.name))?)
    }

    /// Nothing happens there any more. Whether it was still armed.
    pub fn disarm(&self) -> Result<bool> {
        let armed = self.folder.join(&self.name);
        let passing = format!("{}.passing.", self.name);
        wait_for("nobody to count a passing", || {
            let removed = std::fs::remove_file(&armed).is_ok();
            let counted = self.names()?.iter().any(|name| name.starts_with(&passing));
            Ok((removed || !counted).then_some(removed))
        })
    }

    /// The process that it befell, by its id, if it did.
    pub fn fired(&self) -> Result<Option<u32>> {
        Ok(self.names()?.iter().find_map(|name| self.befallen(name)))
    }

    fn befallen(&self, name: &str) -> Option<u32> {
        name.strip_prefix(&self.name)?.strip_prefix('.')?.parse().ok()
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.folder)?.flatten();
        Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// Waits until one died or failed there: its process id.
    pub fn wait_fired(&self) -> Result<u32> {
        let pid = wait_for(&format!("something to happen at {}", self.name), || self.fired())?;
        self.forget()?;
        Ok(pid)
    }

    /// Waits until one stands still there.
    pub fn wait_stopped(&self) -> Result<Process> {
        let pid = self.wait_fired()?;
        let process = Process::find(pid).with_context(|| format!("{pid} is gone from {}", self.name))?;
        wait_for("it to stand still", || Ok((process.state() == Some('T')).then_some(())))?;
        Ok(process)
    }

    /// So that it can be armed again.
    fn forget(&self) -> Result<()> {
        for name in self.names()?.iter().filter(|name| self.befallen(name).is_some()) {
            std::fs::remove_file(self.folder.join(name))?;
        }
        Ok(())
    }
}

//! Is there room for the record? Looked at every second, beside everything else.
//!
//! | the file system of the data root            | what follows                                                                     |
//! |---------------------------------------------|----------------------------------------------------------------------------------|
//! | has `[disk] free_bytes_min` and more        | nothing                                                                          |
//! | has less                                    | no new jobs (507); what runs is recorded on; not ready, with the reason          |
//! | has nothing, or a commit found no room      | the ballast is given back, so that what agents tell still has room               |
//! | has room again                              | jobs are taken again; the ballast is laid down again when there is room for both |
//!
//! A commit that finds no room is tried again for ever (see `core`), and nothing of it is acknowledged; this only makes that rare.

use crate::core::Handle;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// A look that takes longer says nothing: the file system hangs, and commits will tell.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What the watch goes by.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// Where the database is.
    pub(crate) folder: PathBuf,
    /// Below this no new jobs.
    pub(crate) free_bytes_min: u64,
    /// So much is kept for what agents tell; 0: nothing.
    pub(crate) ballast_bytes: u64,
}

impl Watch {
    /// Looks for ever.
    pub(crate) async fn run(self, handle: Handle) {
        loop {
            let (watch, troubled) = (self.clone(), handle.has_database_trouble());
            let look = tokio::task::spawn_blocking(move || watch.look(troubled));
            if let Ok(Ok(Ok(free))) = tokio::time::timeout(LOOK_MAX, look).await {
                metrics::gauge!("lastword_disk_free_bytes").set(free as f64);
                handle.on_disk((free < self.free_bytes_min).then(|| self.complaint(free)));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Gives the ballast back or lays it down; how many bytes are free.
    fn look(&self, troubled: bool) -> std::io::Result<u64> {
        let free = os::disk::file_system(&self.folder)?.free_bytes;
        let path = self.folder.join(BALLAST);
        let there = os::disk::exists(&path)?;
        if there && (self.ballast_bytes == 0 || free == 0 || troubled && free < self.free_bytes_min) {
            std::fs::remove_file(&path)?;
            tracing::warn!(
                "the ballast {} is given back: {} bytes for what agents tell",
                path.display(),
                self.ballast_bytes
            );
        } else if !there
            && self.ballast_bytes > 0
            && free > self.free_bytes_min.saturating_add(self.ballast_bytes)
        {
            lay_down(&path, self.ballast_bytes)?;
        }
        Ok(free)
    }

    fn complaint(&self, free: u64) -> String {
        format!(
            "the disk of {} has {} MiB free, and below {} MiB no new jobs are taken; make room (backups, traces) or change \
             [disk] free_bytes_min. What runs is recorded on",
            self.folder.display(),
            free >> 20,
            self.free_bytes_min >> 20
        )
    }
}

/// The file that is given back when the disk is full.
const BALLAST: &str = "disk.ballast";

fn lay_down(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = match os::disk::create_new(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        created => created?,
    };
    let laid = os::disk::reserve(&file, bytes).and_then(|()| File::sync_all(&file));
    if laid.is_err() {
        let _ = std::fs::remove_file(path); // what stays is given back at the next look
    }
    laid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(folder: &Path, free_bytes_min: u64) -> Watch {
        Watch { folder: folder.to_owned(), free_bytes_min, ballast_bytes: 1 << 20 }
    }

    #[test]
    fn the_ballast_is_laid_down_with_room_and_given_back_in_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = dir.path().join(BALLAST);
        assert!(watch(dir.path(), 0).look(false).unwrap() > 0);
        assert_eq!(ballast.metadata().unwrap().len(), 1 << 20);
        watch(dir.path(), 0).look(true).unwrap();
        assert!(ballast.exists(), "there is room, so the trouble is another one");
        watch(dir.path(), u64::MAX).look(true).unwrap();
        assert!(!ballast.exists());
        watch(dir.path(), u64::MAX).look(false).unwrap();
        assert!(!ballast.exists(), "not while room is short");
        watch(dir.path(), 0).look(false).unwrap();
        assert!(ballast.exists());
    }
}

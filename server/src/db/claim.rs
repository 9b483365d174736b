//! One server per database: a lock beside the file, and the refusal of a database whose restore is not complete.

use super::DbError;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The right of this process, and of this one value in it, to use the database. Lost with it, also by `kill -9`.
pub struct Claim {
    path: PathBuf,
    _file: File,
}

/// What is open in this process: its own record locks do not keep a process from itself.
static OPEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The one path that names a file, however it was spelled. The file itself need not exist yet, its folder must.
pub(super) fn canonical(path: &Path) -> Result<PathBuf, DbError> {
    let wrong = |e: std::io::Error| DbError::Unusable(e.to_string());
    if path.symlink_metadata().is_ok() {
        return path.canonicalize().map_err(wrong);
    }
    let name = path.file_name().ok_or_else(|| DbError::Unusable("the path names no file".to_owned()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(folder.canonicalize().map_err(wrong)?.join(name))
}

impl Claim {
    /// Takes it, or says who has it. `path` is canonical.
    pub fn take(path: &Path) -> Result<Claim, DbError> {
        // Before any descriptor is opened: closing one would drop the locks that this process has.
        if !lock(&OPEN).insert(path.to_owned()) {
            return Err(in_use(""));
        }
        let taken = Claim::take_file(path);
        if taken.is_err() {
            lock(&OPEN).remove(path);
        }
        Ok(Claim { path: path.to_owned(), _file: taken? })
    }

    fn take_file(path: &Path) -> Result<File, DbError> {
        let name = beside(path, ".lock");
        let wrong = |e: std::io::Error| DbError::Unusable(format!("claiming it by {}: {e}", name.display()));
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&name).map_err(wrong)?;
        if !os::lock::try_lock(&file).map_err(wrong)? {
            let holder = os::lock::holder(&file).ok().flatten();
            return Err(in_use(&holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()));
        }
        // For its owner's eyes only: it holds the agents' secrets. SQLite gives its other files the same mode.
        match os::disk::create_new(path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(wrong(e)),
            Ok(_) | Err(_) => Ok(file),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&OPEN).remove(&self.path);
    }
}

fn in_use(by: &str) -> DbError {
    DbError::Unusable(format!(
        "another central-server{by} uses it. Stop that one first, or give this one a data_root of its own"
    ))
}

/// A file beside the database, named after it.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

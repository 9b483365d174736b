//! Files that were kept of a run: `files/` in its directory, flat. A file's name there is made of a hash of the name that people know, so
//! that no name of a job's choosing ever becomes a path.
//!
//! | beside the files | meaning                                                       | lost in a crash                              |
//! |------------------|---------------------------------------------------------------|----------------------------------------------|
//! | `new`            | a copy that is not whole                                      | overwritten                                  |
//! | `complete`       | no other file will come                                       | keeping begins again, see `capture`          |
//! | `stored`         | the server needs them no more: they may go like any output    | it was not promised: the server says it again |

use crate::root::RunDir;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// Characters of the hash in a file's name: enough that no two names of one run ever meet.
const HASH_CHARS: usize = 40;
/// Beside the files: no other one will come.
const COMPLETE: &str = "complete";
/// Beside the files: the server needs them no more.
const STORED: &str = "stored";
/// Beside the files: a copy that is not whole.
const NEW: &str = "new";

impl RunDir {
    /// The directory of the files that were kept.
    pub fn files(&self) -> PathBuf {
        self.path().join("files")
    }

    /// Where the kept file of that name stands.
    pub fn kept_file(&self, name: &str) -> PathBuf {
        let mut hash = hex(&Sha256::digest(name.as_bytes()));
        hash.truncate(HASH_CHARS);
        self.files().join(hash)
    }

    /// Where a file grows before it has its name.
    pub(crate) fn growing_file(&self) -> PathBuf {
        self.files().join(NEW)
    }

    /// Whether all files are there that will be; also if they were removed since.
    pub fn files_complete(&self) -> io::Result<bool> {
        Ok(!os::disk::exists(&self.files())? || os::disk::exists(&self.files().join(COMPLETE))?)
    }

    /// Durably: no other file will come.
    pub(crate) fn note_files_complete(&self) -> io::Result<()> {
        self.note(COMPLETE)
    }

    /// Durably: the server needs the files no more. Nothing if they are gone already.
    pub fn note_files_stored(&self) -> io::Result<()> {
        match self.note(STORED) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            noted => noted,
        }
    }

    /// Whether there is a file that the server still needs, or may need.
    pub fn has_unstored_files(&self) -> io::Result<bool> {
        let names = match os::disk::open_dir(&self.files()).and_then(os::disk::names) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            names => names?,
        };
        let is_file = |name: &String| ![COMPLETE, NEW].contains(&name.as_str());
        Ok(!names.iter().any(|name| name == STORED) && names.iter().any(is_file))
    }

    fn note(&self, what: &str) -> io::Result<()> {
        File::create(self.files().join(what))?.sync_all()?;
        os::disk::open_dir(&self.files()).and_then(os::disk::sync_dir)
    }

    /// Opens a kept file for reading; a symbolic link is not followed.
    pub fn open_kept_file(&self, name: &str) -> io::Result<File> {
        os::disk::open_plain(&self.kept_file(name))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

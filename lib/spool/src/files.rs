//! Files that were kept of a run: `files/` in its directory, flat. A file's name there is made of a hash of the name that people know, so
//! that no name of a job's choosing ever becomes a path.

use crate::root::RunDir;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// Characters of the hash in a file's name: enough that no two names of one run ever meet.
const HASH_CHARS: usize = 40;

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

    /// Opens a kept file for reading; a symbolic link is not followed.
    pub fn open_kept_file(&self, name: &str) -> io::Result<File> {
        os::disk::open_plain(&self.kept_file(name))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

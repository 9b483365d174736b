//! This program as a setuid root one: what it believes of its caller.
//!
//! | the caller says            | what is believed                                                                                   |
//! |----------------------------|----------------------------------------------------------------------------------------------------|
//! | the environment            | language and time zone; all else is forgotten before the first line of this file                     |
//! | a run's directory          | that its log is his: every file is opened with the caller's rights; data root and run must be his own |
//! | a user                     | the id; name, groups, home and shell are those of `/etc/passwd` and `/etc/group`, the list is asked anew |
//! | a control group            | nothing: it is made and entered with the caller's rights                                             |
//!
//! Who may call at all is said by the program's mode: 4750, root, and the agent's own group.

use job::users::User;
use spool::RunDir;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Checks the caller and the user that it asked for. The error is for people.
pub(crate) fn verify(dir: &RunDir, user: Option<&User>) -> Result<Option<User>, String> {
    let caller = os::process::real_uid();
    let root = dir.root().ok_or("the run directory is in no data root")?;
    for path in [root.path(), dir.path()] {
        check_own(path, caller)?;
    }
    user.map(|asked| verify_user(caller, asked)).transpose()
}

/// The user as this host's own files have it, if the list lets the caller have it.
pub(crate) fn verify_user(caller: u32, asked: &User) -> Result<User, String> {
    let program = std::env::current_exe().map_err(|e| format!("where is this program? {e}"))?;
    spool::users::verify(&program, caller, asked)
}

fn check_own(path: &Path, caller: u32) -> Result<(), String> {
    const OTHERS_WRITE: u32 = 0o022;
    let metadata = std::fs::symlink_metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let is_own = metadata.is_dir() && metadata.uid() == caller && metadata.mode() & OTHERS_WRITE == 0;
    if is_own && path.is_absolute() {
        return Ok(());
    }
    Err(format!(
        "{} is not the directory of user id {caller} alone, who started job-processor",
        path.display()
    ))
}

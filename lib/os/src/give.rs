//! Giving a file to the user of a job.

use crate::capability;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Makes `uid` the owner of what is at `path` and sets its mode; the group becomes this process's own, so that the agent can still read it. Only what
/// belongs to this process's user, has one name, and is no symbolic link is given: whoever could swap it for another gains nothing.
pub fn give(path: &Path, uid: u32, mode: u32) -> io::Result<()> {
    let ours = rustix::process::geteuid().as_raw();
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if stat.st_uid == uid && stat.st_mode & 0o7777 == mode {
        return Ok(()); // given before, by a launch that died half-way
    }
    if stat.st_uid != ours || !is_directory && stat.st_nlink != 1 {
        let what = format!("{} is not this process's own file", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    // As its owner, so no privilege is used; whatever the name means by now, it is the owner's.
    rustix::fs::chmod(path.as_os_str().as_bytes(), Mode::from_raw_mode(mode))?;
    let group = rustix::process::getegid();
    let owner = Some(rustix::fs::Uid::from_raw(uid));
    capability::with_chown(|| rustix::fs::chownat(&file, "", owner, Some(group), AtFlags::EMPTY_PATH))?;
    Ok(())
}

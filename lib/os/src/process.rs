//! What a process says about itself: reaper of orphans, limits, oom score, name of its own parent.

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes this process the reaper of all orphans among its descendants (`PR_SET_CHILD_SUBREAPER`).
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: prctl with these arguments reads no memory.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })
}

/// Raises the soft limit of open files to the hard one; returns the limit.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a pointer to a valid rlimit.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(limit.rlim_cur)
}

/// Asks the kernel's out-of-memory killer to take others first; needs privilege below 0, so an error is for the trace only.
pub fn set_oom_score_adj(score: i32) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
}

/// A new session, away from any terminal and from the parent's process group. An error if it leads one already.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// The user that this process acts as.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The user who started this program.
pub fn real_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Gives what standard input is, and puts `/dev/null` in its place.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    // SAFETY: both are numbers of open descriptors; what std has of standard input stays usable.
    check(unsafe { libc::dup2(null.as_raw_fd(), 0) })?;
    Ok(taken)
}

/// Puts `/dev/null` in the place of standard input and output, and `errors` in that of standard error.
pub fn replace_stdio(errors: &File) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for (number, file) in [&null, &null, errors].into_iter().enumerate() {
        // SAFETY: both are numbers of open descriptors; what std has of the standard files stays usable.
        check(unsafe { libc::dup2(file.as_raw_fd(), number as i32) })?;
    }
    Ok(())
}

/// Lets the command begin in a session of its own: no terminal is its, and nobody's process group.
pub fn in_new_session(command: &mut Command) {
    // SAFETY: in the child between fork and exec this makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?));
    }
}

/// What this host calls itself (`uname(2)`).
#[derive(Clone, Debug)]
pub struct HostName {
    /// The host's name.
    pub node: String,
    /// `Linux`.
    pub system: String,
    /// The kernel's release.
    pub release: String,
    /// The machine.
    pub machine: String,
}

/// Asks `uname(2)`.
pub fn uname() -> HostName {
    let name = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    HostName {
        node: text(name.nodename()),
        system: text(name.sysname()),
        release: text(name.release()),
        machine: text(name.machine()),
    }
}

/// Closes every descriptor from 3 on (`close_range(2)`, Linux ≥ 5.9): what whoever started this program left open would stay open as long as it
/// runs. Call it first in `main`, before anything of ours is open.
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: at the beginning of `main` nobody owns a descriptor from 3 on.
    check(unsafe { libc::close_range(3, libc::c_uint::MAX, 0) })
}

/// Takes a descriptor that the program before an `exec` left open for this one; it is not inherited any further. Each may be taken once.
pub fn take_inherited(fd: i32) -> io::Result<OwnedFd> {
    if fd < 3 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: F_GETFD reads no memory; it fails for a number that is no open descriptor.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: it is open, and whoever handed its number over says that it is ours.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set_inherited(&fd, false)?;
    Ok(fd)
}

/// Whether a descriptor stays open over an `exec`.
pub fn set_inherited(fd: impl AsFd, inherited: bool) -> io::Result<()> {
    let flags = if inherited { FdFlags::empty() } else { FdFlags::CLOEXEC };
    Ok(fcntl_setfd(fd, flags)?)
}

/// A file in memory without a name, closed by `exec` unless [`set_inherited`] says otherwise.
pub fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

pub(crate) fn check(result: i32) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

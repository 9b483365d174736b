//! What a process says about itself: reaper of orphans, limits, oom score, name of its own parent.

use std::io;

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

pub(crate) fn check(result: i32) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

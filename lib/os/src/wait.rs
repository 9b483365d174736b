//! `waitid(2)` in two steps: look at how a child ended while it stays a zombie, record that, then reap it. Whoever dies in
//! between leaves the zombie to the next witness.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// How a child ended, as `waitid` with `WNOWAIT` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// The child.
    pub pid: u32,
    /// As `wait(2)` encodes it.
    pub wait_status: i32,
    /// What it used.
    pub rusage: Rusage,
}

/// What a child and the descendants that it waited for used (`getrusage(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rusage {
    /// CPU time in user mode, milliseconds.
    pub user_ms: u64,
    /// CPU time in the kernel, milliseconds.
    pub system_ms: u64,
    /// Largest resident set, KiB.
    pub max_rss_kib: u64,
    /// Read from devices.
    pub read_bytes: u64,
    /// Written to devices.
    pub written_bytes: u64,
    /// Voluntary and involuntary.
    pub context_switches: u64,
}

/// Looks at an ended child of ours by its pidfd without reaping it. `None`: it runs.
pub fn peek(pidfd: &crate::pidfd::Pidfd) -> io::Result<Option<Waited>> {
    waitid(libc::P_PIDFD, pidfd.as_raw_fd().unsigned_abs(), libc::WEXITED | libc::WNOWAIT | libc::WNOHANG)
}

/// Looks at any ended child without reaping it. `None`: none has ended.
pub fn peek_any() -> io::Result<Option<Waited>> {
    waitid(libc::P_ALL, 0, libc::WEXITED | libc::WNOWAIT | libc::WNOHANG)
}

/// Reaps an ended child of ours. `None`: it runs.
pub fn reap(pid: u32) -> io::Result<Option<Waited>> {
    waitid(libc::P_PID, pid, libc::WEXITED | libc::WNOHANG)
}

/// The same by its pidfd: of a child that somebody else reaped, nobody with its number is reaped.
pub fn reap_held(pidfd: &crate::pidfd::Pidfd) -> io::Result<Option<Waited>> {
    waitid(libc::P_PIDFD, pidfd.as_raw_fd().unsigned_abs(), libc::WEXITED | libc::WNOHANG)
}

fn waitid(idtype: libc::idtype_t, id: u32, options: i32) -> io::Result<Option<Waited>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // The raw call, since libc's waitid has no rusage.
    loop {
        // SAFETY: both pointers are to zeroed values of the types that the kernel fills.
        let done = unsafe {
            libc::syscall(libc::SYS_waitid, idtype, id, info.as_mut_ptr(), options, usage.as_mut_ptr())
        };
        if done == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: zeroed before, and the kernel wrote whole values or nothing.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    // SAFETY: for a SIGCHLD siginfo (all that waitid writes) these fields are the ones in use; zeroed if nothing was written.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let wait_status = match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    };
    Ok(Some(Waited { pid: pid.unsigned_abs(), wait_status, rusage: rusage(&usage) }))
}

fn rusage(usage: &libc::rusage) -> Rusage {
    /// The unit of `ru_inblock` and `ru_oublock`, whatever the device's own is.
    const BLOCK_BYTES: u64 = 512;
    let ms = |t: libc::timeval| t.tv_sec.unsigned_abs() * 1000 + t.tv_usec.unsigned_abs() / 1000;
    Rusage {
        user_ms: ms(usage.ru_utime),
        system_ms: ms(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss.unsigned_abs(),
        read_bytes: usage.ru_inblock.unsigned_abs() * BLOCK_BYTES,
        written_bytes: usage.ru_oublock.unsigned_abs() * BLOCK_BYTES,
        context_switches: usage.ru_nvcsw.unsigned_abs() + usage.ru_nivcsw.unsigned_abs(),
    }
}

/// Whether the error says that there is no such child (any more).
pub fn is_no_child(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECHILD)
}

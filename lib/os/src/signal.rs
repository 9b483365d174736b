//! Signals: as descriptors for loops that poll, and by name for people.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub use rustix::process::Signal;

/// Blocks these signals for this thread (call it before others start) and gives a non-blocking descriptor that becomes readable when
/// one arrives (`signalfd(2)`). One that whoever started this program ignores would never arrive, and with an ignored `SIGCHLD` the kernel reaps
/// every child unseen; so they get their default disposition, which has no effect while they are blocked.
pub fn descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before it is used; the descriptor returned is new and ours.
    unsafe {
        crate::process::check(libc::sigemptyset(set.as_mut_ptr()))?;
        for signal in signals {
            crate::process::check(libc::sigaddset(set.as_mut_ptr(), *signal))?;
        }
        crate::process::check(libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()))?;
        restore(signals);
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        crate::process::check(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Blocks no signal any more in this thread (call it before others start): a program begins with what its parent had blocked.
pub fn unblock_all() -> io::Result<()> {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before it is used.
    unsafe {
        crate::process::check(libc::sigemptyset(none.as_mut_ptr()))?;
        crate::process::check(libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()))
    }
}

/// Takes the next signal off the descriptor.
pub fn next(descriptor: &OwnedFd) -> io::Result<Option<i32>> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer has the size that is given.
    let got = unsafe { libc::read(descriptor.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if got == -1 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    }
    // SAFETY: zeroed before, so any number of bytes that were read leaves a valid value.
    let signal = unsafe { info.assume_init() }.ssi_signo;
    Ok(i32::try_from(signal).ok())
}

/// Ignores these signals in this process. A gated child resets them.
pub fn ignore(signals: &[i32]) {
    for signal in signals {
        // SAFETY: SIG_IGN is a valid disposition for every catchable signal; for others the call fails without effect.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// Gives these signals their default disposition back: one that whoever started this program ignores is ignored in it too, and with an ignored `SIGCHLD`
/// the kernel reaps every child unseen.
pub fn restore(signals: &[i32]) {
    for signal in signals {
        // SAFETY: SIG_DFL is a valid disposition for every signal.
        unsafe { libc::signal(*signal, libc::SIG_DFL) };
    }
}

/// `SIGKILL` for 9, `signal 99` for one without a name.
pub fn name(signal: u8) -> String {
    const NAMES: [&str; 32] = [
        "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU",
        "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match NAMES.get(usize::from(signal)) {
        Some(name) if !name.is_empty() => format!("SIG{name}"),
        _ => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const INNER: &str = "OS_TEST_SIGCHLD_IGNORED";

    #[test]
    fn children_can_be_waited_for_though_the_starter_ignored_their_end() {
        const CHLD: i32 = 17;
        if std::env::var_os(INNER).is_some() {
            let status = || Command::new("/bin/sh").args(["-c", "exit 7"]).status();
            ignore(&[CHLD]);
            assert!(status().is_err(), "nobody is told how it ended");
            let _descriptor = descriptor(&[CHLD]).unwrap();
            return assert_eq!(status().unwrap().code(), Some(7));
        }
        let name = "signal::tests::children_can_be_waited_for_though_the_starter_ignored_their_end";
        let us = std::env::current_exe().unwrap();
        let ran = Command::new(us).args(["--exact", name, "--nocapture"]).env(INNER, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    }
}

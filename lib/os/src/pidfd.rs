//! Pidfds (`pidfd_open(2)`): a process by descriptor, so that a signal never hits a stranger who got a used pid.

use crate::procfs;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A process.
#[derive(Debug)]
pub struct Pidfd {
    fd: OwnedFd,
}

/// What names a process for ever, together with the boot id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// Inode of its pidfd; 0 on kernels before 6.9, where pidfds share one inode.
    pub pidfd_inode: u64,
}

impl Pidfd {
    /// Opens the process that has this pid now; `None` if there is none.
    pub fn open(pid: u32) -> io::Result<Option<Pidfd>> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Pidfd { fd })),
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Opens the process of that identity and no other; `None` if it is gone.
    pub fn open_checked(identity: &Identity) -> io::Result<Option<Pidfd>> {
        let Some(pidfd) = Pidfd::open(identity.pid)? else { return Ok(None) };
        if identity.pidfd_inode != 0 && pidfd.inode()? != identity.pidfd_inode {
            return Ok(None);
        }
        // The start time is read after the pidfd was opened: if they fit, the descriptor is of that process.
        let stat = procfs::stat(identity.pid)?;
        Ok(stat.filter(|s| s.start_ticks == identity.start_ticks).map(|_| pidfd))
    }

    /// Wraps a descriptor that came from `clone3` or from another process.
    pub fn from_fd(fd: OwnedFd) -> Pidfd {
        Pidfd { fd }
    }

    /// Another descriptor of the same process.
    pub fn try_clone(&self) -> io::Result<Pidfd> {
        Ok(Pidfd { fd: self.fd.try_clone()? })
    }

    /// The inode on pidfs, 0 where the kernel has no pidfs (before 6.9 all pidfds have the same anonymous inode).
    pub fn inode(&self) -> io::Result<u64> {
        const PID_FS_MAGIC: u64 = 0x5049_4446;
        if rustix::fs::fstatfs(&self.fd)?.f_type as u64 != PID_FS_MAGIC {
            return Ok(0);
        }
        Ok(rustix::fs::fstat(&self.fd)?.st_ino)
    }

    /// Sends a signal to the process. `false`: it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether the process ended (it may still be a zombie).
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut fds = [rustix::event::PollFd::new(&self.fd, rustix::event::PollFlags::IN)];
        loop {
            match rustix::event::poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(n) => return Ok(n > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Whether nobody can wait for the process any more: its parent did. Until then an ended process is a zombie, and its pid its own.
    pub fn is_reaped(&self) -> io::Result<bool> {
        let none: *const libc::siginfo_t = std::ptr::null();
        // SAFETY: signal 0 is only a question; no memory is involved.
        let asked = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), 0 as libc::c_int, none, 0)
        };
        match (asked, io::Error::last_os_error()) {
            (0, _) => Ok(false),
            (_, e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(true),
            (_, e) if e.raw_os_error() == Some(libc::EPERM) => Ok(false), // it is there, and another user's
            (_, e) => Err(e),
        }
    }

    /// The wait status of the ended process, if anybody can still tell: the kernel after somebody reaped it (`PIDFD_GET_INFO`, Linux
    /// ≥ 6.15), or `/proc` while it is a zombie. `pid` is used for the latter and must be the process of this pidfd.
    pub fn wait_status(&self, pid: u32) -> io::Result<Option<i32>> {
        if !self.has_ended()? {
            return Ok(None);
        }
        if let Some(status) = self.exit_info()? {
            return Ok(Some(status));
        }
        // A zombie that nobody reaped yet. Its pid cannot be taken by another while it is one; reading the exit information
        // once more afterwards decides the race with a reaper.
        let zombie = procfs::stat(pid)?.filter(|s| s.state == b'Z').map(|s| s.wait_status);
        match self.exit_info()? {
            Some(status) => Ok(Some(status)),
            None if may_trace(pid) => Ok(zombie),
            None => Ok(None),
        }
    }

    fn exit_info(&self) -> io::Result<Option<i32>> {
        const PIDFD_INFO_EXIT: u64 = 1 << 3;
        let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
        // SAFETY: the ioctl writes at most 64 bytes, the size that its number carries, into `info`, which has that size.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
        if done == 0 {
            return Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // before 6.13 no such ioctl; before 6.15, or reaped without information: no such process
            Some(libc::ENOTTY | libc::EINVAL | libc::ESRCH | libc::EOPNOTSUPP) => Ok(None),
            _ => Err(error),
        }
    }
}

/// `struct pidfd_info` of linux/pidfd.h, its first published size (64 bytes).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl =
    (3 << 30 | (size_of::<PidfdInfo>() as libc::Ioctl) << 16 | 0xff << 8 | 11) as libc::Ioctl;

/// Whether `/proc/PID/stat` shows us the true wait status (root, or the same user).
fn may_trace(pid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let euid = rustix::process::geteuid().as_raw();
    euid == 0 || std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == euid)
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_reaped_process_tells_its_exit_code_to_whoever_holds_its_pidfd() {
        let mut child = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pidfd = Pidfd::open(child.id()).unwrap().unwrap();
        child.wait().unwrap();
        match pidfd.wait_status(child.id()).unwrap() {
            Some(status) => assert_eq!(status, 7 << 8),
            None => eprintln!("this kernel keeps no exit information (before 6.15): not tried"),
        }
        assert!(!pidfd.signal(Signal::TERM).unwrap());
    }

    #[test]
    fn a_zombie_tells_its_exit_code() {
        let mut child = Command::new("/bin/sh").args(["-c", "kill -9 $$"]).spawn().unwrap();
        let pidfd = Pidfd::open(child.id()).unwrap().unwrap();
        rustix::event::poll(&mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)], None)
            .unwrap();
        assert_eq!(pidfd.wait_status(child.id()).unwrap(), Some(9));
        assert!(!pidfd.is_reaped().unwrap());
        child.wait().unwrap();
        assert!(pidfd.is_reaped().unwrap());
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_taken_for_it() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let stat = procfs::stat(pid).unwrap().unwrap();
        let inode = Pidfd::open(pid).unwrap().unwrap().inode().unwrap();
        let right = Identity { pid, start_ticks: stat.start_ticks, pidfd_inode: inode };
        assert!(Pidfd::open_checked(&right).unwrap().is_some());
        assert!(
            Pidfd::open_checked(&Identity { start_ticks: stat.start_ticks + 1, ..right }).unwrap().is_none()
        );
        if inode != 0 {
            assert!(Pidfd::open_checked(&Identity { pidfd_inode: inode + 1, ..right }).unwrap().is_none());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Pidfd::open_checked(&right).unwrap().is_none());
    }
}

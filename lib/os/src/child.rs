//! The gated child: a process that is ready to be a program, and waits for the word.
//!
//! ```text
//!  spawn ──▶ child: session, signals, files ──▶ reads the gate
//!                                                     one byte: limits, user, directory, execve ──▶ the program runs
//!                                                     end of file (the parent died or dropped it): _exit, nothing was executed
//! ```
//!
//! What fails in the child (no such directory, no such program) comes back over the gate's socket as a stage and an errno; on success the
//! socket closes with exec. A child that failed stays until the parent has written that down and closes the gate. In both cases the exit code of
//! the child means nothing, and the parent may be dead: so the child leaves a [`Farewell`] where the parent would have written.

pub(crate) mod attributes;
mod body;
mod stage;

pub use attributes::{Attributes, Credentials, Limit};
pub use stage::STAGE_NAME_DIRECTORY;

use crate::pidfd::Pidfd;
use crate::process::check;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What to execute, ready for a child that may not allocate.
#[derive(Debug)]
pub struct Program {
    /// Candidates for the path of the executable, tried in order while the error is `ENOENT` or `EACCES` (the search in `PATH`).
    pub paths: Vec<CString>,
    /// Arguments with the program's name.
    pub arguments: Vec<CString>,
    /// Environment, `NAME=value`.
    pub environment: Vec<CString>,
    /// Working directory.
    pub directory: CString,
    /// What else its process is given.
    pub attributes: Attributes,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// The control group to be born in (a descriptor of its directory).
    pub cgroup: Option<OwnedFd>,
    /// What the child itself writes down if its gate closes without a word.
    pub farewell: Option<Farewell>,
}

/// What only the child can truthfully write when its parent is gone: that nothing was executed. It is written in place and synced, if this very
/// child was announced (nobody will ask for another, and what was announced later is of a successor of the parent, whose child may be running),
/// and nothing yet at `at`.
#[derive(Debug)]
pub struct Farewell {
    /// The file, open for reading and writing.
    pub file: RawFd,
    /// Where a start is announced.
    pub announced_at: u64,
    /// Of which process the announcement is.
    pub announced: Announced,
    /// Where; written only if the eight bytes here are all zero.
    pub at: u64,
    /// What, if the gate closes without a word.
    pub unexecuted: Vec<u8>,
    /// What, if the word came and the program could not be executed.
    pub failed: Vec<u8>,
}

/// Whether what stands in these [`ANNOUNCEMENT_BYTES`] announces the process with this id. It is asked in a fork, so it may only look: no memory
/// is allocated, no lock taken.
pub type Announces = dyn Fn(&[u8], u32) -> bool;

/// Reads an announcement.
pub struct Announced(pub Box<Announces>);

/// So much is read of an announcement.
pub const ANNOUNCEMENT_BYTES: usize = 4096;

impl std::fmt::Debug for Announced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Announced")
    }
}

/// The child before its gate.
#[derive(Debug)]
pub struct Gated {
    /// Its process id.
    pub pid: u32,
    /// Its descriptor.
    pub pidfd: Pidfd,
    gate: OwnedFd,
}

/// What the child could not do. The child stays, and with it the evidence, until this is dropped.
#[derive(Debug, thiserror::Error)]
#[error("{stage}: {source}")]
pub struct ChildError {
    /// What was tried.
    pub stage: &'static str,
    /// What the system said.
    pub source: io::Error,
    /// Holds the child.
    gate: OwnedFd,
}

impl Gated {
    /// Makes the child. Where the kernel cannot make it in the control group (before 5.7, or no permission), it is made outside and the
    /// second value is `false`. Call it from a process with one thread.
    pub fn spawn(program: &Program) -> io::Result<(Gated, bool)> {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let arguments = pointers(&program.arguments);
        let environment = pointers(&program.environment);
        let mut in_cgroup = program.cgroup.is_some();
        let mut made = clone(program.cgroup.as_ref());
        if in_cgroup && made.is_err() {
            in_cgroup = false;
            made = clone(None);
        }
        match made? {
            Cloned::Child => {
                // SAFETY: this is the new child, with one thread; `run_child` uses async-signal-safe calls only.
                unsafe {
                    body::run_child(program, &arguments, &environment, ours.as_raw_fd(), theirs.as_raw_fd())
                }
            }
            Cloned::Parent { pid, pidfd } => Ok((Gated { pid, pidfd, gate: ours }, in_cgroup)),
        }
    }

    /// Gives the word and waits until the program runs, or until the child said why it cannot.
    pub fn open(self) -> Result<Pidfd, (ChildError, Pidfd)> {
        let Gated { pidfd, gate, .. } = self;
        // A child that was killed meanwhile makes this fail with EPIPE: its end tells the rest.
        let _ = rustix::net::send(&gate, b"g", rustix::net::SendFlags::NOSIGNAL);
        let mut report = [0u8; 5];
        let mut filled = 0;
        while filled < report.len() {
            match rustix::io::retry_on_intr(|| rustix::io::read(&gate, &mut report[filled..])) {
                Ok(0) | Err(rustix::io::Errno::CONNRESET) => break,
                Ok(n) => filled += n,
                Err(e) => {
                    return Err((ChildError { stage: "open the start gate", source: e.into(), gate }, pidfd));
                }
            }
        }
        if filled < report.len() {
            return Ok(pidfd); // closed by exec, or by a death that the wait will tell
        }
        let [stage, errno @ ..] = report;
        let stage = stage::name(stage);
        Err((
            ChildError { stage, source: io::Error::from_raw_os_error(i32::from_ne_bytes(errno)), gate },
            pidfd,
        ))
    }
}

enum Cloned {
    Child,
    Parent { pid: u32, pidfd: Pidfd },
}

/// `clone3(2)` as fork: with a pidfd, and into a control group without the cost of a migration.
fn clone(cgroup: Option<&OwnedFd>) -> io::Result<Cloned> {
    let mut pidfd: i32 = -1;
    let mut arguments = libc::clone_args {
        flags: libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = cgroup {
        const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000; // libc's own does not fit its type
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM this is a fork: the child has a copy of everything. The size given is that of the structure.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: the kernel made this descriptor for us.
            let pidfd = Pidfd::from_fd(unsafe { OwnedFd::from_raw_fd(pidfd) });
            Ok(Cloned::Parent { pid: u32::try_from(pid).unwrap_or(0), pidfd })
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Sends a signal to the process group of a child that was not reaped yet, so that the number is surely still its own.
pub fn signal_group(unreaped_leader: u32, signal: i32) -> io::Result<()> {
    let group = i32::try_from(unreaped_leader).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(-group, signal) })
}

#[cfg(test)]
mod tests;

//! The gated child: a process that is ready to be a program, and waits for the word.
//!
//! ```text
//!  spawn ──▶ child: session, signals, limits, directory, files ──▶ reads the gate
//!                                                     one byte: execve ──▶ the program runs
//!                                                     end of file (the parent died or dropped it): _exit, nothing was executed
//! ```
//!
//! What fails in the child (no such directory, no such program) comes back over the gate's socket as a stage and an errno; on success the
//! socket closes with exec. A child that failed stays until the parent has written that down and closes the gate. In both cases the exit code of
//! the child means nothing, and the parent may be dead: so the child leaves a [`Farewell`] where the parent would have written.

use crate::pidfd::Pidfd;
use crate::process::check;
use std::ffi::{CStr, CString};
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
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// The control group to be born in (a descriptor of its directory).
    pub cgroup: Option<OwnedFd>,
    /// What the child itself writes down if its gate closes without a word.
    pub farewell: Option<Farewell>,
}

/// What only the child can truthfully write when its parent is gone: that nothing was executed. It is written in place and synced, if there is
/// something at `announced_at` (otherwise nobody will ask) and nothing yet at `at`.
#[derive(Debug)]
pub struct Farewell {
    /// The file, open for writing.
    pub file: RawFd,
    /// Written only if the eight bytes here are not all zero: the start was announced.
    pub announced_at: u64,
    /// Where; written only if the eight bytes here are all zero.
    pub at: u64,
    /// What, if the gate closes without a word.
    pub unexecuted: Vec<u8>,
    /// What, if the word came and the program could not be executed.
    pub failed: Vec<u8>,
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

/// The stage in which the working directory could not be entered.
pub const STAGE_NAME_DIRECTORY: &str = "change to the working directory";
const STAGES: [&str; 4] =
    ["begin a new session", STAGE_NAME_DIRECTORY, "set up standard input, output and error", "execute"];
const STAGE_SESSION: u8 = 0;
const STAGE_DIRECTORY: u8 = 1;
const STAGE_STDIO: u8 = 2;
const STAGE_EXECUTE: u8 = 3;

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
                unsafe { run_child(program, &arguments, &environment, ours.as_raw_fd(), theirs.as_raw_fd()) }
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
        let stage = STAGES.get(usize::from(stage)).copied().unwrap_or("set up the child");
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

/// The child's life before exec.
///
/// # Safety
/// Only in a fresh fork; allocates nothing, takes no lock, does not return.
unsafe fn run_child(
    program: &Program,
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
    parents_end: i32,
    gate: i32,
) -> ! {
    // SAFETY: every call below is async-signal-safe (signal-safety(7)) and gets valid pointers that live in this frame's arguments.
    unsafe {
        libc::close(parents_end); // else our own copy would keep the gate from closing when the parent dies
        reset_signals();
        if libc::setsid() == -1 {
            fail_at_gate(gate, STAGE_SESSION, program.farewell.as_ref());
        }
        // Inherited protection from the out-of-memory killer is not for jobs; best effort.
        write_file(c"/proc/self/oom_score_adj", b"0");
        if libc::chdir(program.directory.as_ptr()) == -1 {
            fail_at_gate(gate, STAGE_DIRECTORY, program.farewell.as_ref());
        }
        for (target, source) in program.stdio.iter().enumerate() {
            let target = target as i32;
            // dup2 onto itself would keep close-on-exec
            let done = if source.as_raw_fd() == target {
                libc::fcntl(target, libc::F_SETFD, 0)
            } else {
                libc::dup2(source.as_raw_fd(), target)
            };
            if done == -1 {
                fail_at_gate(gate, STAGE_STDIO, program.farewell.as_ref());
            }
        }
        wait_at(gate, program.farewell.as_ref());
        // The gate and all else closes on exec, also what the agent itself inherited from whoever started it (Linux 5.11; before, that stays open).
        libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        let mut errno = libc::ENOENT;
        for path in &program.paths {
            libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            let this = *libc::__errno_location();
            if this == libc::ENOEXEC {
                exec_shell(path, arguments, environment);
            }
            if this != libc::ENOENT && this != libc::ENOTDIR || errno == libc::ENOENT {
                errno = this;
            }
            if this != libc::ENOENT && this != libc::EACCES && this != libc::ENOTDIR {
                break;
            }
        }
        *libc::__errno_location() = errno;
        fail(gate, STAGE_EXECUTE, program.farewell.as_ref())
    }
}

/// A file without `#!` is run by the shell, as `execvp(3)` does. The argument list is bounded so that it fits a fixed array.
unsafe fn exec_shell(path: &CStr, arguments: &[*const libc::c_char], environment: &[*const libc::c_char]) {
    const ARGUMENTS_MAX: usize = 255;
    let mut list = [std::ptr::null::<libc::c_char>(); ARGUMENTS_MAX + 3];
    list[0] = c"/bin/sh".as_ptr();
    list[1] = path.as_ptr();
    let rest = arguments.get(1..).unwrap_or_default(); // with the closing null
    if rest.len() > ARGUMENTS_MAX {
        return;
    }
    list[2..2 + rest.len()].copy_from_slice(rest);
    // SAFETY: all pointers are valid and both lists end with a null.
    unsafe { libc::execve(c"/bin/sh".as_ptr(), list.as_ptr(), environment.as_ptr()) };
}

unsafe fn reset_signals() {
    // SAFETY: default dispositions and an empty mask are always valid; failures for SIGKILL, SIGSTOP and libc's own are without effect.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

unsafe fn write_file(path: &CStr, content: &[u8]) {
    // SAFETY: valid path and buffer; the result is not needed.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd != -1 {
            libc::write(fd, content.as_ptr().cast(), content.len());
            libc::close(fd);
        }
    }
}

/// Returns when the word came; ends the child when it will never come.
unsafe fn wait_at(gate: i32, farewell: Option<&Farewell>) {
    // SAFETY: system calls only; ends without running anything of the parent's.
    unsafe {
        if !read_word(gate) {
            if let Some(farewell) = farewell {
                say_farewell(farewell, &farewell.unexecuted);
            }
            libc::_exit(125)
        }
    }
}

/// Reads one byte; `false` at the end of the gate.
unsafe fn read_word(gate: i32) -> bool {
    let mut word = 0u8;
    loop {
        // SAFETY: one byte into one byte.
        match unsafe { libc::read(gate, (&raw mut word).cast(), 1) } {
            1 => return true,
            -1 if std::io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return false,
        }
    }
}

unsafe fn say_farewell(farewell: &Farewell, words: &[u8]) {
    // SAFETY: the buffers are as long as is said; the descriptor is the parent's, inherited.
    unsafe {
        if is_filled(farewell.file, farewell.announced_at) && !is_filled(farewell.file, farewell.at) {
            libc::pwrite(farewell.file, words.as_ptr().cast(), words.len(), farewell.at as libc::off_t);
            libc::fdatasync(farewell.file);
        }
    }
}

/// Whether the eight bytes there are not all zero.
unsafe fn is_filled(file: i32, at: u64) -> bool {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer is as long as is said.
    let got = unsafe { libc::pread(file, bytes.as_mut_ptr().cast(), bytes.len(), at as libc::off_t) };
    got == bytes.len() as isize && bytes != [0; 8]
}

/// Fails with the errno of now, but not before the word came.
unsafe fn fail_at_gate(gate: i32, stage: u8, farewell: Option<&Farewell>) -> ! {
    // SAFETY: as the functions that it calls.
    unsafe {
        let errno = *libc::__errno_location();
        wait_at(gate, farewell);
        *libc::__errno_location() = errno;
        fail(gate, stage, farewell)
    }
}

/// Reports the stage and errno, waits until the parent has written that down (or is gone), then ends.
unsafe fn fail(gate: i32, stage: u8, farewell: Option<&Farewell>) -> ! {
    // SAFETY: errno's location is always valid; the buffer is on the stack; system calls only.
    unsafe {
        let errno = (*libc::__errno_location()).to_ne_bytes();
        let report = [stage, errno[0], errno[1], errno[2], errno[3]];
        libc::write(gate, report.as_ptr().cast(), report.len());
        while read_word(gate) {}
        if let Some(farewell) = farewell {
            say_farewell(farewell, &farewell.failed);
        }
        libc::_exit(125)
    }
}

/// Sends a signal to the process group of a child that was not reaped yet, so that the number is surely still its own.
pub fn signal_group(unreaped_leader: u32, signal: i32) -> io::Result<()> {
    let group = i32::try_from(unreaped_leader).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(-group, signal) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::fs::File;
    use std::io::Read;
    use std::path::Path;

    fn program(path: &str, arguments: &[&str], directory: &Path, out: &Path) -> Program {
        let c = |s: &str| CString::new(s).unwrap();
        let file = |p: &str| OwnedFd::from(File::options().read(true).write(true).open(p).unwrap());
        Program {
            paths: vec![c(path)],
            arguments: [path].iter().chain(arguments).map(|s| c(s)).collect(),
            environment: vec![c("GREETING=hello")],
            directory: c(directory.to_str().unwrap()),
            stdio: [file("/dev/null"), File::create(out).unwrap().into(), file("/dev/null")],
            cgroup: None,
            farewell: None,
        }
    }

    fn end(pid: u32, pidfd: &Pidfd) -> i32 {
        rustix::event::poll(&mut [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)], None)
            .unwrap();
        let seen = wait::peek(pidfd).unwrap().unwrap();
        assert_eq!(wait::reap(pid).unwrap().unwrap().wait_status, seen.wait_status);
        seen.wait_status
    }

    #[test]
    fn nothing_is_executed_before_the_gate_opens() {
        let dir = tempfile::tempdir().unwrap();
        let (mark, out) = (dir.path().join("mark"), dir.path().join("out"));
        let touch = format!("echo $GREETING; : > {}; exit 7", mark.display());
        let (gated, _) = Gated::spawn(&program("/bin/sh", &["-c", &touch], dir.path(), &out)).unwrap();
        // Its own end of the socket shows that it waits: it sleeps in read, and the mark is not there.
        assert!(!mark.exists());
        let pid = gated.pid;
        let pidfd = gated.open().unwrap();
        assert_eq!(end(pid, &pidfd), 7 << 8);
        assert!(mark.exists());
        let mut text = String::new();
        File::open(out).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\n");
    }

    #[test]
    fn a_gate_that_closes_without_a_word_ends_the_child_unexecuted() {
        let dir = tempfile::tempdir().unwrap();
        let (mark, out) = (dir.path().join("mark"), dir.path().join("out"));
        let touch = format!(": > {}", mark.display());
        let (gated, _) = Gated::spawn(&program("/bin/sh", &["-c", &touch], dir.path(), &out)).unwrap();
        let (pid, pidfd) = (gated.pid, Pidfd::open(gated.pid).unwrap().unwrap());
        drop(gated);
        assert_eq!(end(pid, &pidfd), 125 << 8);
        assert!(!mark.exists());
    }

    /// What stands in the note after a child with farewells went, `announced` or not, with what stood there `before`.
    fn farewell_of(path: &str, announced: bool, before: &[u8], open: bool) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().unwrap();
        let (out, note_path) = (dir.path().join("out"), dir.path().join("note"));
        let note = File::options().read(true).write(true).create_new(true).open(&note_path).unwrap();
        note.set_len(64).unwrap();
        let farewell = Farewell {
            file: note.as_raw_fd(),
            announced_at: 0,
            at: 32,
            unexecuted: b"unexecuted".to_vec(),
            failed: b"failed".to_vec(),
        };
        let program = Program { farewell: Some(farewell), ..program(path, &[], dir.path(), &out) };
        let (gated, _) = Gated::spawn(&program).unwrap();
        if announced {
            note.write_all_at(b"x", 3).unwrap();
        }
        note.write_all_at(before, 32).unwrap();
        let (pid, watcher) = (gated.pid, Pidfd::open(gated.pid).unwrap().unwrap());
        if open {
            // The error holds the child until it is dropped: as if the parent died before it wrote anything down.
            assert!(!gated.open().unwrap_err().1.has_ended().unwrap());
        } else {
            drop(gated);
        }
        end(pid, &watcher);
        let text = std::fs::read(&note_path).unwrap()[32..].to_vec();
        text.into_iter().take_while(|b| *b != 0).collect()
    }

    #[test]
    fn a_child_whose_gate_closes_writes_that_it_never_executed_if_it_was_announced() {
        assert_eq!(farewell_of("/bin/true", true, b"", false), b"unexecuted");
        assert_eq!(farewell_of("/bin/true", false, b"", false), b"");
        assert_eq!(farewell_of("/bin/true", true, b"ended", false), b"ended");
    }

    #[test]
    fn a_child_that_cannot_execute_writes_so_if_its_parent_did_not() {
        assert_eq!(farewell_of("/no/such/program", true, b"", true), b"failed");
        assert_eq!(farewell_of("/no/such/program", true, b"ended", true), b"ended");
    }

    #[test]
    fn what_cannot_be_executed_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let (gated, _) = Gated::spawn(&program("/no/such/program", &[], dir.path(), &out)).unwrap();
        let (error, _) = gated.open().unwrap_err();
        assert_eq!((error.stage, error.source.raw_os_error()), ("execute", Some(libc::ENOENT)));
        let (gated, _) = Gated::spawn(&program("/bin/true", &[], Path::new("/no/such/dir"), &out)).unwrap();
        let (error, _) = gated.open().unwrap_err();
        assert_eq!(
            (error.stage, error.source.raw_os_error()),
            ("change to the working directory", Some(libc::ENOENT))
        );
    }

    #[test]
    fn a_file_without_an_interpreter_line_is_run_by_the_shell() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (script, out) = (dir.path().join("script"), dir.path().join("out"));
        std::fs::write(&script, "exit $1\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        let (gated, _) = Gated::spawn(&program(script.to_str().unwrap(), &["9"], dir.path(), &out)).unwrap();
        let pid = gated.pid;
        let pidfd = gated.open().unwrap();
        assert_eq!(end(pid, &pidfd), 9 << 8);
    }
}

//! The child's own life, from the fork to the exec: system calls only, nothing allocated, no lock taken (signal-safety(7)).

use super::attributes;
use super::stage::{self, Stage};
use super::{ANNOUNCEMENT_BYTES, Farewell, Program};
use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;

/// The child's life before exec.
///
/// # Safety
/// Only in a fresh fork; allocates nothing, takes no lock, does not return.
pub(super) unsafe fn run_child(
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
            fail_at_gate(gate, stage::SESSION, program.farewell.as_ref());
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
                fail_at_gate(gate, stage::STDIO, program.farewell.as_ref());
            }
        }
        wait_at(gate, program.farewell.as_ref());
        // The gate and all else closes on exec, also what the agent itself inherited from whoever started it (Linux 5.11; before, that stays open).
        libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        let farewell = program.farewell.as_ref();
        // Before a limit of the size of files can forbid to write there.
        let window = farewell.filter(|_| attributes::limit_file_size(&program.attributes)).and_then(map);
        let stage = match attributes::apply(&program.attributes) {
            // As the user that the job is: nobody enters by the agent's rights.
            Ok(()) if libc::chdir(program.directory.as_ptr()) == -1 => stage::DIRECTORY,
            Ok(()) => {
                execute(program, arguments, environment);
                stage::EXECUTE
            }
            Err(stage) => stage,
        };
        fail(gate, stage, farewell, window)
    }
}

/// Returns, with its errno, only if the program cannot be executed.
unsafe fn execute(program: &Program, arguments: &[*const libc::c_char], environment: &[*const libc::c_char]) {
    // SAFETY: all pointers are valid and the lists end with a null; errno's location is always valid.
    unsafe {
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

pub(super) unsafe fn write_file(path: &CStr, content: &[u8]) {
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
                say_farewell(farewell, &farewell.unexecuted, None);
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

/// What stands in a place that nothing was written to.
static ZEROS: [u8; ANNOUNCEMENT_BYTES] = [0; ANNOUNCEMENT_BYTES];

/// # Safety
/// `window`, if there is one, is what [`map`] gave for this farewell.
unsafe fn say_farewell(farewell: &Farewell, words: &[u8], window: Option<Window>) {
    // SAFETY: the buffers are as long as is said; the descriptor is the parent's, inherited.
    unsafe {
        // Only the parent announces this child, and who comes after the parent announces nothing where something stands: so nobody else writes here
        // while this child lives.
        if !is_announced(farewell) || is_filled(farewell.file, farewell.at) {
            return;
        }
        match window {
            Some(window) => window.write(words),
            None => {
                let (file, at) = (farewell.file, farewell.at as libc::off_t);
                let written = libc::pwrite(file, words.as_ptr().cast(), words.len(), at);
                if written != words.len() as isize || libc::fdatasync(file) == -1 {
                    // Readers must not take for promised what the disk may not have. Whoever reaps this child sees that it executed nothing.
                    libc::pwrite(file, ZEROS.as_ptr().cast(), words.len().min(ZEROS.len()), at);
                }
            }
        }
    }
}

/// Whether the announcement that stands there is of this process.
unsafe fn is_announced(farewell: &Farewell) -> bool {
    let mut block = [0u8; ANNOUNCEMENT_BYTES];
    let at = farewell.announced_at as libc::off_t;
    // SAFETY: the buffer is as long as is said; getpid(2) has no arguments.
    let (got, pid) =
        unsafe { (libc::pread(farewell.file, block.as_mut_ptr().cast(), block.len(), at), libc::getpid()) };
    got == block.len() as isize && (farewell.announced.0)(&block, pid.unsigned_abs())
}

/// The place of a farewell as memory: what is written there is no write of the file that a limit (`RLIMIT_FSIZE`) could forbid.
#[derive(Clone, Copy)]
struct Window {
    base: *mut u8,
    bytes: usize,
    /// Where the farewell begins in it.
    at: usize,
}

/// Offsets of mappings are multiples of this on every Linux: no page is larger.
const PAGE_BYTES_MAX: u64 = 64 << 10;

fn map(farewell: &Farewell) -> Option<Window> {
    let begin = farewell.at / PAGE_BYTES_MAX * PAGE_BYTES_MAX;
    let at = (farewell.at - begin) as usize;
    let bytes = at + farewell.unexecuted.len().max(farewell.failed.len());
    let (protection, begin) = (libc::PROT_READ | libc::PROT_WRITE, begin as libc::off_t);
    // SAFETY: a new mapping of an open file; it goes with the process or its exec.
    let base = unsafe {
        libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, farewell.file, begin)
    };
    (base != libc::MAP_FAILED).then_some(Window { base: base.cast(), bytes, at })
}

impl Window {
    /// # Safety
    /// The words are one of the two of the farewell that was mapped, and the file still reaches so far.
    unsafe fn write(self, words: &[u8]) {
        // SAFETY: the mapping is that long.
        unsafe {
            let place = self.base.add(self.at);
            std::ptr::copy_nonoverlapping(words.as_ptr(), place, words.len());
            if libc::msync(self.base.cast(), self.bytes, libc::MS_SYNC) == -1 {
                std::ptr::write_bytes(place, 0, words.len()); // as of a write that failed
            }
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
unsafe fn fail_at_gate(gate: i32, stage: Stage, farewell: Option<&Farewell>) -> ! {
    // SAFETY: as the functions that it calls.
    unsafe {
        let errno = *libc::__errno_location();
        wait_at(gate, farewell);
        *libc::__errno_location() = errno;
        fail(gate, stage, farewell, None)
    }
}

/// Reports the stage and errno, waits until the parent has written that down (or is gone), then ends.
unsafe fn fail(gate: i32, stage: Stage, farewell: Option<&Farewell>, window: Option<Window>) -> ! {
    // SAFETY: errno's location is always valid; the buffer is on the stack; system calls only.
    unsafe {
        let errno = (*libc::__errno_location()).to_ne_bytes();
        let report = [stage, errno[0], errno[1], errno[2], errno[3]];
        libc::write(gate, report.as_ptr().cast(), report.len());
        while read_word(gate) {}
        if let Some(farewell) = farewell {
            say_farewell(farewell, &farewell.failed, window);
        }
        libc::_exit(125)
    }
}

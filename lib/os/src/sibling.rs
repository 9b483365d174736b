//! Copies of this process. A sibling: its parent is this process's parent, who waits for it. A child, as fork(2) makes it. And the place where `ps`
//! finds the name of a copy.
//!
//! A copy costs a third of what a new program does: nothing is read, linked and initialised again, and its memory is shared until written.

use std::io;

/// Makes a copy that is a sibling. In the copy: `None`. In the original: its process id. Call it from a process with one thread.
pub fn sibling() -> io::Result<Option<u32>> {
    copy(libc::CLONE_PARENT as u64, 0) // its exit signal is that of the original
}

/// The same, and the copy is a child.
pub fn child() -> io::Result<Option<u32>> {
    copy(0, libc::SIGCHLD as u64)
}

fn copy(flags: u64, exit_signal: u64) -> io::Result<Option<u32>> {
    let mut arguments = libc::clone_args {
        flags,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM this is a fork: the child has a copy of everything. The size given is that of the structure.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(u32::try_from(pid).unwrap_or(0))),
    }
}

/// A part of this process's arguments that can be overwritten, so that `ps` tells copies apart.
#[derive(Debug)]
pub struct Title {
    at: *mut u8,
    length: usize,
}

impl Title {
    /// Finds `text` among this process's arguments. `None`: it is not there, or the system does not say where they are.
    pub fn find(text: &str) -> Option<Title> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let (_, fields) = stat.rsplit_once(')')?; // field 3 follows
        let mut bounds = fields.split_ascii_whitespace().skip(45).take(2).map(str::parse::<usize>);
        let (begin, end) = (bounds.next()?.ok()?, bounds.next()?.ok()?); // arg_start, arg_end (proc(5))
        let arguments = std::fs::read("/proc/self/cmdline").ok()?;
        if begin == 0 || text.is_empty() || end.checked_sub(begin)? != arguments.len() {
            return None;
        }
        let place = arguments.windows(text.len()).position(|window| window == text.as_bytes())?;
        Some(Title { at: std::ptr::with_exposed_provenance_mut(begin + place), length: text.len() })
    }

    /// Shows another text of the same length.
    pub fn show(&self, text: &str) {
        if text.len() == self.length {
            // SAFETY: the kernel said that this process's arguments, which are its own writable memory for as long as it lives, are there, and
            // they were found to be as long. No reference to them exists: std copies them when asked.
            unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), self.at, text.len()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_that_is_not_among_the_arguments_is_not_found() {
        assert!(Title::find("no argument of this test says so").is_none());
        assert!(Title::find("").is_none());
    }

    #[test]
    fn a_part_of_the_arguments_can_be_shown_as_another() {
        let name = std::env::args().next().unwrap();
        let (head, last) = name.split_at(name.len() - 1);
        let Some(title) = Title::find(&name) else { return }; // another process rewrote them
        title.show(&format!("{head}~"));
        let shown = std::fs::read("/proc/self/cmdline").unwrap();
        title.show(&format!("{head}{last}"));
        assert!(shown.starts_with(format!("{head}~").as_bytes()));
    }
}

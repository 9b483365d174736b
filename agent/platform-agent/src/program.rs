//! Programs on disk: whether a newer one stands where a running one was started from, and whether it can take over.

use crate::handover;
use anyhow::{Context, bail};
use os::helper::{self, Ended, Helped};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Between two looks at the programs on disk, milliseconds. A file counts when two looks in a row saw the same.
pub(crate) const LOOK_MS: u64 = 5_000;
/// A new program has this long to say that it can take over.
const DRY_START_MAX: Duration = Duration::from_secs(10);

/// What tells one file from another, and a file that is being written from one that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let m = std::fs::metadata(path).ok().filter(|m| m.is_file() && m.mode() & 0o111 != 0)?;
        Some(Stamp { device: m.dev(), inode: m.ino(), bytes: m.size(), changed: (m.mtime(), m.mtime_nsec()) })
    }

    fn same_file(&self, other: &Stamp) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Where a program of ours lies on disk, and what was seen there.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    last: Option<Stamp>,
    refused: Option<Stamp>,
}

impl Program {
    pub(crate) fn at(path: &Path) -> Program {
        Program { path: path.to_owned(), last: None, refused: None }
    }

    /// This very program: the name that it was started by if that is a whole path (it may be a link that is set to another version), else the file.
    pub(crate) fn own() -> anyhow::Result<Program> {
        let file = std::env::current_exe().context("where is this program?")?;
        let named = std::env::args_os().next().map(PathBuf::from).filter(|name| name.is_absolute());
        let running = Stamp::of(Path::new("/proc/self/exe"));
        let is_it = |name: &PathBuf| Stamp::of(name).zip(running).is_some_and(|(a, b)| a.same_file(&b));
        Ok(Program::at(&named.filter(is_it).unwrap_or(file)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another file stands there than the one that this process runs, complete, and not refused before.
    pub(crate) fn is_newer_than(&mut self, pid: u32) -> bool {
        let found = Stamp::of(&self.path);
        let steady = found.is_some() && found == self.last;
        self.last = found;
        let Some(found) = found.filter(|_| steady && self.refused != found) else { return false };
        let running = Stamp::of(&PathBuf::from(format!("/proc/{pid}/exe")));
        running.is_some_and(|running| !running.same_file(&found))
    }

    /// What stands there now cannot be used: it is not tried again until it changes.
    pub(crate) fn refuse(&mut self) {
        self.refused = Stamp::of(&self.path);
    }
}

/// Lets the program say whether it can take over from this one: it reads the configuration and knows the state's format.
pub(crate) fn dry_start(program: &Path, config: &Path) -> anyhow::Result<()> {
    let version = handover::VERSION.to_string();
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(["--can-take-over", &version]);
    command.stdin(Stdio::null());
    let asked = helper::run(&mut command, DRY_START_MAX);
    match asked.with_context(|| format!("cannot start {}", program.display()))? {
        Helped::Ended(Ended { status, .. }) if status.success() => Ok(()),
        Helped::Ended(Ended { status, said, .. }) => {
            bail!("{} cannot take over ({status}): {said}", program.display())
        }
        Helped::Hangs(mut hanging) => {
            let _ = hanging.child.kill(); // it is gone already if this fails
            let _ = hanging.wait();
            let seconds = DRY_START_MAX.as_secs();
            bail!("{} did not say within {seconds} s whether it can take over", program.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn script(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn another_file_counts_when_it_was_seen_twice_and_not_when_it_was_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        let mut program = Program::at(&path);
        let us = std::process::id();
        assert!(!program.is_newer_than(us) && !program.is_newer_than(us), "nothing is there");
        script(&path, "#!/bin/sh\n");
        assert!(!program.is_newer_than(us), "it may still be written");
        assert!(program.is_newer_than(us));
        program.refuse();
        assert!(!program.is_newer_than(us));
        script(&path, "#!/bin/sh\nexit 0\n");
        assert!(!program.is_newer_than(us));
        assert!(program.is_newer_than(us));
        let mut own = Program::own().unwrap();
        assert!(!own.is_newer_than(us) && !own.is_newer_than(us));
    }

    #[test]
    fn a_program_that_cannot_take_over_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        script(&path, "#!/bin/sh\necho not with that configuration >&2\nexit 78\n");
        let error = dry_start(&path, Path::new("/c")).unwrap_err().to_string();
        assert!(error.contains("not with that configuration") && error.contains("78"), "{error}");
        script(&path, "#!/bin/sh\n[ \"$*\" = '--config /c --can-take-over 1' ]\n");
        dry_start(&path, Path::new("/c")).unwrap();
        assert!(dry_start(&dir.path().join("none"), Path::new("/c")).is_err());
    }
}

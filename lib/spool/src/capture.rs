//! Keeps files of a job after its outcome is durable. The job's processes are gone by then, as a rule; what they left may still be made of symbolic
//! links, so every directory is opened from the one above and no link is followed.
//!
//! | on disk                              | meaning                     | recovery                                    |
//! |--------------------------------------|-----------------------------|---------------------------------------------|
//! | no `files/complete`, ENDED is there  | died before or amid keeping | everything again; what is told already stays |
//! | `files/new`                          | died amid one file          | overwritten                                 |
//! | a file without its fact              | died between the two        | kept and told again                         |
//!
//! A file is kept if it belongs to the user that the job ran as: the agent may be able to read more than the job was.

use crate::record::Recorder;
use crate::root::{DataRoot, RunDir};
use job::{CAPTURE_BYTES_MAX, CAPTURE_FILES_MAX, name_fits};
use os::disk;
use protocol::RunSpec;
use protocol::message::{Captured, FactBody, Note};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Directories one below the other that `**` goes down.
const DEPTH_MAX: usize = 32;
/// Read at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Of one note, names that did not fit.
const NAMES_NOTED_MAX: usize = 20;

/// Keeps what the spec asks for and writes a fact for each file; a pattern without a file is noted. Nothing to do if that was done before.
/// `told`: the names that the log has already.
pub fn capture(
    dir: &RunDir,
    spec: &RunSpec,
    told: BTreeSet<String>,
    recorder: &mut Recorder,
) -> Result<(), String> {
    let complete = dir.files().join("complete");
    if spec.capture.is_empty() || complete.exists() {
        return Ok(());
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir.files()) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(text("create", &dir.files(), &e)),
        _ => {}
    }
    let owner = owner(dir).map_err(|e| text("ask for", &dir.work(), &e))?;
    let mut keeper = Keeper { dir, recorder, told, owner, files: 0, bytes: 0, failed: Vec::new() };
    let work = dir.work();
    let base = spec.cwd.as_deref().map_or(work.as_path(), Path::new);
    for pattern in &spec.capture {
        keeper.pattern(base, pattern)?;
    }
    keeper.note_failed()?;
    File::create(&complete).and_then(|file| file.sync_all()).map_err(|e| text("create", &complete, &e))?;
    disk::open_dir(&dir.files()).and_then(disk::sync_dir).map_err(|e| text("sync", &dir.files(), &e))
}

/// The user that the job ran as, whoever chose him; `None`: our own, whose job could read what we can.
fn owner(dir: &RunDir) -> io::Result<Option<u32>> {
    match dir.work().symlink_metadata() {
        Ok(work) => Ok(Some(work.uid()).filter(|uid| *uid != os::process::effective_uid())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None), // only our own user could remove it
        Err(e) => Err(e),
    }
}

/// Keeps one file after the other.
struct Keeper<'a> {
    dir: &'a RunDir,
    recorder: &'a mut Recorder,
    told: BTreeSet<String>,
    /// Whose files are kept; anybody's if absent.
    owner: Option<u32>,
    files: usize,
    bytes: u64,
    failed: Vec<String>,
}

impl Keeper<'_> {
    fn pattern(&mut self, base: &Path, pattern: &str) -> Result<(), String> {
        let (start, relative) = match pattern.strip_prefix('/') {
            Some(rest) => (Path::new("/"), rest),
            None => (base, pattern),
        };
        let parts: Vec<&str> = relative.split('/').collect();
        let mut found = Vec::new();
        if let Ok(start) = disk::open_dir(start) {
            find(&start, "", &parts, DEPTH_MAX, &mut found);
        }
        if found.is_empty() {
            return self.record(FactBody::Note(Note { text: format!("no file to keep fits \"{pattern}\"") }));
        }
        for (name, directory, last) in found {
            if !self.told.contains(&name) {
                self.one(&name, &directory, &last)?;
            }
        }
        Ok(())
    }

    /// Errors of the file are the job's, and noted; errors of the log are ours.
    fn one(&mut self, name: &str, directory: &OwnedFd, last: &str) -> Result<(), String> {
        match self.keep(name, directory, last) {
            Err(why) => {
                self.failed.push(format!("{name} ({why})"));
                Ok(())
            }
            Ok((bytes, sha256)) => {
                (self.files, self.bytes) = (self.files + 1, self.bytes + bytes);
                self.told.insert(name.to_owned());
                self.record(FactBody::Captured(Captured {
                    name: name.to_owned(),
                    bytes: Some(bytes),
                    sha256,
                }))
            }
        }
    }

    /// Its length and hash, or why it is not kept.
    fn keep(&self, name: &str, directory: &OwnedFd, last: &str) -> Result<(u64, Vec<u8>), String> {
        if self.is_agents_own(directory) {
            return Err("it is the agent's own".to_owned());
        }
        let opened = disk::open_plain_at(directory, last).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|e| e.to_string())?;
        if self.owner.is_some_and(|owner| owner != metadata.uid()) {
            return Err("it belongs to another user".to_owned());
        }
        if self.files == CAPTURE_FILES_MAX || self.bytes + metadata.len() > CAPTURE_BYTES_MAX {
            return Err(format!("beyond {CAPTURE_FILES_MAX} files or {CAPTURE_BYTES_MAX} bytes"));
        }
        self.copy(name, file, CAPTURE_BYTES_MAX - self.bytes).map_err(|e| e.to_string())
    }

    /// Of the data root only the job's own directory is looked into: who opens a log and closes it drops his lock on it.
    fn is_agents_own(&self, directory: &OwnedFd) -> bool {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let inside = |root: DataRoot| {
            path.is_ok_and(|path| path.starts_with(root.path()) && !path.starts_with(self.dir.work()))
        };
        self.dir.root().is_some_and(inside)
    }

    /// Afterwards the copy is durable under its name.
    fn copy(&self, name: &str, file: File, bytes_max: u64) -> io::Result<(u64, Vec<u8>)> {
        let new = self.dir.files().join("new");
        let mut copy = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE_BYTES]);
        let mut source = file.take(bytes_max); // it may grow while it is read
        loop {
            let n = match source.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            copy.write_all(&piece[..n])?;
            hash.update(&piece[..n]);
            bytes += n as u64;
        }
        copy.sync_all()?;
        std::fs::rename(&new, self.dir.kept_file(name))?;
        disk::sync_dir(disk::open_dir(&self.dir.files())?)?;
        Ok((bytes, hash.finalize().to_vec()))
    }

    fn note_failed(&mut self) -> Result<(), String> {
        if self.failed.is_empty() {
            return Ok(());
        }
        let more = self.failed.len().saturating_sub(NAMES_NOTED_MAX);
        self.failed.truncate(NAMES_NOTED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        self.record(FactBody::Note(Note { text: format!("not kept: {}{more}", self.failed.join(", ")) }))
    }

    fn record(&mut self, fact: FactBody) -> Result<(), String> {
        self.recorder.record(fact).map(drop).map_err(|e| format!("cannot write the log: {e}"))
    }
}

/// What fits the parts of a pattern: the whole name, the directory it is in, and its name there. In the order of the names.
fn find(
    dir: &OwnedFd,
    prefix: &str,
    parts: &[&str],
    depth: usize,
    found: &mut Vec<(String, OwnedFd, String)>,
) {
    let Some((part, rest)) = parts.split_first() else { return };
    if found.len() > CAPTURE_FILES_MAX {
        return; // told as beyond the limit
    }
    let below = |name: &str| format!("{prefix}{name}");
    if *part == "**" {
        find(dir, prefix, rest, depth, found);
        for name in names(dir, "*", depth) {
            if let Ok(sub) = disk::open_dir_at(dir, &name) {
                find(&sub, &format!("{}/", below(&name)), parts, depth - 1, found);
            }
        }
        return;
    }
    for name in names(dir, part, 1) {
        match (rest.is_empty(), disk::open_dir_at(dir, &name)) {
            (true, Err(_)) => {
                if let Ok(directory) = dir.try_clone() {
                    found.push((below(&name), directory, name));
                }
            }
            (false, Ok(sub)) => find(&sub, &format!("{}/", below(&name)), rest, depth, found),
            (true, Ok(_)) | (false, Err(_)) => {} // a directory is no file, a file is no directory
        }
    }
}

/// The entries of a directory that fit, sorted; none if it may not be gone down any more.
fn names(dir: &OwnedFd, part: &str, depth: usize) -> Vec<String> {
    if depth == 0 {
        return Vec::new();
    }
    let mut names = disk::names(dir).unwrap_or_default();
    names.retain(|name| name_fits(part, name));
    names.sort_unstable();
    names
}

fn text(what: &str, path: &Path, e: &io::Error) -> String {
    format!("cannot {what} {}: {e}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ledger, Shelf};
    use job::RunId;

    /// What the log of a run says after files were kept, with `work/` as `make` leaves it.
    fn kept(capture: &str, make: impl FnOnce(&RunDir)) -> (BTreeSet<String>, String) {
        let data = tempfile::tempdir().unwrap();
        let root = DataRoot::create(data.path(), true, false).unwrap();
        let dir = root.run(Shelf::Live, RunId::new(1, 1));
        let capture_list = vec![capture.replace("ROOT", root.path().to_str().unwrap())];
        let spec = RunSpec { capture: capture_list, ..RunSpec::default() };
        crate::prepare(&root, dir.run_id(), &spec, [0; 16], 0, None).unwrap();
        std::fs::create_dir(dir.work()).unwrap();
        make(&dir);
        let (mut recorder, ledger) = Recorder::take(&dir).unwrap();
        super::capture(&dir, &ledger.spec, ledger.captured(), &mut recorder).unwrap();
        drop(recorder);
        let ledger = Ledger::read(&dir).unwrap();
        let last = protocol::message::Fact::read(&ledger.messages.last().unwrap().bytes).unwrap();
        (ledger.captured(), format!("{:?}", last.body))
    }

    #[test]
    fn logs_of_the_agent_are_not_opened_to_be_kept_and_the_jobs_own_files_are() {
        let (names, last) = kept("ROOT/runs/*/log", |_| {});
        assert!(names.is_empty() && last.contains("it is the agent's own"), "{last}");
        let (names, last) =
            kept("ROOT/runs/*/work/a", |dir| std::fs::write(dir.work().join("a"), "x").unwrap());
        assert_eq!(names.len(), 1, "{last}");
    }

    #[test]
    fn of_a_job_that_ran_as_another_user_only_his_files_are_kept_though_it_named_none() {
        if os::process::effective_uid() != 0 {
            return eprintln!("skipped: only root can give files away");
        }
        let give = |path: &Path| std::os::unix::fs::chown(path, Some(12_345), None).unwrap();
        let (names, last) = kept("*", |dir| {
            for name in ["his", "ours"] {
                std::fs::write(dir.work().join(name), "x").unwrap();
            }
            give(&dir.work());
            give(&dir.work().join("his"));
        });
        assert_eq!(names, BTreeSet::from(["his".to_owned()]));
        assert!(last.contains("ours (it belongs to another user)"), "{last}");
    }
}

//! Keeps files of a job after its outcome is durable. The job's processes are gone by then, as a rule; what they left may still be made of symbolic
//! links, so every directory is opened from the one above and no link is followed.
//!
//! | on disk                              | meaning                     | recovery                                    |
//! |--------------------------------------|-----------------------------|---------------------------------------------|
//! | no `files/complete`, ENDED is there  | died before or amid keeping | everything again; what is told already stays |
//! | `files/new`                          | died amid one file          | overwritten                                 |
//! | a file without its fact              | died between the two        | kept and told again                         |
//! | GATHERED, no `complete`              | died between the two        | gathered and told again                     |
//! | files and facts, no `complete`       | no room or a failing disk    | what is told stays; the rest in a while     |
//!
//! A file is kept if it belongs to the user that the job ran as: the agent may be able to read more than the job was.

use crate::record::Recorder;
use crate::root::{DataRoot, RunDir};
use job::{CAPTURE_BYTES_MAX, CAPTURE_FILES_MAX, name_fits};
use os::disk;
use protocol::RunSpec;
use protocol::message::{Captured, FactBody, Gathered, Note};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use store::WriteError;

/// Directories one below the other that `**` goes down.
const DEPTH_MAX: usize = 32;
/// Directories that are looked into for one pattern, each as often as it is met: with several `**` in it a deep tree has ways without end.
const LOOKS_MAX: usize = 100_000;
/// Read at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Of one note, names that did not fit.
const NAMES_NOTED_MAX: usize = 20;
/// So much is left free, bytes.
const ROOM_BYTES_MIN: u64 = 2 << 20;

/// What is done about a file that cannot be written: there is no room for it, or the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// All is given up for now, to be tried again.
    Wait,
    /// It is noted, as other files that cannot be kept.
    Note,
}

/// Why files are not kept yet. What was kept and told so far stays.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// There is no room for them.
    #[error("no room: {0}")]
    NoRoom(String),
    /// Anything else of ours.
    #[error("{0}")]
    Failed(String),
}

impl NotKept {
    fn io(what: &str, path: &Path, e: &io::Error) -> NotKept {
        let text = format!("cannot {what} {}: {e}", path.display());
        if disk::is_no_room(e) { NotKept::NoRoom(text) } else { NotKept::Failed(text) }
    }
}

/// Keeps what the spec asks for and writes a fact for each file; a pattern without a file is noted. Nothing to do if that was done before.
/// `told`: the names that the log has already.
pub fn capture(
    dir: &RunDir,
    spec: &RunSpec,
    told: BTreeSet<String>,
    recorder: &mut Recorder,
    unwritten: Unwritten,
) -> Result<(), NotKept> {
    let files = dir.files();
    let is_done = || disk::exists(&files).and_then(|begun| Ok(begun && dir.files_complete()?));
    if spec.capture.is_empty() || is_done().map_err(|e| NotKept::io("look into", &files, &e))? {
        return Ok(());
    }
    match std::fs::DirBuilder::new().mode(0o700).create(&files) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(NotKept::io("create", &files, &e)),
        _ => {}
    }
    let owner = owner(dir).map_err(|e| NotKept::io("ask for", &dir.work(), &e))?;
    let mut keeper = Keeper::new(dir, recorder, told, owner, unwritten);
    let work = dir.work();
    let base = spec.cwd.as_deref().map_or(work.as_path(), Path::new);
    for pattern in &spec.capture {
        keeper.pattern(base, pattern)?;
    }
    keeper.conclude()?;
    dir.note_files_complete().map_err(|e| NotKept::io("complete", &files, &e))
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
    unwritten: Unwritten,
    files: usize,
    bytes: u64,
    /// Patterns that no file fits, and files that fit and are not kept: told at the end, once.
    unfit: Vec<String>,
    failed: Vec<String>,
}

/// Why one file is not kept.
enum Problem {
    /// It is the job's: to be noted.
    Its(String),
    /// It is ours.
    Ours(NotKept),
}

impl<'a> Keeper<'a> {
    fn new(
        dir: &'a RunDir,
        recorder: &'a mut Recorder,
        told: BTreeSet<String>,
        owner: Option<u32>,
        unwritten: Unwritten,
    ) -> Keeper<'a> {
        let length = |name: &String| std::fs::metadata(dir.kept_file(name)).map_or(0, |file| file.len());
        let (files, bytes) = (told.len(), told.iter().map(length).sum());
        Keeper { dir, recorder, told, owner, unwritten, files, bytes, unfit: Vec::new(), failed: Vec::new() }
    }

    fn pattern(&mut self, base: &Path, pattern: &str) -> Result<(), NotKept> {
        let (start, relative) = match pattern.strip_prefix('/') {
            Some(rest) => (Path::new("/"), rest),
            None => (base, pattern),
        };
        let mut parts: Vec<&str> = relative.split('/').collect();
        parts.dedup_by(|one, other| *one == "**" && *other == "**"); // says no more than one
        let (mut found, mut looks) = (0, LOOKS_MAX);
        if let Ok(start) = disk::open_dir(start) {
            let mut on_file = |name: String, directory: &OwnedFd, last: &str| {
                found += 1;
                if !self.told.contains(&name) {
                    self.one(&name, directory, last)?;
                }
                Ok(found <= CAPTURE_FILES_MAX) // one more is told as beyond the limit
            };
            find(&start, "", &parts, (DEPTH_MAX, &mut looks), &mut on_file)?;
        }
        if looks == 0 {
            self.unfit.push(format!("\"{pattern}\" was given up after {LOOKS_MAX} directories"));
        } else if found == 0 {
            self.unfit.push(format!("no file to keep fits \"{pattern}\""));
        }
        Ok(())
    }

    fn one(&mut self, name: &str, directory: &OwnedFd, last: &str) -> Result<(), NotKept> {
        match self.keep(name, directory, last) {
            Ok((bytes, sha256)) => {
                (self.files, self.bytes) = (self.files + 1, self.bytes + bytes);
                self.told.insert(name.to_owned());
                self.record(FactBody::Captured(Captured {
                    name: name.to_owned(),
                    bytes: Some(bytes),
                    sha256,
                }))
            }
            Err(Problem::Ours(NotKept::NoRoom(why) | NotKept::Failed(why)))
                if self.unwritten == Unwritten::Note =>
            {
                self.failed.push(format!("{name} ({why})"));
                Ok(())
            }
            Err(Problem::Ours(e)) => Err(e),
            Err(Problem::Its(why)) => {
                self.failed.push(format!("{name} ({why})"));
                Ok(())
            }
        }
    }

    /// Its length and hash.
    fn keep(&self, name: &str, directory: &OwnedFd, last: &str) -> Result<(u64, Vec<u8>), Problem> {
        let its = |why: &str| Err(Problem::Its(why.to_owned()));
        if self.is_agents_own(directory) {
            return its("it is the agent's own");
        }
        let opened = disk::open_plain_at(directory, last).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|e| Problem::Its(e.to_string()))?;
        if self.owner.is_some_and(|owner| owner != metadata.uid()) {
            return its("it belongs to another user");
        }
        if self.files == CAPTURE_FILES_MAX || self.bytes + metadata.len() > CAPTURE_BYTES_MAX {
            return its(&format!("beyond {CAPTURE_FILES_MAX} files or {CAPTURE_BYTES_MAX} bytes"));
        }
        self.check_room(metadata.len())?;
        let new = self.dir.growing_file();
        let copied = self.copy(&new, file, CAPTURE_BYTES_MAX - self.bytes);
        let kept = copied.and_then(|kept| self.name(&new, name).map(|()| kept));
        kept.inspect_err(|_| drop(std::fs::remove_file(&new))) // half of it takes room for nothing
    }

    /// Others need what is left of the disk more than this copy: what runs has to be recorded.
    fn check_room(&self, bytes: u64) -> Result<(), Problem> {
        let files = self.dir.files();
        let free = disk::file_system(&files).map_err(|e| ours("ask for the room of", &files, &e))?.free_bytes;
        if free >= bytes.saturating_add(ROOM_BYTES_MIN) {
            return Ok(());
        }
        Err(Problem::Ours(NotKept::NoRoom(format!("it has {bytes} bytes, and {free} are free"))))
    }

    /// Of the data root only the job's own directory is looked into: who opens a log and closes it drops his lock on it.
    fn is_agents_own(&self, directory: &OwnedFd) -> bool {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let inside = |root: DataRoot| {
            path.is_ok_and(|path| path.starts_with(root.path()) && !path.starts_with(self.dir.work()))
        };
        self.dir.root().is_some_and(inside)
    }

    /// Copies it; durable, not yet under its name.
    fn copy(&self, new: &Path, file: File, bytes_max: u64) -> Result<(u64, Vec<u8>), Problem> {
        let ours = |e: io::Error| ours("write", new, &e);
        let mut copy =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(new).map_err(ours)?;
        let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE_BYTES]);
        let mut source = file.take(bytes_max); // it may grow while it is read
        loop {
            let n = match source.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Problem::Its(e.to_string())),
            };
            os::crash::fault("keep.write").and_then(|()| copy.write_all(&piece[..n])).map_err(ours)?;
            hash.update(&piece[..n]);
            bytes += n as u64;
        }
        os::crash::fault("keep.sync").and_then(|()| copy.sync_all()).map_err(ours)?;
        Ok((bytes, hash.finalize().to_vec()))
    }

    /// Gives the copy its name, durably.
    fn name(&self, new: &Path, name: &str) -> Result<(), Problem> {
        let files = self.dir.files();
        let renamed =
            os::crash::fault("keep.rename").and_then(|()| std::fs::rename(new, self.dir.kept_file(name)));
        let synced = renamed.and_then(|()| disk::sync_dir(disk::open_dir(&files)?));
        synced.map_err(|e| ours("name a file in", &files, &e))
    }

    /// Notes what is not kept, and that nothing more is to come.
    fn conclude(&mut self) -> Result<(), NotKept> {
        let mut texts = std::mem::take(&mut self.unfit);
        if !self.failed.is_empty() {
            let more = self.failed.len().saturating_sub(NAMES_NOTED_MAX);
            self.failed.truncate(NAMES_NOTED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            texts.push(format!("not kept: {}{more}", self.failed.join(", ")));
        }
        texts.iter().try_for_each(|text| self.record(FactBody::Note(Note { text: text.clone() })))?;
        self.record(FactBody::Gathered(Gathered { files: Some(self.told.len() as u64), unkept: texts }))
    }

    fn record(&mut self, fact: FactBody) -> Result<(), NotKept> {
        let text = |e: &dyn std::fmt::Display| format!("cannot write the log: {e}");
        self.recorder.record(fact).map(drop).map_err(|e| match &e {
            WriteError::Failed(io) if disk::is_no_room(io) => NotKept::NoRoom(text(&e)),
            WriteError::Failed(_) | WriteError::Filled(_) | WriteError::TooLong { .. } => {
                NotKept::Failed(text(&e))
            }
        })
    }
}

fn ours(what: &str, path: &Path, e: &io::Error) -> Problem {
    Problem::Ours(NotKept::io(what, path, e))
}

/// What is done with a file that fits: the whole name, the directory it is in, and its name there. `false`: no more of them.
type OnFile<'a> = dyn FnMut(String, &OwnedFd, &str) -> Result<bool, NotKept> + 'a;

/// Goes through what fits the parts of a pattern, in the order of the names. Of the directories only those on the way are open. `false`: it was broken off.
fn find(
    dir: &OwnedFd,
    prefix: &str,
    parts: &[&str],
    (depth, looks): (usize, &mut usize),
    on_file: &mut OnFile<'_>,
) -> Result<bool, NotKept> {
    let Some((part, rest)) = parts.split_first() else { return Ok(true) };
    *looks = looks.saturating_sub(1);
    if *looks == 0 {
        return Ok(false);
    }
    let below = |name: &str| format!("{prefix}{name}");
    let down = |name: &str| format!("{prefix}{name}/");
    if *part == "**" {
        if !find(dir, prefix, rest, (depth, looks), on_file)? {
            return Ok(false);
        }
        for name in names(dir, "*", depth) {
            if let Ok(sub) = disk::open_dir_at(dir, &name)
                && !find(&sub, &down(&name), parts, (depth - 1, looks), on_file)?
            {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    for name in names(dir, part, 1) {
        let more = match (rest.is_empty(), disk::open_dir_at(dir, &name)) {
            (true, Err(_)) => on_file(below(&name), dir, &name)?,
            (false, Ok(sub)) => find(&sub, &down(&name), rest, (depth, looks), on_file)?,
            (true, Ok(_)) | (false, Err(_)) => true, // a directory is no file, a file is no directory
        };
        if !more {
            return Ok(false);
        }
    }
    Ok(true)
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
        super::capture(&dir, &ledger.spec, ledger.captured(), &mut recorder, Unwritten::Wait).unwrap();
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

    #[test]
    fn many_files_in_many_directories_are_kept_with_few_descriptors() {
        const FILES: usize = 600;
        let few = rustix::process::Rlimit { current: Some(64), maximum: Some(64) };
        let (names, last) = kept("**/a*", |dir| {
            for n in 0..FILES {
                let sub = dir.work().join(format!("d{n}"));
                std::fs::create_dir(&sub).unwrap();
                std::fs::write(sub.join("a"), "x").unwrap();
            }
            rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
        });
        assert_eq!(names.len(), FILES, "{last}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_waited_for_and_in_the_end_noted_with_the_reason() {
        let data = tempfile::tempdir().unwrap();
        let root = DataRoot::create(data.path(), true, false).unwrap();
        let dir = root.run(Shelf::Live, RunId::new(1, 1));
        let spec = RunSpec { capture: vec!["*".to_owned()], ..RunSpec::default() };
        crate::prepare(&root, dir.run_id(), &spec, [0; 16], 0, None).unwrap();
        std::fs::create_dir(dir.work()).unwrap();
        std::fs::write(dir.work().join("a"), "x").unwrap();
        std::fs::create_dir_all(dir.growing_file()).unwrap(); // nobody can write there
        let (mut recorder, ledger) = Recorder::take(&dir).unwrap();
        let mut capture =
            |unwritten| super::capture(&dir, &ledger.spec, BTreeSet::new(), &mut recorder, unwritten);
        let waits = capture(Unwritten::Wait).unwrap_err();
        assert!(matches!(&waits, NotKept::Failed(why) if why.contains("cannot write")), "{waits}");
        assert!(!dir.files_complete().unwrap(), "it is tried again");
        capture(Unwritten::Note).unwrap();
        assert!(dir.files_complete().unwrap());
        drop(recorder);
        let ledger = Ledger::read(&dir).unwrap();
        let last = protocol::message::Fact::read(&ledger.messages.last().unwrap().bytes).unwrap();
        let said = format!("{:?}", last.body);
        assert!(ledger.captured().is_empty() && said.contains("not kept: a (cannot write"), "{said}");
    }

    #[test]
    fn a_pattern_with_more_ways_than_there_is_time_for_is_given_up_and_said_so() {
        let pattern = format!("{}nothing", "**/*/".repeat(20));
        let (names, last) = kept(&pattern, |dir| {
            let deep = (0..DEPTH_MAX).fold(dir.work(), |path, _| path.join("d"));
            std::fs::create_dir_all(deep).unwrap();
        });
        assert!(names.is_empty() && last.contains("given up"), "{last}");
        let (names, _) = kept(&format!("{}a", "**/".repeat(300)), |dir| {
            let deep = (0..DEPTH_MAX).fold(dir.work(), |path, _| path.join("d"));
            std::fs::create_dir_all(&deep).unwrap();
            std::fs::write(deep.join("a"), "x").unwrap();
        });
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn beyond_the_limit_files_are_named_once_and_no_more_are_looked_for() {
        let (names, last) = kept("*", |dir| {
            for n in 0..CAPTURE_FILES_MAX + 50 {
                std::fs::write(dir.work().join(format!("{n:05}")), "").unwrap();
            }
        });
        assert_eq!(names.len(), CAPTURE_FILES_MAX);
        assert!(last.contains("not kept: 01000 (beyond 1000 files"), "{last}");
    }
}

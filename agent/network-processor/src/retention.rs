//! How long settled runs stay: by age, by number, and by the room that they take; the oldest go first. What is not settled is never touched.
//!
//! | reason                                     | what goes                                                             | not what settled within |
//! |--------------------------------------------|-----------------------------------------------------------------------|-------------------------|
//! | past `settled_retention`                   | the whole run                                                         | that                    |
//! | more than `settled_runs_max`               | the whole run                                                         | 24 h                    |
//! | more than `settled_bytes_max`, or less free than `free_bytes_min` | outputs; when there are none left, whole runs | 24 h                    |
//! | the disk is full                           | the same                                                              | 10 minutes; no output is spared |
//!
//! Files that were kept of a run and that the server has not said to have (`files/stored`) are spared: their run is not removed, and only its other
//! output goes. For 30 days, since a server without a file store never says so; and on a full disk they go when nothing else is left to go.
//!
//! A server whose database went back in time (a backup, a standby that was behind) gets what it lacks from the settled records, so they stay for
//! a day even if that takes more room than is wished.
//!
//! Run ids are in the order of their making, so the oldest are found by their names. The shelf is listed once after the start; the names of the
//! oldest are kept, and it is listed again only when these are used up. A round works on a thread for the disk, and for a short while only.

use crate::identity::IdentityFile;
use crate::room::MARGIN_BYTES;
use job::RunId;
use os::clock;
use spool::{DataRoot, RunDir, Shelf};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Names of the oldest runs that are kept.
const OLDEST_MAX: usize = 8_192;
/// Runs that are looked at together; those that go are written down with one sync.
const CHUNK: usize = 256;
/// After so many in a row that are too young nothing older is looked for.
const YOUNG_IN_A_ROW: usize = 64;
/// Runs that settled since the last round; beyond that the shelf is listed again.
const NEWS_MAX: usize = 100_000;
/// What an asynchronous standby or a restored backup may need back, milliseconds.
const KEPT_MS_MIN: u64 = 24 * 3_600_000;
/// What the server has not stored is spared for so long after it settled, milliseconds.
const UNSTORED_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// On a full disk, milliseconds: a START of as old a run may still be on its way, and could not be told from one that ran and was removed.
pub(crate) const KEPT_MS_FULL: u64 = 600_000;
/// A round works at most so long; the next one goes on.
const ROUND_MAX: Duration = Duration::from_millis(500);

/// What there is to keep to.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) retention_ms: u64,
    pub(crate) limits: config::Retention,
    /// The disk is full: runs that settled so long ago may go then, milliseconds.
    pub(crate) full: Option<u64>,
}

/// The settled runs, for whoever settles and for the rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settled {
    news: Arc<Mutex<News>>,
    known: Arc<Mutex<Known>>,
}

/// What settled since the last round.
#[derive(Debug, Default)]
struct News {
    runs: Vec<RunId>,
    too_many: bool,
}

/// What is known of the shelf.
#[derive(Debug, Default)]
struct Known {
    /// It was listed.
    listed: bool,
    /// The oldest.
    oldest: BTreeSet<RunId>,
    /// `oldest` has all there are.
    complete: bool,
    /// How many there are.
    count: u64,
    /// What they take on the disk, if there is a limit for it.
    bytes: Option<u64>,
    /// Of the runs up to this one the outputs are gone.
    stripped_to: Option<RunId>,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Runs that are gone.
    pub(crate) removed: u64,
    /// Runs whose output is gone.
    pub(crate) stripped: u64,
    /// There is more to do.
    pub(crate) more: bool,
}

impl Settled {
    /// A run was moved to the shelf.
    pub(crate) fn add(&self, run_id: RunId) {
        let mut news = lock(&self.news);
        if news.runs.len() < NEWS_MAX {
            news.runs.push(run_id);
        } else {
            news.too_many = true;
        }
    }

    /// One round. Only one is under way at a time: another returns at once.
    pub(crate) fn sweep(
        &self,
        root: &DataRoot,
        policy: &Policy,
        identity: &IdentityFile,
        hands: &Hands<'_>,
    ) -> io::Result<Done> {
        let Ok(mut known) = self.known.try_lock() else { return Ok(Done::default()) };
        let news = std::mem::take(&mut *lock(&self.news));
        known.take_news(root, policy, news)?;
        let mut round = Round {
            hands,
            root,
            policy,
            identity,
            known: &mut known,
            until: Instant::now() + ROUND_MAX,
            done: Done::default(),
        };
        round.by_age()?;
        round.by_number()?;
        round.by_room()?;
        Ok(round.done)
    }
}

impl Known {
    fn take_news(&mut self, root: &DataRoot, policy: &Policy, news: News) -> io::Result<()> {
        let counts = policy.limits.settled_bytes_max.is_some();
        if !counts || news.too_many {
            self.bytes = None; // not wanted, or not known any more
        }
        if let Some(bytes) = &mut self.bytes {
            *bytes += news.runs.iter().map(|run| taken(root.run(Shelf::Settled, *run).path())).sum::<u64>();
        }
        let used_up = self.oldest.is_empty() && !self.complete;
        if !self.listed || news.too_many || used_up || (counts && self.bytes.is_none()) {
            return self.list(root, counts);
        }
        for run_id in news.runs {
            self.count += 1;
            if self.complete || self.oldest.last().is_some_and(|last| run_id < *last) {
                self.keep(run_id);
            }
        }
        Ok(())
    }

    /// Lists the shelf. The room that all take is counted only if it is not known: that is a look at every file.
    fn list(&mut self, root: &DataRoot, counts: bool) -> io::Result<()> {
        let (stripped_to, known) = (self.stripped_to.take(), self.bytes.take());
        *self = Known { listed: true, complete: true, stripped_to, ..Known::default() };
        let mut bytes = 0;
        for entry in std::fs::read_dir(root.shelf(Shelf::Settled))? {
            let entry = entry?;
            let Some(run_id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            self.count += 1;
            self.keep(run_id);
            if counts && known.is_none() {
                bytes += taken(&entry.path());
            }
        }
        self.bytes = counts.then_some(known.unwrap_or(bytes));
        Ok(())
    }

    fn keep(&mut self, run_id: RunId) {
        if self.oldest.len() >= OLDEST_MAX && self.oldest.last().is_some_and(|last| run_id > *last) {
            self.complete = false;
            return;
        }
        self.oldest.insert(run_id);
        if self.oldest.len() > OLDEST_MAX {
            self.oldest.pop_last();
            self.complete = false;
        }
    }
}

/// What a round cannot do by itself.
pub(crate) struct Hands<'a> {
    /// How much room there is, bytes.
    pub(crate) free: &'a dyn Fn() -> io::Result<u64>,
    /// Removes a run with all that its job left, whoever owns that.
    pub(crate) remove: &'a dyn Fn(&RunDir) -> io::Result<()>,
}

struct Round<'a> {
    hands: &'a Hands<'a>,
    root: &'a DataRoot,
    policy: &'a Policy,
    identity: &'a IdentityFile,
    known: &'a mut Known,
    until: Instant,
    done: Done,
}

impl Round<'_> {
    fn by_age(&mut self) -> io::Result<()> {
        self.remove_while(self.policy.retention_ms, |_| CHUNK)
    }

    fn by_number(&mut self) -> io::Result<()> {
        let Some(max) = self.policy.limits.settled_runs_max else { return Ok(()) };
        let excess =
            |known: &Known| usize::try_from(known.count.saturating_sub(max)).unwrap_or(CHUNK).min(CHUNK);
        self.remove_while(self.spared_ms(), excess)
    }

    fn by_room(&mut self) -> io::Result<()> {
        let (limits, hands) = (self.policy.limits, self.hands);
        // A full disk is to have room for the ballast again, and some more.
        let ballast = if self.policy.full.is_some() { limits.ballast.as_bytes() + MARGIN_BYTES } else { 0 };
        let free_min = limits.free_bytes_min.as_bytes().max(ballast);
        let is_short = |known: &Known| -> io::Result<bool> {
            let max = limits.settled_bytes_max.map(|max| max.as_bytes());
            Ok(max.zip(known.bytes).is_some_and(|(max, bytes)| bytes > max) || (hands.free)()? < free_min)
        };
        while is_short(self.known)? && self.has_time() {
            if self.strip_some() == 0
                && self.remove_some(self.spared_ms(), CHUNK / 4)? == 0
                && self.strip_unstored() == 0
            {
                return Ok(()); // nothing is left that may go
            }
        }
        Ok(())
    }

    /// Younger ones are not touched for want of room.
    fn spared_ms(&self) -> u64 {
        self.policy.full.unwrap_or(KEPT_MS_MIN)
    }

    fn has_time(&mut self) -> bool {
        let has_time = Instant::now() < self.until;
        self.done.more |= !has_time;
        has_time
    }

    /// Removes the oldest that settled at least so long ago, as many at a time as are wanted, until none is.
    fn remove_while(&mut self, age_ms_min: u64, wanted: impl Fn(&Known) -> usize) -> io::Result<()> {
        while self.has_time() {
            let most = wanted(self.known);
            if most == 0 || self.remove_some(age_ms_min, most)? == 0 {
                return Ok(());
            }
            if self.known.oldest.is_empty() && !self.known.complete {
                self.done.more = true; // the next round lists the shelf again
                return Ok(());
            }
        }
        Ok(())
    }

    /// Removes up to `most` of the oldest that are old enough; how many it were.
    fn remove_some(&mut self, age_ms_min: u64, most: usize) -> io::Result<usize> {
        let going = self.old_enough(age_ms_min, None, most, |dir, age_ms| !is_unstored(dir, age_ms));
        let Some(latest) = going.iter().map(RunId::wall_ms).max() else { return Ok(0) };
        // Nobody can tell any more whether these ran here: that has to be known before the first of them is gone.
        self.identity.expire(latest)?;
        for run_id in &going {
            let dir = self.root.run(Shelf::Settled, *run_id);
            let bytes = self.known.bytes.map(|_| taken(dir.path()));
            match (self.hands.remove)(&dir) {
                Ok(()) => {
                    self.known.count = self.known.count.saturating_sub(1);
                    self.known.bytes = self.known.bytes.zip(bytes).map(|(all, one)| all.saturating_sub(one));
                    self.done.removed += 1;
                }
                Err(e) => tracing::warn!(run = %run_id, "a settled run cannot be removed: {e}"),
            }
            self.known.oldest.remove(run_id);
        }
        Ok(going.len())
    }

    /// Removes the outputs of some of the oldest; how many runs were looked at.
    fn strip_some(&mut self) -> usize {
        let age_ms_min = if self.policy.full.is_some() { 0 } else { KEPT_MS_MIN };
        let going = self.old_enough(age_ms_min, self.known.stripped_to, CHUNK / 4, |_, _| true);
        for run_id in &going {
            self.strip(*run_id, is_unstored);
            self.known.stripped_to = Some(*run_id);
        }
        going.len()
    }

    /// On a full disk, and nothing else may go: files of some of the oldest that the server has not stored; of how many runs.
    fn strip_unstored(&mut self) -> usize {
        if self.policy.full.is_none() {
            return 0;
        }
        let going = self.old_enough(0, None, CHUNK / 4, is_unstored);
        let lost = |run_id: &&RunId| {
            tracing::warn!(run = %run_id, "the disk is full: files that the server has not stored are removed");
            self.strip(**run_id, |_, _| false)
        };
        going.iter().filter(lost).count()
    }

    /// Removes the output of one; whether there was any. Of files that are to be spared it stays.
    fn strip(&mut self, run_id: RunId, spares_files: impl Fn(&RunDir, u64) -> bool) -> bool {
        let dir = self.root.run(Shelf::Settled, run_id);
        let before = taken(dir.path());
        let stripped = strip(&dir, spares_files(&dir, settled_for_ms(&dir)));
        match &stripped {
            Ok(true) => self.done.stripped += 1,
            Ok(false) => {}
            Err(e) => tracing::warn!(run = %run_id, "the output of a settled run cannot be removed: {e}"),
        }
        let freed = before.saturating_sub(taken(dir.path()));
        self.known.bytes = self.known.bytes.map(|all| all.saturating_sub(freed));
        stripped.unwrap_or(false)
    }

    /// The oldest runs behind `after` that settled at least so long ago, and that may go.
    fn old_enough(
        &self,
        age_ms_min: u64,
        after: Option<RunId>,
        most: usize,
        may_go: impl Fn(&RunDir, u64) -> bool,
    ) -> Vec<RunId> {
        let (mut found, mut young) = (Vec::new(), 0);
        let candidates = self.known.oldest.iter().filter(|run_id| after.is_none_or(|after| **run_id > after));
        for run_id in candidates {
            let dir = self.root.run(Shelf::Settled, *run_id);
            let age_ms = settled_for_ms(&dir);
            if age_ms < age_ms_min {
                young += 1;
            } else {
                young = 0;
                if may_go(&dir, age_ms) {
                    found.push(*run_id);
                }
            }
            if found.len() >= most || young >= YOUNG_IN_A_ROW {
                break;
            }
        }
        found
    }
}

/// The server has not said to have all files of the run, and may still want them.
fn is_unstored(dir: &RunDir, age_ms: u64) -> bool {
    // What cannot be read can be given to nobody.
    age_ms < UNSTORED_MS_MAX && dir.has_unstored_files().unwrap_or(false)
}

/// The rename to this shelf set the change time, and so does a removal from the directory. What cannot be asked counts as old: it is gone.
fn settled_for_ms(dir: &RunDir) -> u64 {
    let settled_ms = std::fs::metadata(dir.path()).map_or(0, |m| m.ctime().saturating_mul(1_000));
    u64::try_from(clock::aging_ms().saturating_sub(settled_ms)).unwrap_or(0)
}

/// Removes everything but the log, and but the kept files if they are to be spared; whether there was anything.
fn strip(dir: &RunDir, spare_files: bool) -> io::Result<bool> {
    let mut any = false;
    for entry in std::fs::read_dir(dir.path())? {
        let entry = entry?;
        if entry.path() == dir.log() || spare_files && entry.path() == dir.files() {
            continue;
        }
        any = true;
        if entry.file_type()?.is_dir() {
            match os::disk::remove_tree(&entry.path()) {
                // It belongs to the job's user, and goes with the whole run.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                done => done?,
            }
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(any)
}

/// What a directory takes on the disk with all that is in it, bytes.
fn taken(dir: &Path) -> u64 {
    let own = |m: &std::fs::Metadata| m.blocks().saturating_mul(512);
    let mut bytes = std::fs::symlink_metadata(dir).map_or(0, |m| own(&m));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(m) if m.is_dir() => bytes += taken(&entry.path()),
            Ok(m) => bytes += own(&m),
            Err(_) => {} // it is just going
        }
    }
    bytes
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Size;
    use job::AgentId;
    use spool::Identity;

    struct Lab {
        _dir: tempfile::TempDir,
        root: DataRoot,
        identity: IdentityFile,
        settled: Settled,
        policy: Policy,
        free: u64,
    }

    impl Lab {
        /// So many runs of 8 KiB output each, settled just now.
        fn new(runs: u64) -> Lab {
            let dir = tempfile::tempdir().unwrap();
            let root = DataRoot::create(dir.path(), true, false).unwrap();
            let identity = Identity::open(root.path(), AgentId([1; 16])).unwrap();
            for n in 1..=runs {
                settle(&root, n);
            }
            let limits = config::Retention {
                settled_bytes_max: None,
                settled_runs_max: None,
                free_bytes_min: Size::from_bytes(0),
                ballast: Size::from_bytes(0),
            };
            let policy = Policy { retention_ms: u64::MAX, limits, full: None };
            let identity = crate::identity::Identity::new(identity).file;
            Lab { _dir: dir, root, identity, settled: Settled::default(), policy, free: 1 << 30 }
        }

        fn sweep(&self) -> Done {
            let hands = Hands { free: &|| Ok(self.free), remove: &|dir| os::disk::remove_tree(dir.path()) };
            self.settled.sweep(&self.root, &self.policy, &self.identity, &hands).unwrap()
        }

        fn left(&self) -> Vec<u64> {
            self.root.list(Shelf::Settled).unwrap().iter().map(RunId::wall_ms).collect()
        }

        fn outputs(&self) -> usize {
            let runs = self.root.list(Shelf::Settled).unwrap();
            runs.iter().filter(|run| self.root.run(Shelf::Settled, **run).out().exists()).count()
        }
    }

    fn run(n: u64) -> RunId {
        RunId::new(n, u128::from(n))
    }

    fn settle(root: &DataRoot, n: u64) {
        let dir = root.run(Shelf::Settled, run(n));
        std::fs::create_dir_all(dir.work()).unwrap();
        std::fs::write(dir.log(), "log").unwrap();
        std::fs::write(dir.out(), vec![b'x'; 8 << 10]).unwrap();
        std::fs::write(dir.work().join("file"), "x").unwrap();
    }

    #[test]
    fn what_is_past_its_retention_goes_and_is_known_to_be_gone() {
        let mut lab = Lab::new(3);
        assert_eq!(lab.sweep(), Done::default());
        lab.policy.retention_ms = 0;
        assert_eq!(lab.sweep().removed, 3);
        assert_eq!((lab.left(), lab.identity.expired_ms()), (vec![], 3));
        settle(&lab.root, 9);
        lab.settled.add(run(9));
        assert_eq!(lab.sweep().removed, 1);
    }

    #[test]
    fn nothing_that_settled_today_goes_for_its_number_or_for_room() {
        let mut lab = Lab::new(5);
        lab.policy.limits.settled_runs_max = Some(2);
        lab.policy.limits.settled_bytes_max = Some(Size::from_bytes(1));
        lab.policy.limits.free_bytes_min = Size::from_bytes(u64::MAX);
        assert_eq!(lab.sweep(), Done::default());
        assert_eq!((lab.left().len(), lab.outputs()), (5, 5));
    }

    #[test]
    fn on_a_full_disk_outputs_go_first_and_then_the_oldest_runs() {
        let mut lab = Lab::new(5);
        (lab.policy.full, lab.free) = (Some(0), 0);
        lab.policy.limits.settled_runs_max = Some(3);
        let done = lab.sweep();
        assert_eq!(lab.left(), [0u64; 0], "a disk that stays full spares nothing that is settled");
        assert_eq!((done.removed, done.stripped), (5, 3));
        assert_eq!(lab.identity.expired_ms(), 5);
    }

    #[test]
    fn on_a_full_disk_a_run_that_settled_a_moment_ago_loses_its_output_and_not_its_record() {
        let mut lab = Lab::new(5);
        (lab.policy.full, lab.free) = (Some(KEPT_MS_FULL), 0);
        assert_eq!(lab.sweep(), Done { stripped: 5, ..Done::default() });
        assert_eq!((lab.left().len(), lab.outputs(), lab.identity.expired_ms()), (5, 0, 0));
    }

    #[test]
    fn the_number_is_brought_down_to_its_limit_and_no_further() {
        let mut lab = Lab::new(600);
        lab.policy.retention_ms = u64::MAX;
        lab.policy.limits.settled_runs_max = Some(590);
        lab.policy.full = Some(0); // what settled a moment ago may go
        assert_eq!(lab.sweep().removed, 10);
        assert_eq!((lab.left().len(), lab.left()[0]), (590, 11));
        assert_eq!(lab.sweep(), Done::default());
    }

    #[test]
    fn the_room_of_settled_runs_is_counted_once_and_kept_by_difference() {
        let mut lab = Lab::new(4);
        lab.policy.limits.settled_bytes_max = Some(Size::from_bytes(1 << 30));
        lab.sweep();
        let counted = lock(&lab.settled.known).bytes.unwrap();
        assert!(counted >= 4 * (8 << 10), "{counted}");
        settle(&lab.root, 5);
        lab.settled.add(run(5));
        lab.sweep();
        let more = lock(&lab.settled.known).bytes.unwrap();
        let again: u64 = (1..=5).map(|n| taken(lab.root.run(Shelf::Settled, run(n)).path())).sum();
        assert_eq!(more, again);
    }

    #[test]
    fn beyond_the_room_that_settled_runs_may_take_outputs_go_first_and_then_the_oldest_runs() {
        let mut lab = Lab::new(100);
        lab.policy.full = Some(0); // what settled a moment ago may go
        let one = taken(lab.root.run(Shelf::Settled, run(1)).path());
        lab.policy.limits.settled_bytes_max = Some(Size::from_bytes(one * 60));
        let done = lab.sweep();
        assert_eq!((done.removed, lab.left().len()), (0, 100), "outputs suffice");
        assert!((1..100).contains(&done.stripped) && lab.outputs() < 100, "{done:?}");
        lab.policy.limits.settled_bytes_max = Some(Size::from_bytes(one * 10));
        assert!(lab.sweep().removed > 0);
        let (left, rest) = (lab.left(), (1..=100).rev());
        let youngest: Vec<u64> = rest.take(left.len()).collect::<Vec<_>>().into_iter().rev().collect();
        assert_eq!(left, youngest, "the oldest went");
        let all: u64 = left.iter().map(|n| taken(lab.root.run(Shelf::Settled, run(*n)).path())).sum();
        assert!(all <= one * 10, "{all} of {}", one * 10);
    }

    #[test]
    fn a_shelf_of_more_runs_than_are_remembered_is_listed_again_and_not_counted_again() {
        const ALL: u64 = OLDEST_MAX as u64 + 40;
        let mut lab = Lab::new(0);
        for n in 1..=ALL {
            std::fs::create_dir(lab.root.run(Shelf::Settled, run(n)).path()).unwrap();
        }
        lab.policy.limits.settled_bytes_max = Some(Size::from_bytes(u64::MAX));
        lab.sweep();
        let one = taken(lab.root.run(Shelf::Settled, run(1)).path());
        assert_eq!(lock(&lab.settled.known).bytes, Some(ALL * one));
        lab.policy.retention_ms = 0;
        let mut removed = 0;
        while removed < OLDEST_MAX as u64 {
            removed += lab.sweep().removed;
        }
        // Something that nobody told of: a new count would see it.
        std::fs::write(lab.root.run(Shelf::Settled, run(ALL)).out(), vec![b'x'; 64 << 10]).unwrap();
        lab.policy.retention_ms = u64::MAX;
        settle(&lab.root, ALL + 1);
        lab.settled.add(run(ALL + 1));
        lab.sweep();
        let known = lock(&lab.settled.known);
        let last = taken(lab.root.run(Shelf::Settled, run(ALL + 1)).path());
        assert_eq!((known.count, known.complete), (ALL - removed + 1, true), "it was listed again");
        assert_eq!(known.bytes, Some((ALL - removed) * one + last));
    }

    #[test]
    fn a_run_that_was_stripped_keeps_its_log() {
        let lab = Lab::new(1);
        let dir = lab.root.run(Shelf::Settled, run(1));
        assert!(strip(&dir, false).unwrap());
        assert!(!strip(&dir, false).unwrap());
        assert!(dir.log().exists() && !dir.out().exists() && !dir.work().exists());
    }

    /// Lets a settled run have a file that was kept, and says so to the server or not.
    fn keep_file(lab: &Lab, n: u64, stored: bool) {
        let dir = lab.root.run(Shelf::Settled, run(n));
        std::fs::create_dir(dir.files()).unwrap();
        std::fs::write(dir.kept_file("report"), "x").unwrap();
        if stored {
            dir.note_files_stored().unwrap();
        }
    }

    #[test]
    fn files_that_the_server_has_not_stored_outlive_their_retention_and_others_do_not() {
        let mut lab = Lab::new(3);
        keep_file(&lab, 1, false);
        keep_file(&lab, 2, true);
        lab.policy.retention_ms = 0;
        assert_eq!(lab.sweep().removed, 2);
        assert_eq!(lab.left(), [1]);
        lab.root.run(Shelf::Settled, run(1)).note_files_stored().unwrap();
        assert_eq!((lab.sweep().removed, lab.left()), (1, vec![]));
    }

    #[test]
    fn on_a_full_disk_files_that_the_server_has_not_stored_go_last() {
        let mut lab = Lab::new(2);
        keep_file(&lab, 1, false);
        let dir = lab.root.run(Shelf::Settled, run(1));
        (lab.policy.full, lab.free) = (Some(KEPT_MS_FULL), 1 << 30);
        lab.policy.limits.settled_bytes_max = Some(Size::from_bytes(30_000)); // two logs and a file with their directories
        lab.sweep();
        assert!(dir.kept_file("report").exists() && lab.outputs() == 0, "the outputs were enough");
        lab.free = 0;
        lab.sweep();
        assert!(!dir.files().exists() && dir.log().exists());
    }
}

//! The record of everything: one small interface, so that a second database can follow the first.
//!
//! Every method blocks; async code calls them on a blocking thread. `commit` writes all of a batch or nothing of it, and nothing
//! that it returned `Ok` for is ever lost, whatever is killed or cut off afterwards.

mod check;
mod claim;
#[cfg(test)]
mod conformance;
mod copy;
mod differences;
mod entry;
mod files;
mod forward;
mod journal;
mod list;
mod map;
mod restored;
mod schema;
mod sqlite;
mod write;
mod write_entry;

pub use check::{Checked, Finding};
pub use claim::Claim;
pub use copy::{Contents, contents};
pub use differences::{Differences, Jobs, compare};
pub use entry::{AnswerKey, AnswerRecord, AuditFilter, AuditRecord, Entry, TokenRecord, UserRecord};
pub use files::{FileChange, FileCount, FileRecord, FileWord, Place, StoreClaim};
pub use forward::{Carried, Forward, forward, open_tokens};
pub use restored::{EPOCH_LEAP, Since, fold, prepare, restoring};
pub use sqlite::{Sqlite, check_file};

use crate::operation::Tell;
use job::{JobId, RunId, Status};
use scheduler::{Change, Counts, EventFilter, EventRecord, FactRecord, JobRecord, RunRecord, Snapshot};
use std::path::Path;

/// Which database this is, and which opening of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// 16 random bytes from its creation.
    pub database_id: [u8; 16],
    /// Goes up by one at each opening, and by [`Database::raise_epoch`].
    pub epoch: u64,
}

/// A selection of jobs. What is absent or empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Any of these.
    pub statuses: Vec<Status>,
    /// In this queue.
    pub queue: Option<String>,
    /// Their latest run was placed on this agent.
    pub agent: Option<String>,
    /// Exactly this name.
    pub name: Option<String>,
    /// A name that begins so.
    pub name_prefix: Option<String>,
    /// Submitted at or after, the server's wall clock.
    pub since_ms: Option<i64>,
    /// Submitted before, the server's wall clock.
    pub until_ms: Option<i64>,
    /// Over, and neither completed nor taken back: any of [`FAILED`].
    pub failed: bool,
    /// The latest run exited with this.
    pub exit_code: Option<u8>,
}

/// The ends of a job that somebody has to look at.
pub const FAILED: [Status; 4] = [Status::Error, Status::Killed, Status::Unknown, Status::Abandoned];

/// What grows with time and is forgotten with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// What happened.
    Events,
    /// Who asked for what.
    Audit,
    /// What was answered to requests with an idempotency key.
    Answers,
}

/// What is kept of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Nothing from before this moment, wall clock.
    pub since_ms: i64,
    /// At most so many.
    pub count_max: u64,
}

/// Which jobs are to be deleted. Never one that is not over, nor one of which an agent may still have something to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Over before this, wall clock.
    pub ended_before_ms: i64,
    /// The agents have told nothing of it since, wall clock of the server.
    pub told_before_ms: i64,
    /// The agents of which we know that they have told everything up to then. One that was removed has nothing to tell.
    pub agents: Vec<String>,
    /// At most so many.
    pub limit: usize,
}

/// Which way a journal is read, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// The oldest first, from behind this number on.
    After(u64),
    /// The newest first, below this number; from the newest on if absent.
    Below(Option<u64>),
}

/// A piece of a journal. So that no question takes long, only so much is looked through at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// What was found.
    pub items: Vec<T>,
    /// Up to here everything was looked through; ask again from there. Absent at the end.
    pub next: Option<u64>,
}

/// The secrets of one agent.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentSecrets {
    /// Whose.
    pub agent: String,
    /// All that are valid, newest first.
    pub secrets: Vec<Vec<u8>>,
}

/// What went wrong with the database, sorted by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Try the same again after a pause: nothing of it was written.
    #[error("the database cannot be written at the moment: {0}; trying again")]
    Retry(String),
    /// The database file cannot be used by this program.
    #[error("{0}")]
    Unusable(String),
    /// What was read makes no sense.
    #[error("the database has a damaged record: {0}; restore it from a backup")]
    Damaged(String),
}

/// A database. See the module's head.
pub trait Database: Send + Sync {
    /// Which one it is.
    fn identity(&self) -> Identity;

    /// Begins an epoch above `seen`, durably, unless the present one is above it; returns the present one. For a database that went
    /// back in time: agents remember the highest epoch and obey no lower one.
    fn raise_epoch(&self, seen: u64) -> Result<u64, DbError>;

    /// The number of the last commit.
    fn commit_number(&self) -> u64;

    /// The databases from whose backups this one was restored, the latest first.
    fn ancestors(&self) -> Result<Vec<[u8; 16]>, DbError>;

    /// Copies all that is committed at this moment into the empty file `to`; commits go on meanwhile.
    fn copy_to(&self, to: &Path, tell: Tell<'_>) -> Result<(), DbError>;

    /// Looks for contradictions, reading everything.
    fn check(&self, tell: Tell<'_>) -> Result<Checked, DbError>;

    /// The version of its tables.
    fn schema(&self) -> Result<u32, DbError>;

    /// Everything that is not final.
    fn load(&self) -> Result<Snapshot, DbError>;

    /// Writes the batch, and the entries beside it, in one transaction; returns the number of the commit.
    fn commit_with(&self, batch: &[Change], entries: &[Entry]) -> Result<u64, DbError>;

    /// The same without entries.
    fn commit(&self, batch: &[Change]) -> Result<u64, DbError> {
        self.commit_with(batch, &[])
    }

    /// One job.
    fn job(&self, job: JobId) -> Result<Option<JobRecord>, DbError>;

    /// Its runs, the first attempt first.
    fn runs(&self, job: JobId) -> Result<Vec<RunRecord>, DbError>;

    /// One run.
    fn run(&self, run: RunId) -> Result<Option<RunRecord>, DbError>;

    /// Jobs by number, highest first, below `cursor` if there is one, at most `limit`.
    fn jobs(
        &self,
        filter: &JobFilter,
        cursor: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobRecord>, DbError>;

    /// Jobs that are over for so long, the lowest number first.
    fn expired(&self, expired: &Expired) -> Result<Vec<JobId>, DbError>;

    /// The job that was submitted with this key.
    fn job_of_key(&self, key: &str) -> Result<Option<JobId>, DbError>;

    /// All jobs by status.
    fn counts(&self) -> Result<Counts, DbError>;

    /// The stored facts of a run in their order; those of a stray run too.
    fn facts(&self, run: RunId) -> Result<Vec<FactRecord>, DbError>;

    /// The highest fact of a run that is not known, 0 if there is none.
    fn stray_seq(&self, run: RunId) -> Result<u64, DbError>;

    /// Events, at most `limit`.
    fn events(&self, filter: &EventFilter, from: Walk, limit: usize) -> Result<Piece<EventRecord>, DbError>;

    /// The numbers of the oldest and the newest event that are kept.
    fn events_kept(&self) -> Result<Option<(u64, u64)>, DbError>;

    /// Runs that have stray facts, with the agent that sent them, at most `limit`.
    fn stray_runs(&self, limit: usize) -> Result<Vec<(RunId, String)>, DbError>;

    /// How many stray facts there are.
    fn strays(&self) -> Result<u64, DbError>;

    /// The secrets of every agent, newest first.
    fn secrets(&self) -> Result<Vec<AgentSecrets>, DbError>;

    /// Every token, also those that are not valid any more.
    fn tokens(&self) -> Result<Vec<TokenRecord>, DbError>;

    /// Every user.
    fn users(&self) -> Result<Vec<UserRecord>, DbError>;

    /// Audit entries, at most `limit`.
    fn audit(&self, filter: &AuditFilter, from: Walk, limit: usize) -> Result<Piece<AuditRecord>, DbError>;

    /// The number of the newest audit entry, 0 if there is none.
    fn last_audit(&self) -> Result<u64, DbError>;

    /// What a command was answered.
    fn answer(&self, key: &AnswerKey) -> Result<Option<AnswerRecord>, DbError>;

    /// The files that were kept of a run, by name.
    fn files(&self, run: RunId) -> Result<Vec<FileRecord>, DbError>;

    /// Agents that have files which are to be fetched.
    fn files_awaited_from(&self) -> Result<Vec<String>, DbError>;

    /// Files that are to be fetched from an agent now, the one that waits for longest first, at most `limit`. Nothing waits longer than
    /// `pause_ms_max` from now, whatever was written down.
    fn files_due(
        &self,
        agent: &str,
        now_ms: i64,
        pause_ms_max: i64,
        limit: usize,
    ) -> Result<Vec<FileRecord>, DbError>;

    /// Agents that are to hear that the server has files of theirs.
    fn file_words_to(&self) -> Result<Vec<String>, DbError>;

    /// What an agent is to hear, at most `limit` runs.
    fn file_words(&self, agent: &str, limit: usize) -> Result<Vec<FileWord>, DbError>;

    /// Stored files, the one that is there for longest first, at most `limit`.
    fn files_oldest(&self, limit: usize) -> Result<Vec<FileRecord>, DbError>;

    /// Stored files behind this run and name, in their order, at most `limit`.
    fn files_stored_after(&self, after: &(RunId, String), limit: usize) -> Result<Vec<FileRecord>, DbError>;

    /// Keys of objects that are to be deleted from the store, at most `limit`.
    fn file_objects_gone(&self, limit: usize) -> Result<Vec<String>, DbError>;

    /// How many files there are of each place, in the order of [`Place::ALL`].
    fn file_counts(&self) -> Result<[FileCount; Place::ALL.len()], DbError>;

    /// How the database knows its store.
    fn store_claim(&self) -> Result<StoreClaim, DbError>;

    /// Forgets some of the oldest entries of a journal that are too old or too many, never the newest of all; whether there is more to forget.
    /// Little at once, so that no commit waits for it.
    fn forget(&self, journal: Journal, keep: Keep) -> Result<bool, DbError>;
}

//! SQLite: write-ahead log, `synchronous=FULL`, one connection that writes, a few that read.
//!
//! What a crash can leave, and what [`Sqlite::open`] does with it:
//!
//! | on disk                                   | meaning                        | recovery                                |
//! |-------------------------------------------|--------------------------------|-----------------------------------------|
//! | no database file                          | first start                    | created, with the queue `default`       |
//! | an empty or half created database         | died in the first transaction  | the same: creation is one transaction   |
//! | a write-ahead log beside the database     | died at any time               | SQLite takes what was committed from it |
//! | an older schema                           | an upgrade                     | the missing steps, in one transaction   |
//! | a newer schema                            | a downgrade                    | refused                                 |
//! | a lock held on `<database>.lock`          | another server is alive        | refused                                 |
//! | a lock file nobody holds                  | that server is dead            | taken                                   |

use super::claim::{Claim, canonical};
use super::map::{
    self, AGENT_COLUMNS, Bad, FIRST_FINAL_CODE, JOB_COLUMNS, QUEUE_COLUMNS, RUN_COLUMNS, TOKEN_COLUMNS,
    signed,
};
use super::restored::{ANCESTORS, LAST_JOB, RECOVERY_LAST_JOB, restoring};
use super::{
    AgentSecrets, AnswerKey, AnswerRecord, AuditFilter, AuditRecord, Checked, Database, DbError, Entry,
    Expired, FileCount, FileRecord, FileWord, Identity, JobFilter, Journal, Keep, Piece, Place, StoreClaim,
    TokenRecord, UserRecord, Walk, check, copy, files, journal, list, schema, write,
};
use crate::operation::Tell;
use job::{JobId, RunId};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use scheduler::{
    Change, Counts, EventFilter, EventRecord, FactRecord, JobRecord, Recovery, RunRecord, Snapshot,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The embedded database.
pub struct Sqlite {
    path: PathBuf,
    database_id: [u8; 16],
    epoch: AtomicU64,
    commit: AtomicU64,
    writer: Mutex<Connection>,
    readers: Readers,
    _claim: Claim,
}

/// Connections for reading: opened when needed, up to a limit, then waited for.
struct Readers {
    path: PathBuf,
    state: Mutex<ReadersState>,
    returned: Condvar,
}

#[derive(Default)]
struct ReadersState {
    idle: Vec<Connection>,
    open: usize,
}

/// The most connections for reading.
const READERS_MAX: usize = 16;
/// So many prepared statements are kept per connection.
const STATEMENTS_MAX: usize = 128;
/// How long a connection waits for another one of this process.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// Page cache of the writing connection, KiB.
const WRITER_CACHE_KIB: i64 = 16 << 10;
/// The write-ahead log is cut back to this after a checkpoint.
const LOG_BYTES_KEPT: i64 = 64 << 20;

impl Sqlite {
    /// Opens or creates the database, claims it for this process alone, begins a new epoch.
    pub fn open(path: &Path) -> Result<Sqlite, DbError> {
        Sqlite::open_version(path, None)
    }

    fn open_version(path: &Path, steps_max: Option<usize>) -> Result<Sqlite, DbError> {
        let named = |e: DbError| match e {
            DbError::Unusable(what) | DbError::Retry(what) => {
                DbError::Unusable(format!("the database {} cannot be opened: {what}", path.display()))
            }
            DbError::Damaged(what) => DbError::Damaged(format!("{what} (in {})", path.display())),
        };
        let path = canonical(path).map_err(named)?;
        let claim = Claim::take(&path).map_err(named)?;
        if restoring(&path).exists() {
            return Err(named(DbError::Unusable(
                "a restore of it is not complete; run `lastword server restore` again, with any backup"
                    .to_owned(),
            )));
        }
        let mut writer = connect(&path).map_err(|e| named(schema::unusable(e)))?;
        let mut new_id = [0; 16];
        getrandom::fill(&mut new_id)
            .map_err(|e| named(DbError::Unusable(format!("no random bytes: {e}"))))?;
        let now_ms = os::clock::wall_ms();
        let (database_id, epoch, commit) =
            schema::open(&mut writer, steps_max, new_id, now_ms).map_err(named)?;
        let readers = Readers { path: path.clone(), state: Mutex::default(), returned: Condvar::new() };
        let (epoch, commit) = (AtomicU64::new(epoch), AtomicU64::new(commit));
        Ok(Sqlite { path, database_id, epoch, commit, writer: Mutex::new(writer), readers, _claim: claim })
    }

    /// Where it is, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves what is in the write-ahead log into the database file, so that after a controlled stop that file alone is all there is.
    /// Not needed for safety: the next start takes what was committed from either.
    pub fn fold_log(&self) -> Result<(), DbError> {
        self.write(|connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(Bad::Sql)
        })
    }

    /// All that `f` reads is from one moment, whatever is committed meanwhile.
    fn read<T>(&self, f: impl FnOnce(&Connection) -> Result<T, Bad>) -> Result<T, DbError> {
        let connection = self.readers.take().map_err(Bad::Sql)?;
        let result = in_one_moment(&connection, f);
        self.readers.give_back(connection);
        Ok(result?)
    }

    fn write<T>(&self, f: impl FnOnce(&mut Connection) -> Result<T, Bad>) -> Result<T, DbError> {
        Ok(f(&mut lock(&self.writer))?)
    }
}

/// `f` in one deferred transaction, which an error rolls back.
fn in_one_moment<T>(
    connection: &Connection,
    f: impl FnOnce(&Connection) -> Result<T, Bad>,
) -> Result<T, Bad> {
    let transaction = connection.unchecked_transaction()?;
    let result = f(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

impl Readers {
    fn take(&self) -> rusqlite::Result<Connection> {
        let mut state = lock(&self.state);
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(connection);
            }
            if state.open < READERS_MAX {
                break;
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.open += 1;
        drop(state);
        let opened = self.open();
        if opened.is_err() {
            lock(&self.state).open -= 1;
            self.returned.notify_one();
        }
        opened
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_MAX)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        let mut state = lock(&self.state);
        if connection.is_autocommit() {
            state.idle.push(connection);
        } else {
            state.open -= 1; // its transaction could not be ended: it would go on showing the past
        }
        drop(state);
        self.returned.notify_one();
    }
}

impl Database for Sqlite {
    fn identity(&self) -> Identity {
        Identity { database_id: self.database_id, epoch: self.epoch.load(Ordering::Acquire) }
    }

    fn raise_epoch(&self, seen: u64) -> Result<u64, DbError> {
        self.write(|connection| {
            let present = self.epoch.load(Ordering::Acquire); // only changed under the writer's lock
            if present > seen {
                return Ok(present);
            }
            let next =
                i64::try_from(seen + 1).map_err(|_| Bad::Content(format!("{seen} cannot be an epoch")))?;
            connection.execute("UPDATE meta SET value = ?1 WHERE key = 'epoch'", [next])?;
            self.epoch.store(seen + 1, Ordering::Release);
            Ok(seen + 1)
        })
    }

    fn ancestors(&self) -> Result<Vec<[u8; 16]>, DbError> {
        let all = self.read(|c| {
            one(c, "SELECT value FROM meta WHERE key = ?1", [ANCESTORS], |row| Ok(row.get::<_, Vec<u8>>(0)?))
        })?;
        Ok(all.unwrap_or_default().as_chunks().0.to_vec())
    }

    fn copy_to(&self, to: &Path, tell: Tell<'_>) -> Result<(), DbError> {
        let source = self.readers.open().map_err(Bad::Sql)?; // its own: the log of a reader is kept for long
        Ok(copy::copy(&source, to, tell)?)
    }

    fn check(&self, tell: Tell<'_>) -> Result<Checked, DbError> {
        self.read(|c| check::check(c, tell))
    }

    fn schema(&self) -> Result<u32, DbError> {
        let version =
            self.read(|c| Ok(c.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0))?))?;
        Ok(version)
    }

    fn commit_number(&self) -> u64 {
        self.commit.load(Ordering::Acquire)
    }

    fn load(&self) -> Result<Snapshot, DbError> {
        self.read(|c| {
            let live_jobs =
                format!("SELECT {JOB_COLUMNS} FROM jobs WHERE status < {FIRST_FINAL_CODE} ORDER BY id");
            // Looked up job by job: there are few jobs that are not final, and many runs.
            let live_runs = format!(
                "SELECT {} FROM jobs CROSS JOIN runs ON runs.run = jobs.run \
                 WHERE jobs.status < {FIRST_FINAL_CODE} AND runs.status < {FIRST_FINAL_CODE}",
                qualified("runs", RUN_COLUMNS)
            );
            Ok(Snapshot {
                jobs: rows(c, &live_jobs, [], map::job)?,
                runs: rows(c, &live_runs, [], map::run)?,
                queues: rows(
                    c,
                    &format!("SELECT {QUEUE_COLUMNS} FROM queues ORDER BY name"),
                    [],
                    map::queue,
                )?,
                agents: rows(
                    c,
                    &format!("SELECT {AGENT_COLUMNS} FROM agents ORDER BY name"),
                    [],
                    map::agent,
                )?,
                attachments: rows(
                    c,
                    "SELECT queue, agent FROM attachments ORDER BY queue, agent",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?,
                last_job: last_job(c)?,
                last_run: last_run(c)?,
                recovery: recovery(c)?,
                counts: counts(c)?,
                last_event: journal::kept(c, "events")?.map_or(0, |(_, newest)| newest),
            })
        })
    }

    fn commit_with(&self, batch: &[Change], entries: &[Entry]) -> Result<u64, DbError> {
        let number = self.write(|c| Ok(write::commit(c, batch, entries, os::clock::wall_ms())?))?;
        self.commit.store(number, Ordering::Release);
        Ok(number)
    }

    fn job(&self, job: JobId) -> Result<Option<JobRecord>, DbError> {
        let sql = format!("SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?1");
        self.read(|c| one(c, &sql, [signed(job.0)], map::job))
    }

    fn runs(&self, job: JobId) -> Result<Vec<RunRecord>, DbError> {
        let sql = format!("SELECT {RUN_COLUMNS} FROM runs WHERE job = ?1 ORDER BY attempt");
        self.read(|c| rows(c, &sql, [signed(job.0)], map::run))
    }

    fn run(&self, run: RunId) -> Result<Option<RunRecord>, DbError> {
        let sql = format!("SELECT {RUN_COLUMNS} FROM runs WHERE run = ?1");
        self.read(|c| one(c, &sql, [run.as_bytes().as_slice()], map::run))
    }

    fn jobs(
        &self,
        filter: &JobFilter,
        cursor: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobRecord>, DbError> {
        self.read(|c| list::jobs(c, filter, cursor, limit))
    }

    fn expired(&self, expired: &Expired) -> Result<Vec<JobId>, DbError> {
        self.read(|c| list::expired(c, expired))
    }

    fn job_of_key(&self, key: &str) -> Result<Option<JobId>, DbError> {
        let sql = "SELECT id FROM jobs WHERE idempotency_key = ?1";
        let id = self.read(|c| one(c, sql, [key], |row| Ok(row.get::<_, i64>(0)?)))?;
        Ok(id.and_then(|id| u64::try_from(id).ok()).map(JobId))
    }

    fn counts(&self) -> Result<Counts, DbError> {
        self.read(counts)
    }

    fn facts(&self, run: RunId) -> Result<Vec<FactRecord>, DbError> {
        let sql = "SELECT run, seq, received_at, commit_number, bytes, committed_at FROM facts WHERE run = ?1 UNION ALL \
                   SELECT run, seq, received_at, commit_number, bytes, NULL FROM strays WHERE run = ?1 ORDER BY seq";
        self.read(|c| rows(c, sql, [run.as_bytes().as_slice()], map::fact))
    }

    fn stray_seq(&self, run: RunId) -> Result<u64, DbError> {
        let sql = "SELECT max(seq) FROM strays WHERE run = ?1";
        let id = [run.as_bytes().as_slice()];
        let seq = self.read(|c| one(c, sql, id, |row| Ok(row.get::<_, Option<i64>>(0)?)))?;
        Ok(seq.flatten().and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0))
    }

    fn events(&self, filter: &EventFilter, from: Walk, limit: usize) -> Result<Piece<EventRecord>, DbError> {
        self.read(|c| journal::events(c, filter, from, limit))
    }

    fn events_kept(&self) -> Result<Option<(u64, u64)>, DbError> {
        self.read(|c| journal::kept(c, "events"))
    }

    fn stray_runs(&self, limit: usize) -> Result<Vec<(RunId, String)>, DbError> {
        let sql = "SELECT run, min(agent) FROM strays GROUP BY run ORDER BY run LIMIT ?1";
        self.read(|c| {
            rows(c, sql, [signed(limit as u64)], |row| {
                Ok((map::run_id(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?, row.get(1)?))
            })
        })
    }

    fn strays(&self) -> Result<u64, DbError> {
        let count =
            self.read(|c| one(c, "SELECT count(*) FROM strays", [], |row| Ok(row.get::<_, i64>(0)?)))?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }

    fn secrets(&self) -> Result<Vec<AgentSecrets>, DbError> {
        let sql = "SELECT agent, secret FROM secrets ORDER BY agent, number DESC";
        let all: Vec<(String, Vec<u8>)> =
            self.read(|c| rows(c, sql, [], |row| Ok((row.get(0)?, row.get(1)?))))?;
        let mut by_agent: Vec<AgentSecrets> = Vec::new();
        for (agent, secret) in all {
            match by_agent.last_mut().filter(|last| last.agent == agent) {
                Some(last) => last.secrets.push(secret),
                None => by_agent.push(AgentSecrets { agent, secrets: vec![secret] }),
            }
        }
        Ok(by_agent)
    }

    fn tokens(&self) -> Result<Vec<TokenRecord>, DbError> {
        let sql = format!("SELECT {TOKEN_COLUMNS} FROM tokens ORDER BY id");
        self.read(|c| rows(c, &sql, [], map::token))
    }

    fn users(&self) -> Result<Vec<UserRecord>, DbError> {
        self.read(|c| rows(c, "SELECT name, disabled, created_at FROM users ORDER BY name", [], map::user))
    }

    fn audit(&self, filter: &AuditFilter, from: Walk, limit: usize) -> Result<Piece<AuditRecord>, DbError> {
        self.read(|c| journal::audit(c, filter, from, limit))
    }

    fn last_audit(&self) -> Result<u64, DbError> {
        Ok(self.read(|c| journal::kept(c, "audit"))?.map_or(0, |(_, newest)| newest))
    }

    fn answer(&self, key: &AnswerKey) -> Result<Option<AnswerRecord>, DbError> {
        let sql = "SELECT digest, reply, at FROM answers WHERE user = ?1 AND key = ?2 AND part = ?3";
        self.read(|c| one(c, sql, params![key.user, key.key, key.part], |row| map::answer(row, key)))
    }

    fn files(&self, run: RunId) -> Result<Vec<FileRecord>, DbError> {
        self.read(|c| files::of_run(c, run))
    }

    fn files_awaited_from(&self) -> Result<Vec<String>, DbError> {
        self.read(files::awaited_from)
    }

    fn files_due(
        &self,
        agent: &str,
        now_ms: i64,
        pause_ms_max: i64,
        limit: usize,
    ) -> Result<Vec<FileRecord>, DbError> {
        self.read(|c| files::due(c, agent, now_ms, pause_ms_max, limit))
    }

    fn file_words_to(&self) -> Result<Vec<String>, DbError> {
        self.read(files::words_to)
    }

    fn file_words(&self, agent: &str, limit: usize) -> Result<Vec<FileWord>, DbError> {
        self.read(|c| files::words(c, agent, limit))
    }

    fn files_oldest(&self, limit: usize) -> Result<Vec<FileRecord>, DbError> {
        self.read(|c| files::oldest(c, limit))
    }

    fn files_stored_after(&self, after: &(RunId, String), limit: usize) -> Result<Vec<FileRecord>, DbError> {
        self.read(|c| files::stored_after(c, after, limit))
    }

    fn file_objects_gone(&self, limit: usize) -> Result<Vec<String>, DbError> {
        self.read(|c| files::objects_gone(c, limit))
    }

    fn file_counts(&self) -> Result<[FileCount; Place::ALL.len()], DbError> {
        self.read(files::counts)
    }

    fn store_claim(&self) -> Result<StoreClaim, DbError> {
        self.read(files::claim)
    }

    fn forget(&self, journal: Journal, keep: Keep) -> Result<bool, DbError> {
        self.write(|c| Ok(journal::forget(c, journal, keep)?))
    }
}

/// The highest number of a job that was given, or may have been given by a server that knew more.
fn last_job(c: &Connection) -> Result<u64, Bad> {
    let highest = one(c, "SELECT max(id) FROM jobs", [], |row| Ok(row.get::<_, Option<i64>>(0)?))?.flatten();
    let highest = highest.and_then(|id| u64::try_from(id).ok()).unwrap_or(0);
    Ok(highest.max(meta(c, LAST_JOB)?.unwrap_or(0)))
}

fn last_run(c: &Connection) -> Result<Option<RunId>, Bad> {
    one(c, "SELECT max(run) FROM runs", [], |row| map::optional_run_id(row.get(0)?)).map(Option::flatten)
}

/// What a restore has left to do.
fn recovery(c: &Connection) -> Result<Option<Recovery>, Bad> {
    let untold: Vec<String> = rows(c, "SELECT agent FROM untold", [], |row| Ok(row.get(0)?))?;
    let last_job = meta(c, RECOVERY_LAST_JOB)?.unwrap_or(0);
    Ok((!untold.is_empty()).then(|| Recovery { last_job, untold: untold.into_iter().collect() }))
}

pub(super) fn meta(c: &Connection, key: &str) -> Result<Option<u64>, Bad> {
    let value = one(c, "SELECT value FROM meta WHERE key = ?1", [key], |row| Ok(row.get::<_, i64>(0)?))?;
    Ok(value.and_then(|value| u64::try_from(value).ok()))
}

/// Looks for contradictions in a file that no server uses, or that one does.
pub fn check_file(path: &Path, tell: Tell<'_>) -> Result<Checked, DbError> {
    let connection = copy::open_to_read(path).map_err(Bad::Sql)?;
    Ok(check::check(&connection, tell)?)
}

/// All jobs by status.
fn counts(connection: &Connection) -> Result<Counts, Bad> {
    let sql = "SELECT status, count(*) FROM jobs GROUP BY status";
    let by_status = rows(connection, sql, [], |row| Ok((map::status(row.get(0)?)?, row.get::<_, i64>(1)?)))?;
    let mut counts = Counts::default();
    for (status, count) in by_status {
        counts.0[status as usize] = u64::try_from(count).unwrap_or(0);
    }
    Ok(counts)
}

pub(super) fn qualified(table: &str, columns: &str) -> String {
    columns.split(',').map(|column| format!("{table}.{}", column.trim())).collect::<Vec<_>>().join(", ")
}

pub(super) fn rows<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    map: impl Fn(&Row<'_>) -> Result<T, Bad>,
) -> Result<Vec<T>, Bad> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(map(row)?);
    }
    Ok(found)
}

pub(super) fn one<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    map: impl Fn(&Row<'_>) -> Result<T, Bad>,
) -> Result<Option<T>, Bad> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row(values, |row| Ok(map(row))).optional()?.transpose()
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;

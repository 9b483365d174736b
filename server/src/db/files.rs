//! Files that were kept of jobs: where each of them is, what is left to be done for it.
//!
//! | place     | means                                                   | leaves it by                                            |
//! |-----------|---------------------------------------------------------|---------------------------------------------------------|
//! | `Agent`   | its agent has it; it is to be fetched                   | stored; lost, when its agent cannot give it any more    |
//! | `Stored`  | it is in the file store under its key                   | removed by retention; `Agent`, if the store has lost it |
//! | `Lost`    | nobody has it, as far as is known                       | the store turns out to have it                          |
//! | `Removed` | it was in the store until retention took it             | nothing                                                 |
//!
//! Two lists beside it are what is owed to others: words to agents (`file_words`: the server has all files of this run) and objects that nothing
//! names any more (`file_objects_gone`). An entry is made in the commit that makes it true, and goes when what it says was done.

use super::map::{Bad, run_id, signed, unsigned};
use super::sqlite::{one, rows};
use job::{JobId, RunId};
use rusqlite::{Connection, Row, params};
use scheduler::KeptFile;

/// Where a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// With its agent.
    Agent,
    /// In the file store.
    Stored,
    /// Nowhere, as far as is known.
    Lost,
    /// Nowhere any more.
    Removed,
}

impl Place {
    /// All, in the order of a file's life.
    pub const ALL: [Place; 4] = [Place::Agent, Place::Stored, Place::Lost, Place::Removed];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Place::Agent => "agent",
            Place::Stored => "stored",
            Place::Lost => "lost",
            Place::Removed => "removed",
        }
    }

    fn code(self) -> i64 {
        match self {
            Place::Agent => 1,
            Place::Stored => 2,
            Place::Lost => 3,
            Place::Removed => 4,
        }
    }
}

/// A file with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// What its agent told of it.
    pub file: KeptFile,
    /// Where it is.
    pub place: Place,
    /// Since when, the server's wall clock; while it was with its agent from the beginning: 0.
    pub at_ms: i64,
    /// Under which key it is in the store.
    pub key: Option<String>,
    /// Why it is where it is, or was not fetched yet.
    pub reason: Option<String>,
    /// How often it could not be fetched.
    pub tries: u32,
    /// Its job's queue.
    pub queue: Option<String>,
}

/// Something that became of a file, or of the store. Each may be written twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// It is in the store. If nobody wants it there any more, its object is to go.
    Stored {
        /// Of this run.
        run: RunId,
        /// Its name.
        name: String,
        /// Where in the store.
        key: String,
        /// When, wall clock.
        at_ms: i64,
    },
    /// It could not be fetched; it is tried again.
    Delayed {
        /// Of this run.
        run: RunId,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
        /// How often by now.
        tries: u32,
        /// Not before, wall clock.
        next_at_ms: i64,
    },
    /// Nobody can give it any more.
    Lost {
        /// Of this run.
        run: RunId,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
        /// When that became clear, wall clock.
        at_ms: i64,
    },
    /// The store does not have what it should have: it is fetched again.
    Missing {
        /// Of this run.
        run: RunId,
        /// Its name.
        name: String,
        /// What was noticed.
        reason: String,
        /// When, wall clock.
        at_ms: i64,
    },
    /// Its time in the store is over.
    Removed {
        /// Of this run.
        run: RunId,
        /// Its name.
        name: String,
        /// By which rule.
        reason: String,
        /// When, wall clock.
        at_ms: i64,
    },
    /// The run's agent knows that the server has its files.
    Told(RunId),
    /// The object is not in the store any more.
    ObjectDeleted(String),
    /// This store has our mark.
    Claimed(String),
}

/// Files of one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCount {
    /// How many.
    pub files: u64,
    /// Together.
    pub bytes: u64,
}

/// A word that is owed to an agent: the server has so many files of the run, and misses none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileWord {
    /// Which run.
    pub run: RunId,
    /// Files of it that the server knows.
    pub files: u64,
}

/// How the database knows its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreClaim {
    /// What stands in the mark of our store. A backup has it too, so that a restored server finds its store.
    pub id: [u8; 16],
    /// The address of the store that was marked last.
    pub url: Option<String>,
}

const COLUMNS: &str = "run, name, job, agent, bytes, sha256, kept_at, place, at, key, reason, tries, \
                       (SELECT queue FROM jobs WHERE jobs.id = files.job)";

/// Keys of table `meta`.
const STORE_ID: &str = "store_id";
const STORE_URL: &str = "store_url";

/// In the order of [`COLUMNS`].
fn record(row: &Row<'_>) -> Result<FileRecord, Bad> {
    let place: i64 = row.get(7)?;
    let known = Place::ALL.into_iter().find(|known| known.code() == place);
    Ok(FileRecord {
        file: KeptFile {
            run: run_of(row)?,
            name: row.get(1)?,
            job: JobId(unsigned(row.get(2)?)?),
            agent: row.get(3)?,
            bytes: unsigned(row.get(4)?)?,
            sha256: row.get(5)?,
            kept_at_ms: row.get(6)?,
        },
        place: known.ok_or_else(|| Bad::Content(format!("{place} is the number of no place of a file")))?,
        at_ms: row.get(8)?,
        key: row.get(9)?,
        reason: row.get(10)?,
        tries: row.get(11)?,
        queue: row.get(12)?,
    })
}

/// The first column.
fn run_of(row: &Row<'_>) -> Result<RunId, Bad> {
    run_id(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)
}

pub(super) fn insert(c: &Connection, file: &KeptFile) -> rusqlite::Result<()> {
    c.prepare_cached(
        "INSERT INTO files (run, name, job, agent, bytes, sha256, kept_at, place, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0) \
         ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        file.run.as_bytes().as_slice(),
        file.name,
        signed(file.job.0),
        file.agent,
        signed(file.bytes),
        file.sha256,
        file.kept_at_ms,
        Place::Agent.code(),
    ])
    .map(drop)
}

/// All files of a job; their objects are to go.
pub(super) fn delete_of_job(c: &Connection, job: i64) -> rusqlite::Result<()> {
    const RUNS: &str = "run IN (SELECT run FROM runs WHERE job = ?1)";
    for sql in [
        format!(
            "INSERT OR IGNORE INTO file_objects_gone SELECT key FROM files WHERE {RUNS} AND key IS NOT NULL"
        ),
        format!("DELETE FROM file_words WHERE {RUNS}"),
        format!("DELETE FROM files WHERE {RUNS}"),
    ] {
        c.prepare_cached(&sql)?.execute([job])?;
    }
    Ok(())
}

pub(super) fn write(c: &Connection, change: &FileChange) -> rusqlite::Result<()> {
    match change {
        FileChange::Stored { run, name, key, at_ms } => stored(c, *run, name, key, *at_ms),
        FileChange::Delayed { run, name, reason, tries, next_at_ms } => c
            .prepare_cached(
                "UPDATE files SET reason = ?3, tries = ?4, next_at = ?5 WHERE run = ?1 AND name = ?2 AND place = 1",
            )?
            .execute(params![run.as_bytes().as_slice(), name, reason, tries, next_at_ms])
            .map(drop),
        FileChange::Lost { run, name, reason, at_ms } => {
            c.prepare_cached(
                "UPDATE files SET place = 3, at = ?4, reason = ?3 WHERE run = ?1 AND name = ?2 AND place = 1",
            )?
            .execute(params![run.as_bytes().as_slice(), name, reason, at_ms])?;
            owe_word(c, *run)
        }
        FileChange::Missing { run, name, reason, at_ms } => {
            c.prepare_cached(
                "UPDATE files SET place = 1, at = ?4, key = NULL, reason = ?3, tries = 0, next_at = 0 \
                 WHERE run = ?1 AND name = ?2 AND place = 2",
            )?
            .execute(params![run.as_bytes().as_slice(), name, reason, at_ms])?;
            told(c, *run)
        }
        FileChange::Removed { run, name, reason, at_ms } => {
            c.prepare_cached(
                "INSERT OR IGNORE INTO file_objects_gone SELECT key FROM files WHERE run = ?1 AND name = ?2 AND place = 2",
            )?
            .execute(params![run.as_bytes().as_slice(), name])?;
            c.prepare_cached(
                "UPDATE files SET place = 4, at = ?4, key = NULL, reason = ?3 WHERE run = ?1 AND name = ?2 AND place = 2",
            )?
            .execute(params![run.as_bytes().as_slice(), name, reason, at_ms])
            .map(drop)
        }
        FileChange::Told(run) => told(c, *run),
        FileChange::ObjectDeleted(key) => not_gone(c, key),
        FileChange::Claimed(url) => {
            c.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![STORE_URL, url]).map(drop)
        }
    }
}

fn stored(c: &Connection, run: RunId, name: &str, key: &str, at_ms: i64) -> rusqlite::Result<()> {
    let run_bytes = run.as_bytes().as_slice();
    c.prepare_cached(
        "UPDATE files SET place = 2, at = ?4, key = ?3, reason = NULL, tries = 0 WHERE run = ?1 AND name = ?2 AND place IN (1, 3)",
    )?
    .execute(params![run_bytes, name, key, at_ms])?;
    not_gone(c, key)?;
    c.prepare_cached(
        "INSERT OR IGNORE INTO file_objects_gone SELECT ?3 \
         WHERE NOT EXISTS (SELECT 1 FROM files WHERE run = ?1 AND name = ?2 AND place = 2 AND key = ?3)",
    )?
    .execute(params![run_bytes, name, key])?;
    owe_word(c, run)
}

/// The run's agent is to hear it, if no file of the run is awaited any more.
fn owe_word(c: &Connection, run: RunId) -> rusqlite::Result<()> {
    c.prepare_cached(
        "INSERT OR IGNORE INTO file_words SELECT run, agent FROM files WHERE run = ?1 \
         AND NOT EXISTS (SELECT 1 FROM files WHERE run = ?1 AND place = 1) LIMIT 1",
    )?
    .execute([run.as_bytes().as_slice()])
    .map(drop)
}

fn told(c: &Connection, run: RunId) -> rusqlite::Result<()> {
    c.prepare_cached("DELETE FROM file_words WHERE run = ?1")?.execute([run.as_bytes().as_slice()]).map(drop)
}

fn not_gone(c: &Connection, key: &str) -> rusqlite::Result<()> {
    c.prepare_cached("DELETE FROM file_objects_gone WHERE key = ?1")?.execute([key]).map(drop)
}

pub(super) fn of_run(c: &Connection, run: RunId) -> Result<Vec<FileRecord>, Bad> {
    let sql = format!("SELECT {COLUMNS} FROM files WHERE run = ?1 ORDER BY name");
    rows(c, &sql, [run.as_bytes().as_slice()], record)
}

/// Agents for which `table` has something, found by a step along its index for each, however much it has.
fn agents_in(c: &Connection, table: &str) -> Result<Vec<String>, Bad> {
    let sql = format!(
        "WITH RECURSIVE found (agent) AS (SELECT min(agent) FROM {table} UNION ALL \
         SELECT (SELECT min(agent) FROM {table} AND agent > found.agent) FROM found WHERE found.agent IS NOT NULL) \
         SELECT agent FROM found WHERE agent IS NOT NULL"
    );
    rows(c, &sql, [], |row| Ok(row.get(0)?))
}

pub(super) fn awaited_from(c: &Connection) -> Result<Vec<String>, Bad> {
    agents_in(c, "files WHERE place = 1")
}

pub(super) fn words_to(c: &Connection) -> Result<Vec<String>, Bad> {
    agents_in(c, "file_words WHERE TRUE")
}

/// `pause_ms_max`: a moment that lies further ahead is one of a clock that was set back since.
pub(super) fn due(
    c: &Connection,
    agent: &str,
    now_ms: i64,
    pause_ms_max: i64,
    limit: usize,
) -> Result<Vec<FileRecord>, Bad> {
    let sql = format!(
        "SELECT {COLUMNS} FROM files INDEXED BY files_awaited WHERE place = 1 AND agent = ?1 \
         AND (next_at <= ?2 OR next_at > ?3) ORDER BY next_at LIMIT ?4"
    );
    let latest = now_ms.saturating_add(pause_ms_max);
    rows(c, &sql, params![agent, now_ms, latest, signed(limit as u64)], record)
}

pub(super) fn words(c: &Connection, agent: &str, limit: usize) -> Result<Vec<FileWord>, Bad> {
    let sql = "SELECT run, (SELECT count(*) FROM files WHERE files.run = file_words.run) FROM file_words \
               WHERE agent = ?1 ORDER BY run LIMIT ?2";
    rows(c, sql, params![agent, signed(limit as u64)], |row| {
        Ok(FileWord { run: run_of(row)?, files: unsigned(row.get(1)?)? })
    })
}

/// Of those in the store the one that is there for longest first.
pub(super) fn oldest(c: &Connection, limit: usize) -> Result<Vec<FileRecord>, Bad> {
    let sql =
        format!("SELECT {COLUMNS} FROM files INDEXED BY files_by_place WHERE place = 2 ORDER BY at LIMIT ?1");
    rows(c, &sql, [signed(limit as u64)], record)
}

/// Of those in the store the next ones behind a run and a name.
pub(super) fn stored_after(
    c: &Connection,
    after: &(RunId, String),
    limit: usize,
) -> Result<Vec<FileRecord>, Bad> {
    let sql = format!(
        "SELECT {COLUMNS} FROM files WHERE (run, name) > (?1, ?2) AND place = 2 ORDER BY run, name LIMIT ?3"
    );
    rows(c, &sql, params![after.0.as_bytes().as_slice(), after.1, signed(limit as u64)], record)
}

pub(super) fn objects_gone(c: &Connection, limit: usize) -> Result<Vec<String>, Bad> {
    rows(c, "SELECT key FROM file_objects_gone ORDER BY key LIMIT ?1", [signed(limit as u64)], |row| {
        Ok(row.get(0)?)
    })
}

pub(super) fn counts(c: &Connection) -> Result<[FileCount; Place::ALL.len()], Bad> {
    let sql =
        "SELECT place, count(*), ifnull(sum(bytes), 0) FROM files INDEXED BY files_by_place GROUP BY place";
    let found = rows(c, sql, [], |row| {
        let place: i64 = row.get(0)?;
        Ok((place, FileCount { files: unsigned(row.get(1)?)?, bytes: unsigned(row.get(2)?)? }))
    })?;
    Ok(Place::ALL.map(|place| {
        let of_place = found.iter().find(|(code, _)| *code == place.code());
        of_place.map(|(_, count)| *count).unwrap_or_default()
    }))
}

pub(super) fn claim(c: &Connection) -> Result<StoreClaim, Bad> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let id = one(c, sql, [STORE_ID], |row| Ok(row.get::<_, Vec<u8>>(0)?))?;
    let id = id.and_then(|id| id.try_into().ok());
    Ok(StoreClaim {
        id: id.ok_or_else(|| Bad::Content(format!("table meta has no usable {STORE_ID}")))?,
        url: one(c, sql, [STORE_URL], |row| Ok(row.get(0)?))?,
    })
}

//! The tables, one step per version of the schema. A step that was released never changes; a change is a new step.

use super::DbError;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// Marks a SQLite file as ours: "LwSv".
const APPLICATION_ID: i32 = 0x4c77_5376;

/// Step `n` leads from version `n` to `n + 1`.
const STEPS: &[&str] = &["
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY, status INTEGER NOT NULL, name TEXT NOT NULL, queue TEXT NOT NULL, agent TEXT,
    priority INTEGER NOT NULL, pinned TEXT, held INTEGER NOT NULL, idempotency_key TEXT,
    submitted_at INTEGER NOT NULL, started_at INTEGER, ended_at INTEGER,
    attempts INTEGER NOT NULL, run BLOB, exit_code INTEGER, signal INTEGER, reason TEXT,
    kill_by TEXT, kill_grace INTEGER, kill_at INTEGER, spec BLOB NOT NULL);
-- Every list is one walk along (what was asked for, status, id) from the end.
CREATE INDEX jobs_by_status ON jobs (status, id);
CREATE INDEX jobs_by_queue ON jobs (queue, status, id);
CREATE INDEX jobs_by_agent ON jobs (agent, status, id);
CREATE INDEX jobs_by_name ON jobs (name, status, id);
CREATE INDEX jobs_by_key ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE runs (
    run BLOB PRIMARY KEY, job INTEGER NOT NULL, attempt INTEGER NOT NULL, agent TEXT NOT NULL, status INTEGER NOT NULL,
    placed_at INTEGER NOT NULL, accepted_at INTEGER, started_at INTEGER, ended_at INTEGER,
    exit_code INTEGER, signal INTEGER, core INTEGER NOT NULL, witness INTEGER, reason TEXT,
    cpu_ms INTEGER, max_rss_kib INTEGER, acked_seq INTEGER NOT NULL,
    late BLOB, late_ended_at INTEGER, late_received_at INTEGER, late_seq INTEGER) WITHOUT ROWID;
CREATE INDEX runs_by_job ON runs (job);

CREATE TABLE facts (
    run BLOB, seq INTEGER, received_at INTEGER NOT NULL, commit_number INTEGER NOT NULL, bytes BLOB NOT NULL,
    PRIMARY KEY (run, seq)) WITHOUT ROWID;
CREATE TABLE strays (
    run BLOB, seq INTEGER, agent TEXT NOT NULL, received_at INTEGER NOT NULL, commit_number INTEGER NOT NULL,
    bytes BLOB NOT NULL, PRIMARY KEY (run, seq)) WITHOUT ROWID;

CREATE TABLE queues (name TEXT PRIMARY KEY, held INTEGER NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE agents (
    name TEXT PRIMARY KEY, slots INTEGER NOT NULL, host TEXT, port INTEGER, added_at INTEGER NOT NULL,
    agent_id BLOB, boot_id BLOB, incarnation INTEGER, software TEXT NOT NULL, platform TEXT NOT NULL,
    connected_at INTEGER, disconnected_at INTEGER, stopped INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE attachments (queue TEXT, agent TEXT, PRIMARY KEY (queue, agent)) WITHOUT ROWID;
CREATE TABLE secrets (agent TEXT, number INTEGER, secret BLOB NOT NULL, PRIMARY KEY (agent, number)) WITHOUT ROWID;
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, hash TEXT NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID;
", "
-- Read by number only: what else is asked for is picked out on the way.
CREATE TABLE events (
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, severity INTEGER NOT NULL, object TEXT NOT NULL,
    queue TEXT, text TEXT NOT NULL, data TEXT NOT NULL);
", "
-- Only what changes when a job changes is in an index that has to be written then; see `list.rs`.
DROP INDEX jobs_by_status;
DROP INDEX jobs_by_queue;
DROP INDEX jobs_by_agent;
DROP INDEX jobs_by_name;
CREATE INDEX jobs_by_status ON jobs (status);
CREATE INDEX jobs_by_queue ON jobs (queue);
CREATE INDEX jobs_by_agent ON jobs (agent) WHERE agent IS NOT NULL;
CREATE INDEX jobs_by_name ON jobs (name);
CREATE INDEX jobs_by_exit_code ON jobs (exit_code) WHERE exit_code > 0;
CREATE INDEX failed_jobs_by_queue ON jobs (queue) WHERE status IN (9, 10, 12, 13);
CREATE INDEX failed_jobs_by_agent ON jobs (agent) WHERE status IN (9, 10, 12, 13);
CREATE INDEX failed_jobs_by_name ON jobs (name) WHERE status IN (9, 10, 12, 13);

-- When the commit of a fact began, the server's wall clock.
ALTER TABLE facts ADD COLUMN committed_at INTEGER;

-- After a restore: agents that have not told yet what they ran since the backup.
CREATE TABLE untold (agent TEXT PRIMARY KEY) WITHOUT ROWID;
", "
ALTER TABLE agents ADD COLUMN drain_by TEXT;
ALTER TABLE agents ADD COLUMN drain_reason TEXT;
ALTER TABLE agents ADD COLUMN drain_at INTEGER;
ALTER TABLE agents ADD COLUMN trouble TEXT;
ALTER TABLE agents ADD COLUMN trouble_at INTEGER;
ALTER TABLE agents ADD COLUMN rival_boot_id BLOB;
ALTER TABLE jobs ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;
", "
-- What follows a job's attempts; slots and priorities of queues.
ALTER TABLE jobs ADD COLUMN settings BLOB;
ALTER TABLE jobs ADD COLUMN wait INTEGER;
ALTER TABLE jobs ADD COLUMN wait_until INTEGER;
ALTER TABLE jobs ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN previous INTEGER;
ALTER TABLE queues ADD COLUMN slots INTEGER;
ALTER TABLE queues ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
", "
-- The wish that a job stands still (1) or goes on (0), and what a run used.
ALTER TABLE jobs ADD COLUMN pause_by TEXT;
ALTER TABLE jobs ADD COLUMN pause_at INTEGER;
ALTER TABLE jobs ADD COLUMN pause_suspend INTEGER;
ALTER TABLE runs ADD COLUMN user_ms INTEGER;
ALTER TABLE runs ADD COLUMN system_ms INTEGER;
ALTER TABLE runs ADD COLUMN memory_peak_kib INTEGER;
ALTER TABLE runs ADD COLUMN read_bytes INTEGER;
ALTER TABLE runs ADD COLUMN written_bytes INTEGER;
ALTER TABLE runs ADD COLUMN oom_kills INTEGER;
ALTER TABLE runs ADD COLUMN context_switches INTEGER;
ALTER TABLE runs ADD COLUMN processes_peak INTEGER;
", "
CREATE TABLE users (name TEXT PRIMARY KEY, disabled INTEGER NOT NULL, created_at INTEGER NOT NULL) WITHOUT ROWID;
ALTER TABLE tokens ADD COLUMN user TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN expires_at INTEGER;
ALTER TABLE tokens ADD COLUMN revoked_at INTEGER;
ALTER TABLE tokens ADD COLUMN used_at INTEGER;
UPDATE tokens SET user = name;
INSERT INTO users SELECT name, 0, min(created_at) FROM tokens GROUP BY name;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, user TEXT NOT NULL, token TEXT NOT NULL, role TEXT NOT NULL,
    origin TEXT NOT NULL, via TEXT NOT NULL, action TEXT NOT NULL, object TEXT NOT NULL, detail TEXT NOT NULL, reason TEXT,
    refusal TEXT);

CREATE TABLE answers (
    user TEXT, key TEXT, part INTEGER, digest BLOB NOT NULL, reply TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (user, key, part)) WITHOUT ROWID;
CREATE INDEX answers_by_age ON answers (at);
", "
-- Where the files are that were kept of jobs, and what is owed to others for them; see `files.rs`.
CREATE TABLE files (
    run BLOB, name TEXT, job INTEGER NOT NULL, agent TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 BLOB NOT NULL, kept_at INTEGER,
    place INTEGER NOT NULL, at INTEGER NOT NULL, key TEXT, reason TEXT, tries INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run, name)) WITHOUT ROWID;
CREATE INDEX files_awaited ON files (agent, next_at) WHERE place = 1;
CREATE INDEX files_by_place ON files (place, at, bytes);
CREATE TABLE file_words (run BLOB PRIMARY KEY, agent TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX file_words_by_agent ON file_words (agent);
CREATE TABLE file_objects_gone (key TEXT PRIMARY KEY) WITHOUT ROWID;
-- A backup and what is restored from it have the same store.
INSERT INTO meta SELECT 'store_id', value FROM meta WHERE key = 'database_id';
", "
-- For a list of so many values SQLite makes a temporary table, for each index and at each change of a job.
DROP INDEX failed_jobs_by_queue;
DROP INDEX failed_jobs_by_agent;
DROP INDEX failed_jobs_by_name;
CREATE INDEX failed_jobs_by_queue ON jobs (queue) WHERE status = 9 OR status = 10 OR status = 12 OR status = 13;
CREATE INDEX failed_jobs_by_agent ON jobs (agent) WHERE status = 9 OR status = 10 OR status = 12 OR status = 13;
CREATE INDEX failed_jobs_by_name ON jobs (name) WHERE status = 9 OR status = 10 OR status = 12 OR status = 13;
"];

/// Brings the file to the newest version and begins a new epoch. Returns the database's id, the epoch and the number of the last
/// commit.
pub(super) fn open(
    connection: &mut Connection,
    steps_max: Option<usize>,
    new_id: [u8; 16],
    now_ms: i64,
) -> Result<([u8; 16], u64, u64), DbError> {
    let newest = steps_max.unwrap_or(STEPS.len()).min(STEPS.len());
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unusable)?;
    if bring_up_to_date(&transaction, newest)? == 0 {
        create(&transaction, new_id, now_ms).map_err(unusable)?;
    }
    transaction.execute("UPDATE meta SET value = value + 1 WHERE key = 'epoch'", []).map_err(unusable)?;
    let meta = read_meta(&transaction)?;
    transaction.commit().map_err(unusable)?;
    Ok(meta)
}

/// Takes the missing steps up to version `newest`; returns the version that it was.
pub(super) fn bring_up_to_date(transaction: &Connection, newest: usize) -> Result<usize, DbError> {
    let version = version_of(transaction)?;
    if version > newest {
        return Err(DbError::Unusable(format!(
            "it has schema version {version}, and this program knows versions up to {newest}: a newer version of the server wrote it. \
             Install that version again, or restore a backup from before the upgrade"
        )));
    }
    for step in &STEPS[version..newest] {
        transaction.execute_batch(step).map_err(unusable)?;
    }
    let number = i64::try_from(newest).unwrap_or(i64::MAX);
    transaction.pragma_update(None, "user_version", number).map_err(unusable)?;
    Ok(version)
}

/// The version of a file's tables; 0 for an empty file.
pub(super) fn version_of(connection: &Connection) -> Result<usize, DbError> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let version = usize::try_from(pragma("user_version").map_err(unusable)?).unwrap_or(usize::MAX);
    let ours = pragma("application_id").map_err(unusable)? == APPLICATION_ID;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(unusable)?;
    if !ours && (version != 0 || tables != 0) {
        return Err(DbError::Unusable("it is a SQLite file of another program".to_owned()));
    }
    Ok(version)
}

/// The newest version that this program knows.
pub(super) fn newest() -> usize {
    STEPS.len()
}

fn create(connection: &Connection, new_id: [u8; 16], now_ms: i64) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.execute(
        "INSERT INTO meta VALUES ('database_id', ?1), ('store_id', ?1), ('epoch', 0), ('commit', 0)",
        [new_id],
    )?;
    connection
        .execute("INSERT INTO queues (name, held, created_at) VALUES ('default', 0, ?1)", params![now_ms])?;
    Ok(())
}

pub(super) fn read_meta(connection: &Connection) -> Result<([u8; 16], u64, u64), DbError> {
    let missing = |key: &str| DbError::Damaged(format!("table meta has no usable {key}"));
    let number = |key: &str| -> Result<u64, DbError> {
        let value: Option<i64> = connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(unusable)?;
        value.and_then(|value| u64::try_from(value).ok()).ok_or_else(|| missing(key))
    };
    let id: Option<Vec<u8>> = connection
        .query_row("SELECT value FROM meta WHERE key = 'database_id'", [], |row| row.get(0))
        .optional()
        .map_err(unusable)?;
    let id = id.and_then(|id| id.try_into().ok()).ok_or_else(|| missing("database_id"))?;
    Ok((id, number("epoch")?, number("commit")?))
}

pub(super) fn unusable(e: rusqlite::Error) -> DbError {
    DbError::Unusable(e.to_string())
}

//! Makes a copied database one that a server can go on with, and compares it with the one that it replaces.

use super::copy::{self, Contents, single_file};
use super::map::{Bad, FIRST_FINAL_CODE, signed};
use super::schema;
use super::{DbError, claim};
use protocol::reconcile::ANCESTORS_MAX;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::path::Path;

/// How far the epoch goes beyond every one that is known. An epoch begins with every start of a server, so no server can have started so
/// often since the backup that its agents would not obey the restored one.
pub const EPOCH_LEAP: u64 = 1 << 20;
/// How far the numbers of jobs go beyond the backup's if nobody knows which were given since.
const JOB_LEAP: u64 = 1_000_000;

/// What is known of the time between the backup and now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// The highest epoch.
    pub epoch: Option<u64>,
    /// The highest job number.
    pub last_job: Option<u64>,
}

/// Prepares the copy of a backup, a file that nobody else knows: the newest tables, an epoch that every agent obeys, new numbers for new jobs,
/// and the list of agents that have to tell what they ran since. Durable when it returns.
pub fn prepare(path: &Path, since: Since) -> Result<Contents, DbError> {
    let named = |e: DbError| DbError::Unusable(format!("preparing {}: {e}", path.display()));
    let mut connection = Connection::open(path).map_err(|e| named(schema::unusable(e)))?;
    write(&mut connection, since).map_err(named)?;
    single_file(&connection).map_err(|bad| named(bad.into()))?;
    drop(connection);
    let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| named(DbError::Unusable(format!("syncing it: {e}"))))?;
    copy::contents(path)
}

fn write(connection: &mut Connection, since: Since) -> Result<(), DbError> {
    connection.pragma_update(None, "synchronous", "FULL").map_err(schema::unusable)?;
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(schema::unusable)?;
    schema::bring_up_to_date(&transaction, schema::newest())?;
    let (id, epoch, _) = schema::read_meta(&transaction)?;
    let last_job: Option<i64> =
        transaction.query_row("SELECT max(id) FROM jobs", [], |row| row.get(0)).map_err(schema::unusable)?;
    let last_job = last_job.and_then(|id| u64::try_from(id).ok()).unwrap_or(0);
    let next_epoch = epoch.max(since.epoch.unwrap_or(0)).saturating_add(EPOCH_LEAP);
    let next_job = since.last_job.map_or(last_job.saturating_add(JOB_LEAP), |seen| seen.max(last_job));
    let put = |key: &str, value: u64| {
        let sql = "INSERT OR REPLACE INTO meta VALUES (?1, ?2)";
        transaction.execute(sql, params![key, signed(value)]).map_err(schema::unusable)
    };
    put("epoch", next_epoch)?;
    put(LAST_JOB, next_job)?;
    put(RECOVERY_LAST_JOB, last_job)?;
    rename(&transaction, id)?;
    transaction
        .execute_batch("DELETE FROM untold; INSERT INTO untold SELECT name FROM agents")
        .map_err(schema::unusable)?;
    transaction.commit().map_err(schema::unusable)
}

/// The restored database is another one, and remembers whose picture it is: so agents know that it may lack what they have settled.
fn rename(transaction: &Connection, before: [u8; 16]) -> Result<(), DbError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| DbError::Unusable(format!("no random bytes: {e}")))?;
    let older: Option<Vec<u8>> = transaction
        .query_row("SELECT value FROM meta WHERE key = ?1", [ANCESTORS], |row| row.get(0))
        .optional()
        .map_err(schema::unusable)?;
    let mut ancestors = before.to_vec();
    ancestors.extend(older.unwrap_or_default());
    ancestors.truncate(ANCESTORS_MAX * before.len());
    let put = |key: &str, value: &[u8]| {
        let sql = "INSERT OR REPLACE INTO meta VALUES (?1, ?2)";
        transaction.execute(sql, params![key, value]).map_err(schema::unusable)
    };
    put("database_id", &id)?;
    put(ANCESTORS, &ancestors).map(drop)
}

/// Keys of table `meta`: no job gets a number up to this one.
pub(super) const LAST_JOB: &str = "last_job";
/// The ids of the databases from whose backups this one was restored, 16 bytes each, the latest first.
pub(super) const ANCESTORS: &str = "ancestors";
/// The highest job number of the backup.
pub(super) const RECOVERY_LAST_JOB: &str = "recovery_last_job";

/// What the present database has and a backup has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Commits.
    pub commits: u64,
    /// Jobs submitted since that an agent ran or runs: they come back.
    pub jobs_told: u64,
    /// Jobs submitted since that no agent knows: lost.
    pub jobs_lost: u64,
    /// Jobs that the backup has as going on, and that are over: their outcomes come back.
    pub outcomes: u64,
    /// Jobs that were waiting in the backup and were taken back since: they wait again.
    pub canceled: u64,
    /// Names of agents, queues, tokens that are lost.
    pub lost: Vec<String>,
    /// Jobs that were deleted since, by retention: they return.
    pub jobs_returned: u64,
}

/// Compares, reading only. The present database may be in use.
pub fn compare(present: &Path, backup: &Path) -> Result<Differences, DbError> {
    let compared = copy::open_to_read(present).map_err(Bad::Sql).and_then(|c| differences(&c, backup));
    compared.map_err(|bad| {
        DbError::Unusable(format!("comparing with {}: {}", present.display(), DbError::from(bad)))
    })
}

fn differences(c: &Connection, backup: &Path) -> Result<Differences, Bad> {
    c.execute("ATTACH ?1 AS backup", [backup.to_string_lossy()])?;
    let count = |sql: &str| -> Result<u64, Bad> {
        let count: i64 = c.query_row(sql, [], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    };
    let over = FIRST_FINAL_CODE;
    let new = "FROM main.jobs WHERE id NOT IN (SELECT id FROM backup.jobs)";
    let mut lost = Vec::new();
    for (what, table, column) in
        [("agent", "agents", "name"), ("queue", "queues", "name"), ("token", "tokens", "id")]
    {
        let sql = format!(
            "SELECT {column} FROM main.{table} WHERE {column} NOT IN (SELECT {column} FROM backup.{table}) ORDER BY 1"
        );
        let mut statement = c.prepare(&sql)?;
        let names = statement.query_map([], |row| row.get::<_, String>(0))?;
        for name in names {
            lost.push(format!("{what} {}", name?));
        }
    }
    let commit = |schema: &str| format!("SELECT value FROM {schema}.meta WHERE key = 'commit'");
    Ok(Differences {
        commits: count(&commit("main"))?.saturating_sub(count(&commit("backup"))?),
        jobs_told: count(&format!("SELECT count(*) {new} AND run IS NOT NULL"))?,
        jobs_lost: count(&format!("SELECT count(*) {new} AND run IS NULL"))?,
        outcomes: count(&format!(
            "SELECT count(*) FROM main.jobs AS now JOIN backup.jobs AS old ON old.id = now.id \
             WHERE now.status >= {over} AND now.run IS NOT NULL AND old.status < {over}"
        ))?,
        canceled: count(&format!(
            "SELECT count(*) FROM main.jobs AS now JOIN backup.jobs AS old ON old.id = now.id \
             WHERE now.status >= {over} AND now.run IS NULL AND old.status < {over}"
        ))?,
        lost,
        jobs_returned: count("SELECT count(*) FROM backup.jobs WHERE id NOT IN (SELECT id FROM main.jobs)")?,
    })
}

/// Folds the write-ahead log of a database that nobody uses into its file, and says what it held; an error if it cannot be read.
pub fn fold(path: &Path) -> Result<Contents, DbError> {
    let connection = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(schema::unusable)?;
    let contents = copy::read_contents(&connection)?;
    single_file(&connection)?;
    Ok(contents)
}

/// The sign that a restore has begun and is not complete: no server starts on such a database.
pub fn restoring(path: &Path) -> std::path::PathBuf {
    claim::beside(path, ".restoring")
}

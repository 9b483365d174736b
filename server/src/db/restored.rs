//! Makes a copied database one that a server can go on with.

use super::copy::{self, Contents, single_file};
use super::forward::{self, Carried, Forward};
use super::map::signed;
use super::{AuditRecord, DbError, Entry, claim, schema, write_entry};
use protocol::reconcile::ANCESTORS_MAX;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::path::Path;

/// How far the epoch goes beyond every one that is known. An epoch begins with every start of a server, so no server can have started so
/// often since the backup that its agents would not obey the restored one.
pub const EPOCH_LEAP: u64 = 1 << 20;
/// How far the numbers of jobs go beyond the backup's if nobody knows which were given since.
const JOB_LEAP: u64 = 1_000_000;

/// What is known of the time between the backup and now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// The highest epoch.
    pub epoch: Option<u64>,
    /// The highest job number.
    pub last_job: Option<u64>,
    /// What stays shut.
    pub forward: Option<Forward>,
}

/// Prepares the copy of a backup, a file that nobody else knows: the newest tables, an epoch that every agent obeys, new numbers for new jobs,
/// the list of agents that have to tell what they ran since, what stays shut, and the audit entry of the restore, which gets the next number and
/// says what was taken along. Durable when it returns.
pub fn prepare(path: &Path, since: &Since, entry: AuditRecord) -> Result<(Contents, Carried), DbError> {
    let named = |e: DbError| DbError::Unusable(format!("preparing {}: {e}", path.display()));
    let mut connection = Connection::open(path).map_err(|e| named(schema::unusable(e)))?;
    let carried = write(&mut connection, since, entry).map_err(named)?;
    single_file(&connection).map_err(|bad| named(bad.into()))?;
    drop(connection);
    let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| named(DbError::Unusable(format!("syncing it: {e}"))))?;
    Ok((copy::contents(path)?, carried))
}

fn write(connection: &mut Connection, since: &Since, entry: AuditRecord) -> Result<Carried, DbError> {
    connection.pragma_update(None, "synchronous", "FULL").map_err(schema::unusable)?;
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(schema::unusable)?;
    schema::bring_up_to_date(&transaction, schema::newest())?;
    let (id, epoch, commit) = schema::read_meta(&transaction)?;
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
    let carried = match &since.forward {
        Some(forward) => forward.write(&transaction, id, commit)?,
        None => Carried::default(),
    };
    forward::note_commit(&transaction, commit).map_err(schema::unusable)?;
    write_audit(&transaction, entry, &carried).map_err(schema::unusable)?;
    transaction.commit().map_err(schema::unusable)?;
    Ok(carried)
}

fn write_audit(c: &Connection, mut entry: AuditRecord, carried: &Carried) -> rusqlite::Result<()> {
    let last: Option<i64> = c.query_row("SELECT max(number) FROM audit", [], |row| row.get(0))?;
    entry.number = last.and_then(|number| u64::try_from(number).ok()).unwrap_or(0) + 1;
    for (what, names) in [
        ("stay_revoked", &carried.revoked),
        ("stay_disabled", &carried.disabled),
        ("keep_secrets", &carried.secrets),
    ] {
        entry.detail.insert(what.to_owned(), names.clone().into());
    }
    write_entry::write(c, &Entry::Audit(entry))
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

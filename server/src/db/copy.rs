//! A consistent copy of a database that is in use, and what a copy holds.

use super::map::Bad;
use super::schema;
use super::{DbError, Identity};
use crate::operation::{Progress, Tell, Unit};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Copied at once, pages of 4 KiB; between two such steps others get the disk.
const PAGES_PER_STEP: i32 = 512;
const PAUSE: Duration = Duration::from_millis(1);

/// What a database file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Which database it is, and the epoch that it was in.
    pub identity: Identity,
    /// The last commit in it.
    pub commit: u64,
    /// The version of its tables.
    pub schema: u32,
    /// The highest number of a job, 0 if there is none.
    pub last_job: u64,
    /// How many rows each table has.
    pub rows: BTreeMap<String, u64>,
}

/// Copies all that `source` sees at this moment into a new file. Commits go on meanwhile: the copy is read in the log's past, so the
/// log grows until the copy is complete. The file is not synced.
pub(super) fn copy(source: &Connection, to: &Path, tell: Tell<'_>) -> Result<(), Bad> {
    let mut target = Connection::open(to)?;
    target.pragma_update(None, "synchronous", "OFF")?;
    let moment = source.unchecked_transaction()?;
    // The first read fixes the moment; without it each step of the copy would be of its own.
    moment.query_row("SELECT count(*) FROM meta", [], |row| row.get::<_, i64>(0))?;
    let page_bytes: u64 = moment.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0))?.into();
    {
        let copy = Backup::new(&moment, &mut target)?;
        loop {
            let step = copy.step(PAGES_PER_STEP)?;
            let pages = copy.progress();
            let bytes = |pages: i32| u64::try_from(pages).unwrap_or(0) * page_bytes;
            let (total, left) = (bytes(pages.pagecount), bytes(pages.remaining));
            let done = total.saturating_sub(left);
            tell(Progress { step: "copying", done, total, unit: Unit::Bytes });
            if step == StepResult::Done {
                break;
            }
            if step != StepResult::More {
                // Nobody else knows the target, and readers of the source never wait.
                return Err(Bad::Content("the copy was locked by somebody else".to_owned()));
            }
            std::thread::sleep(PAUSE);
        }
    }
    moment.commit()?;
    single_file(&target)
}

/// No write-ahead log any more: the file alone is all there is.
pub(super) fn single_file(connection: &Connection) -> Result<(), Bad> {
    let mode: String = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    if mode != "delete" {
        return Err(Bad::Content(format!("its journal stays in mode {mode}; somebody else has it open")));
    }
    Ok(())
}

/// Reads what a database file holds, without changing it. Also of a database that a server uses at the moment.
pub fn contents(path: &Path) -> Result<Contents, DbError> {
    let named = |e: DbError| DbError::Unusable(format!("{}: {e}", path.display()));
    let connection = open_to_read(path).map_err(|e| named(schema::unusable(e)))?;
    read_contents(&connection).map_err(named)
}

pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

pub(super) fn read_contents(connection: &Connection) -> Result<Contents, DbError> {
    let moment = connection.unchecked_transaction().map_err(schema::unusable)?;
    let version = schema::version_of(&moment)?;
    let (database_id, epoch, commit) = schema::read_meta(&moment)?;
    let count = |sql: &str| -> Result<u64, DbError> {
        let count: Option<i64> = moment.query_row(sql, [], |row| row.get(0)).map_err(schema::unusable)?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    };
    let last_job = count("SELECT max(id) FROM jobs")?;
    let mut tables = moment
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
        )
        .map_err(schema::unusable)?;
    let names = tables.query_map([], |row| row.get::<_, String>(0)).map_err(schema::unusable)?;
    let mut rows = BTreeMap::new();
    for name in names {
        let name = name.map_err(schema::unusable)?;
        rows.insert(name.clone(), count(&format!("SELECT count(*) FROM \"{name}\""))?);
    }
    let schema = u32::try_from(version).unwrap_or(u32::MAX);
    Ok(Contents { identity: Identity { database_id, epoch }, commit, schema, last_job, rows })
}

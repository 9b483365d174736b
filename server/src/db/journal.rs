//! Reads and forgets what is only ever appended to, and forgotten from its beginning: events, the audit. Their numbers have no gap, so a range of numbers is a
//! bound of the work.

use super::map::{self, AUDIT_COLUMNS, Bad, EVENT_COLUMNS, signed, unsigned};
use super::sqlite::one;
use super::{AuditFilter, AuditRecord, Journal, Keep, Piece, Walk};
use rusqlite::{Connection, Row, TransactionBehavior, params};
use scheduler::{EventFilter, EventRecord};

/// So many entries are looked through for one answer.
const LOOKED_THROUGH_MAX: u64 = 20_000;

/// The numbers of the oldest and the newest entry of a journal.
pub(super) fn kept(connection: &Connection, table: &str) -> Result<Option<(u64, u64)>, Bad> {
    let number = |which: &str| {
        let sql = format!("SELECT {which}(number) FROM {table}");
        let found = one(connection, &sql, [], |row| Ok(row.get::<_, Option<i64>>(0)?))?.flatten();
        found.map(unsigned).transpose()
    };
    Ok(number("min")?.zip(number("max")?))
}

/// Events that the filter takes.
pub(super) fn events(
    connection: &Connection,
    filter: &EventFilter,
    from: Walk,
    limit: usize,
) -> Result<Piece<EventRecord>, Bad> {
    let question = Question { table: "events", columns: EVENT_COLUMNS, from, limit };
    question.read(connection, map::event, |record| filter.takes(&record.event), |record| record.number)
}

/// Audit entries that the filter takes. Going back in time, the end is where the wanted time begins.
pub(super) fn audit(
    connection: &Connection,
    filter: &AuditFilter,
    from: Walk,
    limit: usize,
) -> Result<Piece<AuditRecord>, Bad> {
    let question = Question { table: "audit", columns: AUDIT_COLUMNS, from, limit };
    let piece =
        question.read(connection, map::audit, |record| filter.takes(record), |record| record.number)?;
    let Some((next, since_ms)) = piece.next.zip(filter.since_ms) else { return Ok(piece) };
    let sql = "SELECT at FROM audit WHERE number = ?1";
    let at_ms = one(connection, sql, [signed(next)], |row| Ok(row.get::<_, i64>(0)?))?;
    let is_over = matches!(from, Walk::Below(_)) && at_ms.is_some_and(|at_ms| at_ms < since_ms);
    Ok(Piece { next: Some(next).filter(|_| !is_over), ..piece })
}

/// So many entries are forgotten at once.
const FORGOTTEN_MAX: u64 = 2_000;

/// See [`super::Database::forget`].
pub(super) fn forget(connection: &mut Connection, journal: Journal, keep: Keep) -> rusqlite::Result<bool> {
    let (table, most) = match journal {
        Journal::Answers => return forget_answers(connection, keep),
        Journal::Events => ("events", signed(keep.count_max)),
        Journal::Audit => ("audit", signed(keep.count_max)),
    };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // The newest stays, whatever its age: its number is where the counting goes on.
    let sql = format!(
        "DELETE FROM {table} WHERE number IN (SELECT number FROM {table} ORDER BY number LIMIT ?1) \
         AND (at < ?2 OR number <= (SELECT max(number) FROM {table}) - ?3) AND number < (SELECT max(number) FROM {table})"
    );
    let gone =
        transaction.prepare_cached(&sql)?.execute(params![signed(FORGOTTEN_MAX), keep.since_ms, most])?;
    transaction.commit()?;
    Ok(gone as u64 >= FORGOTTEN_MAX)
}

fn forget_answers(connection: &Connection, keep: Keep) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM answers WHERE (user, key, part) IN \
               (SELECT user, key, part FROM answers WHERE at < ?1 ORDER BY at LIMIT ?2)";
    let gone = connection.execute(sql, params![keep.since_ms, signed(FORGOTTEN_MAX)])?;
    Ok(gone as u64 >= FORGOTTEN_MAX)
}

/// What is asked of a journal.
pub(super) struct Question {
    pub(super) table: &'static str,
    pub(super) columns: &'static str,
    pub(super) from: Walk,
    pub(super) limit: usize,
}

impl Question {
    /// What `takes` takes, up to the limit of this question or the limit of the work.
    pub(super) fn read<T>(
        &self,
        connection: &Connection,
        map: impl Fn(&Row<'_>) -> Result<T, Bad>,
        takes: impl Fn(&T) -> bool,
        number: impl Fn(&T) -> u64,
    ) -> Result<Piece<T>, Bad> {
        let nothing = Piece { items: Vec::new(), next: None };
        let Some((oldest, newest)) = kept(connection, self.table)? else { return Ok(nothing) };
        let (mut low, mut high, order) = match self.from {
            Walk::After(number) => (number.saturating_add(1).max(oldest), newest, "ASC"),
            Walk::Below(number) => (oldest, number.map_or(newest, |number| number.saturating_sub(1)), "DESC"),
        };
        if low > high {
            return Ok(nothing);
        }
        let all = high - low < LOOKED_THROUGH_MAX;
        match self.from {
            Walk::After(_) => high = high.min(low + LOOKED_THROUGH_MAX - 1),
            Walk::Below(_) => low = low.max(high.saturating_sub(LOOKED_THROUGH_MAX - 1)),
        }
        let sql = format!(
            "SELECT {} FROM {} WHERE number BETWEEN ?1 AND ?2 ORDER BY number {order}",
            self.columns, self.table
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![signed(low), signed(high)])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            let item = map(row)?;
            if !takes(&item) {
                continue;
            }
            if items.len() == self.limit {
                let next = items.last().map(&number);
                return Ok(Piece { items, next });
            }
            items.push(item);
        }
        let reached = match self.from {
            Walk::After(_) => high,
            Walk::Below(_) => low,
        };
        Ok(Piece { items, next: (!all).then_some(reached) })
    }
}

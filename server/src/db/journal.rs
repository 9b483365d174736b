//! Reads what is only ever appended to, and forgotten from its beginning: events. Their numbers have no gap, so a range of numbers is a
//! bound of the work.

use super::map::{self, Bad, EVENT_COLUMNS, signed, unsigned};
use super::sqlite::one;
use super::{Piece, Walk};
use rusqlite::{Connection, Row, params};
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
    let journal = Journal { table: "events", columns: EVENT_COLUMNS, from, limit };
    journal.read(connection, map::event, |record| filter.takes(&record.event), |record| record.number)
}

/// One walk along the numbers of a journal.
pub(super) struct Journal {
    pub(super) table: &'static str,
    pub(super) columns: &'static str,
    pub(super) from: Walk,
    pub(super) limit: usize,
}

impl Journal {
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

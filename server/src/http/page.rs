//! Pages of lists that are short enough to be made whole.

use super::problem::Problem;
use api::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX};
use serde::Deserialize;
use utoipa::IntoParams;

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// At most this many, 1 to 1000; all if absent.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl Page {
    /// The part of `all`, which is sorted by name, and the cursor of the next one.
    pub(super) fn of_names<T>(
        self,
        all: Vec<T>,
        name: impl Fn(&T) -> &String,
    ) -> Result<(Vec<T>, Option<String>), Problem> {
        let limit = match self.limit {
            Some(limit) => check_limit(Some(limit))?,
            None => usize::MAX,
        };
        let behind = |item: &T| self.cursor.as_ref().is_none_or(|cursor| name(item) > cursor);
        let mut items: Vec<T> = all.into_iter().filter(behind).take(limit.saturating_add(1)).collect();
        let has_next = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| has_next).map(|last| name(last).clone());
        Ok((items, next_cursor))
    }
}

/// How long a page is to be.
pub(super) fn check_limit(limit: Option<u32>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(LIST_LIMIT_DEFAULT);
    if !(1..=LIST_LIMIT_MAX).contains(&limit) {
        return Err(Problem::unreadable(format!(
            "the query: limit is {limit}; it must be 1 to {LIST_LIMIT_MAX}"
        )));
    }
    Ok(limit as usize)
}

/// The cursor of a list that is ordered by number.
pub(super) fn read_number(cursor: Option<&str>) -> Result<Option<u64>, Problem> {
    let read = |text: &str| {
        let number = text.parse::<u64>().ok().filter(|number| *number > 0);
        number.ok_or_else(|| {
            Problem::unreadable("the query: cursor must be the next_cursor of the page before")
        })
    };
    cursor.map(read).transpose()
}

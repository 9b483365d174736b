//! Lists of jobs among a million of them.
//!
//! A page is the newest jobs that fit, below a cursor. It is found by walks along an index from its end: every index ends with the
//! job's number, so a walk meets the newest first and stops when the page is full. Which index is a question of how many entries each
//! has for what is asked; they are counted, but never further than the shortest found so far.
//!
//! | what is asked                    | index                                                                          |
//! |----------------------------------|--------------------------------------------------------------------------------|
//! | nothing                          | the table itself                                                               |
//! | statuses                         | `jobs_by_status`, one walk each                                                |
//! | queue, agent or name             | `jobs_by_…`                                                                    |
//! | the same among the failed        | `failed_jobs_by_…`: partial, so a job that completes pays nothing for it       |
//! | an exit code other than 0        | `jobs_by_exit_code`: partial too                                               |
//! | the beginning of a name          | `jobs_by_name`, a range, which has to be sorted                                |
//! | times                            | none: numbers go up with the time, so times become a range of numbers          |
//!
//! What the index does not decide is looked up in the table, job by job.

use super::map::{self, Bad, FIRST_FINAL_CODE, JOB_COLUMNS, signed, status_code};
use super::sqlite::{one, rows};
use super::{Expired, FAILED, JobFilter};
use job::{JobId, Status};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use scheduler::JobRecord;

/// So far an index is walked to find out how long its walk is.
const PROBED_MAX: i64 = 100_000;
/// The clock may have been set back by so much between two submissions: numbers go up, times then do not.
const CLOCK_BACK_MS_MAX: i64 = 120_000;
/// The newest jobs, among which a common beginning of a name is looked for first.
const NEWEST_LOOKED_AT: i64 = 20_000;
/// What the partial indexes are made of; the same words as in the schema, or SQLite does not use them.
const IS_FAILED: &str = "(status = 9 OR status = 10 OR status = 12 OR status = 13)";

/// The newest jobs that fit, below the cursor.
pub(super) fn jobs(
    connection: &Connection,
    filter: &JobFilter,
    cursor: Option<JobId>,
    limit: usize,
) -> Result<Vec<JobRecord>, Bad> {
    let Some(range) = Range::of(connection, filter, cursor)? else { return Ok(Vec::new()) };
    let query = Query { connection, filter, range, limit };
    let plan = query.plan()?;
    if let Some(prefix) = filter.name_prefix.as_deref()
        && plan.is_none_or(|plan| plan.length >= PROBED_MAX)
    {
        return query.by_prefix(prefix);
    }
    query.walk_all(plan.map(|plan| plan.path))
}

/// The numbers among which the jobs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    low: i64,
    below: i64,
}

impl Range {
    /// `None`: there are none.
    fn of(c: &Connection, filter: &JobFilter, cursor: Option<JobId>) -> Result<Option<Range>, Bad> {
        let mut range = Range { low: 0, below: cursor.map_or(i64::MAX, |cursor| signed(cursor.0)) };
        if let Some(since) = filter.since_ms {
            range.low = first_from(c, since.saturating_sub(CLOCK_BACK_MS_MAX))?;
        }
        if let Some(until) = filter.until_ms {
            range.below = range.below.min(first_from(c, until.saturating_add(CLOCK_BACK_MS_MAX))?);
        }
        Ok((range.low < range.below).then_some(range))
    }
}

/// The first number that was given at that time or later; `i64::MAX` if none was.
fn first_from(c: &Connection, at_ms: i64) -> Result<i64, Bad> {
    let last = one(c, "SELECT max(id) FROM jobs", [], |row| Ok(row.get::<_, Option<i64>>(0)?))?.flatten();
    let (mut low, mut high) = (0, last.unwrap_or(0).saturating_add(1));
    let next = "SELECT id, submitted_at FROM jobs WHERE id >= ?1 ORDER BY id LIMIT 1";
    while low < high {
        let middle = low + (high - low) / 2;
        let found = one(c, next, [middle], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        match found {
            Some((id, submitted)) if submitted < at_ms => low = id + 1,
            Some(_) | None => high = middle,
        }
    }
    Ok(if last.is_some_and(|last| low <= last) { low } else { i64::MAX })
}

/// Jobs that may be deleted, the lowest number first. What was submitted too late cannot have ended early enough, so the walk is short.
pub(super) fn expired(c: &Connection, expired: &Expired) -> Result<Vec<JobId>, Bad> {
    let below = first_from(c, expired.ended_before_ms.saturating_add(CLOCK_BACK_MS_MAX))?;
    let told_before_ms = expired.told_before_ms.min(expired.ended_before_ms);
    let sql = format!(
        "SELECT id FROM jobs WHERE id < ?1 AND status >= {FIRST_FINAL_CODE} AND max(ifnull(ended_at, 0), submitted_at) < ?2 \
         AND NOT EXISTS (SELECT 1 FROM runs JOIN agents ON agents.name = runs.agent WHERE runs.job = jobs.id \
         AND (runs.agent NOT IN (SELECT value FROM json_each(?3)) \
         OR ifnull((SELECT max(received_at) FROM facts WHERE facts.run = runs.run), 0) >= ?4)) ORDER BY id LIMIT ?5"
    );
    let agents = serde_json::to_string(&expired.agents).unwrap_or_default();
    let values = (below, expired.ended_before_ms, agents, told_before_ms, signed(expired.limit as u64));
    let found = rows(c, &sql, values, |row| Ok(row.get::<_, i64>(0)?))?;
    Ok(found.into_iter().filter_map(|id| u64::try_from(id).ok()).map(JobId).collect())
}

/// A way along which the jobs are met, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Statuses,
    Attribute { index: &'static str, column: &'static str, failed: bool },
    ExitCode,
}

#[derive(Clone, Copy)]
struct Plan {
    path: Path,
    /// Entries, no more than [`PROBED_MAX`].
    length: i64,
}

/// Conditions with their values.
#[derive(Clone, Default)]
struct Where {
    text: String,
    values: Vec<Value>,
}

impl Where {
    fn and(&mut self, condition: &str, value: Value) {
        self.text.push_str(" AND ");
        self.text.push_str(condition);
        self.values.push(value);
    }
}

struct Query<'a> {
    connection: &'a Connection,
    filter: &'a JobFilter,
    range: Range,
    limit: usize,
}

impl Query<'_> {
    /// The path with the fewest entries; `None`: only the table itself.
    fn plan(&self) -> Result<Option<Plan>, Bad> {
        let paths = self.paths();
        let mut best: Option<Plan> = None;
        for path in &paths {
            let most = best.map_or(PROBED_MAX, |best| best.length);
            let length = if paths.len() == 1 && self.filter.name_prefix.is_none() {
                0 // there is no choice
            } else {
                self.length(*path, most)?
            };
            if best.is_none_or(|best| length < best.length) {
                best = Some(Plan { path: *path, length });
            }
        }
        Ok(best)
    }

    /// Every path there is, those first that are the better ones if all are long.
    fn paths(&self) -> Vec<Path> {
        let filter = self.filter;
        let failed = !self.statuses().is_empty() && self.statuses().iter().all(|s| FAILED.contains(s));
        let mut paths = Vec::new();
        let attributes = [
            ("name", filter.name.is_some(), "failed_jobs_by_name", "jobs_by_name"),
            ("agent", filter.agent.is_some(), "failed_jobs_by_agent", "jobs_by_agent"),
            ("queue", filter.queue.is_some(), "failed_jobs_by_queue", "jobs_by_queue"),
        ];
        for (column, asked, of_failed, of_all) in attributes {
            if asked {
                let index = if failed { of_failed } else { of_all };
                paths.push(Path::Attribute { index, column, failed });
            }
        }
        if filter.exit_code.is_some_and(|code| code > 0) {
            paths.push(Path::ExitCode);
        }
        if !self.statuses().is_empty() {
            paths.push(Path::Statuses);
        }
        paths
    }

    /// Any of these; all if empty.
    fn statuses(&self) -> Vec<Status> {
        let chosen = &self.filter.statuses;
        match (self.filter.failed, chosen.is_empty()) {
            (false, _) => chosen.clone(),
            (true, true) => FAILED.to_vec(),
            (true, false) => FAILED.into_iter().filter(|status| chosen.contains(status)).collect(),
        }
    }

    /// How many entries the path has, counted up to `most`.
    fn length(&self, path: Path, most: i64) -> Result<i64, Bad> {
        let mut length = 0;
        for (index, walk) in self.walks(path) {
            let Where { text, mut values } = self.within(walk);
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY {index} WHERE TRUE{text} LIMIT ?)"
            );
            values.push(Value::Integer(most - length));
            let count =
                one(self.connection, &sql, params_from_iter(values), |row| Ok(row.get::<_, i64>(0)?))?;
            length += count.unwrap_or(0);
            if length >= most {
                break;
            }
        }
        Ok(length)
    }

    /// The walks of a path, each an index and what selects its entries.
    fn walks(&self, path: Path) -> Vec<(&'static str, Where)> {
        let mut walk = Where::default();
        match path {
            Path::Statuses => {
                let of = |status: &Status| {
                    let mut walk = Where::default();
                    walk.and("status = ?", Value::Integer(status_code(*status)));
                    ("jobs_by_status", walk)
                };
                self.statuses().iter().map(of).collect()
            }
            Path::Attribute { index, column, failed } => {
                if failed {
                    walk.text = format!(" AND {IS_FAILED}");
                }
                walk.and(&format!("{column} = ?"), Value::Text(self.attribute(column).to_owned()));
                vec![(index, walk)]
            }
            Path::ExitCode => {
                walk.text = " AND exit_code > 0".to_owned();
                walk.and("exit_code = ?", Value::Integer(self.filter.exit_code.map_or(0, i64::from)));
                vec![("jobs_by_exit_code", walk)]
            }
        }
    }

    fn attribute(&self, column: &str) -> &str {
        let value = match column {
            "name" => &self.filter.name,
            "agent" => &self.filter.agent,
            _ => &self.filter.queue,
        };
        value.as_deref().unwrap_or_default()
    }

    fn within(&self, mut walk: Where) -> Where {
        if self.range.low > 0 {
            walk.and("id >= ?", Value::Integer(self.range.low));
        }
        if self.range.below < i64::MAX {
            walk.and("id < ?", Value::Integer(self.range.below));
        }
        walk
    }

    /// Everything that is asked for, on top of what selects the entries of a walk.
    fn restricted(&self, walk: Where) -> Where {
        let filter = self.filter;
        let mut all = self.within(walk);
        let statuses = self.statuses();
        if !statuses.is_empty() {
            let codes: Vec<String> = statuses.iter().map(|status| status_code(*status).to_string()).collect();
            all.text.push_str(&format!(" AND +status IN ({})", codes.join(", ")));
        } else if filter.failed {
            all.text.push_str(" AND FALSE"); // failed, and of a status that is no failure
        }
        let texts =
            [("+name = ?", &filter.name), ("+agent = ?", &filter.agent), ("+queue = ?", &filter.queue)];
        for (condition, value) in texts {
            if let Some(value) = value {
                all.and(condition, Value::Text(value.clone()));
            }
        }
        if let Some(prefix) = &filter.name_prefix {
            all.and("+name >= ?", Value::Text(prefix.clone()));
            all.and("+name <= ?", Value::Text(after(prefix)));
        }
        let numbers = [
            ("submitted_at >= ?", filter.since_ms),
            ("submitted_at < ?", filter.until_ms),
            ("+exit_code = ?", filter.exit_code.map(i64::from)),
        ];
        for (condition, value) in numbers {
            if let Some(value) = value {
                all.and(condition, Value::Integer(value));
            }
        }
        all
    }

    /// The newest that all walks of a path meet.
    fn walk_all(&self, path: Option<Path>) -> Result<Vec<JobRecord>, Bad> {
        let Some(path) = path else { return self.page("", self.restricted(Where::default())) };
        let mut found = Vec::new();
        for (index, walk) in self.walks(path) {
            found.append(&mut self.page(&format!("INDEXED BY {index}"), self.restricted(walk))?);
        }
        found.sort_unstable_by_key(|job: &JobRecord| std::cmp::Reverse(job.id));
        found.truncate(self.limit);
        Ok(found)
    }

    fn page(&self, index: &str, Where { text, mut values }: Where) -> Result<Vec<JobRecord>, Bad> {
        let sql = format!("SELECT {JOB_COLUMNS} FROM jobs {index} WHERE TRUE{text} ORDER BY id DESC LIMIT ?");
        values.push(Value::Integer(signed(self.limit as u64)));
        rows(self.connection, &sql, params_from_iter(values), map::job)
    }

    /// Names with a common beginning are in their index in the order of the names. A beginning that many names have is soon met among
    /// the newest jobs; else the entries of its range are sorted.
    fn by_prefix(&self, prefix: &str) -> Result<Vec<JobRecord>, Bad> {
        let newest =
            one(self.connection, "SELECT max(id) FROM jobs", [], |row| Ok(row.get::<_, Option<i64>>(0)?))?;
        let top = newest.flatten().unwrap_or(0).min(self.range.below.saturating_sub(1));
        let low = self.range.low.max(top.saturating_sub(NEWEST_LOOKED_AT));
        let near = Query { range: Range { low, ..self.range }, ..*self };
        let mut found = near.page("", near.restricted(Where::default()))?;
        if found.len() >= self.limit || low <= self.range.low {
            return Ok(found);
        }
        let far =
            Query { range: Range { below: low, ..self.range }, limit: self.limit - found.len(), ..*self };
        let mut named = Where::default();
        named.and("name >= ?", Value::Text(prefix.to_owned()));
        named.and("name <= ?", Value::Text(after(prefix)));
        let only_name = JobFilter { name_prefix: self.filter.name_prefix.clone(), ..JobFilter::default() };
        if *self.filter != only_name {
            found.append(&mut far.page("INDEXED BY jobs_by_name", far.restricted(named))?);
            return Ok(found);
        }
        // The index alone has all that is needed: first the numbers, then the few jobs.
        let Where { text, mut values } = far.within(named);
        let sql = format!(
            "SELECT {JOB_COLUMNS} FROM jobs WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_by_name WHERE TRUE{text} \
             ORDER BY id DESC LIMIT ?) ORDER BY id DESC"
        );
        values.push(Value::Integer(signed(far.limit as u64)));
        found.append(&mut rows(self.connection, &sql, params_from_iter(values), map::job)?);
        Ok(found)
    }
}

/// Not before any text that begins so.
fn after(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

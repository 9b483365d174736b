//! Lists of jobs, and how many there are.

use super::extract::Params;
use super::problem::Problem;
use super::{Http, show};
use crate::db::JobFilter;
use api::{JobList, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, Time};
use axum::Json;
use axum::extract::State;
use job::{JobId, Status};
use serde::Deserialize;
use utoipa::IntoParams;

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only these statuses, separated by commas: `Running,Queued`.
    status: Option<String>,
    /// Only this queue.
    queue: Option<String>,
    /// Only jobs whose latest run is or was on this agent.
    agent: Option<String>,
    /// Only jobs of exactly this name; with a `*` at its end: whose name begins so.
    name: Option<String>,
    /// Only jobs submitted at this time (RFC 3339) or later.
    #[param(value_type = Option<String>)]
    since: Option<Time>,
    /// Only jobs submitted before this time (RFC 3339).
    #[param(value_type = Option<String>)]
    until: Option<Time>,
    /// `true`: only jobs that are over and went wrong: Error, Killed, Unknown, Abandoned.
    #[serde(default)]
    failed: bool,
    /// Only jobs whose latest run exited with this.
    exit_code: Option<u8>,
    /// At most this many, 1 to 1000; 100 if absent.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List jobs, newest first, a page at a time.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(Filter),
    responses((status = 200, body = JobList), (status = 400, body = api::Problem)))]
pub(super) async fn list(
    State(http): State<Http>,
    Params(params): Params<Filter>,
) -> Result<Json<JobList>, Problem> {
    let limit = params.limit.unwrap_or(LIST_LIMIT_DEFAULT);
    if !(1..=LIST_LIMIT_MAX).contains(&limit) {
        return Err(Problem::unreadable(format!(
            "the query: limit is {limit}; it must be 1 to {LIST_LIMIT_MAX}"
        )));
    }
    let cursor = params.cursor.as_deref().map(read_cursor).transpose()?;
    let statuses = params.status.as_deref().map(read_statuses).transpose()?.unwrap_or_default();
    let (name, name_prefix) = match params.name {
        Some(name) => match name.strip_suffix('*') {
            Some(prefix) => (None, Some(prefix.to_owned())),
            None => (Some(name), None),
        },
        None => (None, None),
    };
    let filter = JobFilter {
        statuses,
        queue: params.queue,
        agent: params.agent,
        name,
        name_prefix,
        since_ms: params.since.map(|time| time.ms),
        until_ms: params.until.map(|time| time.ms),
        failed: params.failed,
        exit_code: params.exit_code,
    };
    let limit = limit as usize;
    // One more than is shown: it tells whether there is another page.
    let found = http.read(move |db| db.jobs(&filter, cursor, limit + 1)).await?;
    let items: Vec<_> = found.iter().take(limit).map(show::summary).collect();
    let next_cursor = items.last().filter(|_| found.len() > limit).map(|last| last.id.to_string());
    Ok(Json(JobList { items, next_cursor }))
}

/// How many jobs there are in each status.
#[utoipa::path(get, path = "/api/v1/jobs/counts", tag = "jobs", responses((status = 200, body = api::Counts)))]
pub(super) async fn counts(State(http): State<Http>) -> Json<api::Counts> {
    Json(show::counts(&http.app.handle.counts()))
}

fn read_statuses(text: &str) -> Result<Vec<Status>, Problem> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| name.parse().map_err(|e| Problem::unreadable(format!("the query: {e}")))).collect()
}

fn read_cursor(text: &str) -> Result<JobId, Problem> {
    let id = text.parse::<u64>().ok().filter(|id| *id > 0);
    id.map(JobId)
        .ok_or_else(|| Problem::unreadable("the query: cursor must be the next_cursor of the page before"))
}

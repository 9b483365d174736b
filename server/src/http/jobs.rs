//! Jobs: submit, show, wait, end, hold.

use super::extract::{Body, OptionalBody, Params, Part, read_json};
use super::manners::Tagged;
use super::problem::Problem;
use super::{Http, show};
use crate::auth::Caller;
use crate::core::{CoreError, tag};
use api::{
    BATCH_JOBS_MAX, BatchSubmit, Job, JobAbandon, JobRestart, JobSubmit, JobSubmitted, Kill, Span, Why,
};
use axum::Json;
use axum::extract::{Extension, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use job::{JobId, Policy, Status};
use protocol::frame::kind;
use scheduler::{JobRecord, JobSpec, Rejection, Restart, RunRecord, became};
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

/// The longest that a question for a job may stay open.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The queue of those who name none.
const QUEUE_DEFAULT: &str = "default";

/// How a job is to be shown.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    /// Answer when the job is over, or after this long (at most 60 s), whatever comes first: `30s`.
    #[param(value_type = Option<String>)]
    wait: Option<Span>,
}

/// Submit a job. With an idempotency key (header `Idempotency-Key`, or the field) a second request like the first creates nothing and is
/// answered with the first one's job.
#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", request_body = JobSubmit,
    params(("Idempotency-Key" = Option<String>, Header, description = "as the field `idempotency_key`")),
    responses((status = 201, description = "the new job; `Location` names it", body = Job),
        (status = 200, description = "the job that an earlier request with this key created", body = Job),
        (status = 422, description = "it cannot be run, or the key belongs to another request", body = api::Problem)))]
pub(super) async fn submit(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(mut request): Body<JobSubmit>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Job>), Problem> {
    if let Some(value) = headers.get("idempotency-key") {
        let key = value
            .to_str()
            .map_err(|_| Problem::unreadable("the header Idempotency-Key is not plain text"))?;
        if request.idempotency_key.as_ref().is_some_and(|field| field != key) {
            return Err(Problem::invalid("the header Idempotency-Key and the field idempotency_key differ"));
        }
        request.idempotency_key = Some(key.to_owned());
    }
    let specs = vec![spec(request, &caller.name)?];
    let submitted = http.app.handle.submit(specs).await.map_err(|e| Problem::from(e).in_body())?;
    let first = submitted.first().ok_or_else(Problem::stopping)?;
    let status = if first.existing { StatusCode::OK } else { StatusCode::CREATED };
    let job = load(&http, first.job).await?;
    Ok((status, [(LOCATION, format!("/api/v1/jobs/{}", job.id))], Json(job)))
}

/// Submit many jobs in one transaction: all are created or none.
#[utoipa::path(post, path = "/api/v1/jobs/batch", tag = "jobs", request_body = BatchSubmit,
    responses((status = 201, description = "the jobs' numbers, in the order of the request", body = JobSubmitted),
        (status = 422, description = "one of them cannot be run: none was created", body = api::Problem)))]
pub(super) async fn submit_batch(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    Body(batch): Body<BatchSubmit>,
) -> Result<(StatusCode, Json<JobSubmitted>), Problem> {
    if batch.jobs.len() > BATCH_JOBS_MAX {
        let count = batch.jobs.len();
        return Err(Problem::invalid(format!(
            "a batch of {count} jobs is too large; at most {BATCH_JOBS_MAX}"
        )));
    }
    let specs = batch.jobs.into_iter().map(|job| spec(job, &caller.name)).collect::<Result<Vec<_>, _>>()?;
    let submitted = http.app.handle.submit(specs).await.map_err(|e| Problem::from(e).in_body())?;
    let ids = submitted.iter().map(|one| one.job.0).collect();
    Ok((StatusCode::CREATED, Json(JobSubmitted { ids })))
}

/// Show a job with its runs; with `wait` the answer comes when the job is over, or when the time is.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = u64, Path), Wait),
    responses((status = 200, body = Job), (status = 404, body = api::Problem)))]
pub(super) async fn show(
    State(http): State<Http>,
    Part(id): Part<u64>,
    Params(params): Params<Wait>,
) -> Result<Tagged<Job>, Problem> {
    // Waited for before anything is read: the core answers at once for a job that is over or does not exist.
    if let Some(wait) = params.wait.filter(|wait| wait.ms > 0) {
        let limit = Duration::from_millis(wait.ms).min(WAIT_MAX);
        let mut stopping = http.stopping.clone();
        tokio::select! {
            over = http.app.handle.wait_final(JobId(id), limit) => { over?; }
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }
    tagged(&http, JobId(id)).await
}

/// A job as the record has it, with its version.
async fn tagged(http: &Http, job: JobId) -> Result<Tagged<Job>, Problem> {
    let (record, runs) = records(http, job).await?;
    Ok(Tagged { version: tag::of_job(&record), body: show::job(&record, &runs) })
}

/// End a job: the soft signal, then SIGKILL when the grace is over. One that does not run yet never will. The answer comes when the wish
/// is durable, not when the job has ended.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/kill", tag = "jobs", params(("id" = u64, Path)), request_body = Option<Kill>,
    responses((status = 202, body = Job), (status = 404, body = api::Problem),
        (status = 409, description = "it is over", body = api::Problem)))]
pub(super) async fn kill(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    Part(id): Part<u64>,
    OptionalBody(kill): OptionalBody<Kill>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    let result = http.app.handle.kill(JobId(id), &caller.name, kill.grace.map(|grace| grace.ms)).await;
    changed(&http, id, result).await.map(|job| (StatusCode::ACCEPTED, job))
}

/// Let a running job stand still: all its processes are stopped, its time limit does not count, its slot stays taken. The answer comes when
/// the wish is durable; the status says when the job stands still.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/suspend", tag = "jobs", params(("id" = u64, Path)),
    responses((status = 202, body = Job), (status = 404, body = api::Problem),
        (status = 409, description = "it does not run, is over, or is being killed; or its agent is too old", body = api::Problem)))]
pub(super) async fn suspend(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    Part(id): Part<u64>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    check_speaks(&http, id, kind::SUSPEND, "suspend").await?;
    let result = http.app.handle.pause(JobId(id), true, &caller.name).await;
    changed(&http, id, result).await.map(|job| (StatusCode::ACCEPTED, job))
}

/// Let a suspended job go on. The answer comes when the wish is durable; the status says when the job runs again.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/resume", tag = "jobs", params(("id" = u64, Path)),
    responses((status = 202, body = Job), (status = 404, body = api::Problem),
        (status = 409, description = "it is not suspended, or is over; or its agent is too old", body = api::Problem)))]
pub(super) async fn resume(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    Part(id): Part<u64>,
) -> Result<(StatusCode, Json<Job>), Problem> {
    check_speaks(&http, id, kind::RESUME, "resume").await?;
    let result = http.app.handle.pause(JobId(id), false, &caller.name).await;
    changed(&http, id, result).await.map(|job| (StatusCode::ACCEPTED, job))
}

/// Refuses what the agent that has the job is too old for.
async fn check_speaks(http: &Http, id: u64, kind: u16, what: &'static str) -> Result<(), Problem> {
    let (_, runs) = records(http, JobId(id)).await?;
    match runs.last().filter(|run| !run.status.is_final()) {
        Some(run) => Ok(http.app.agents.check_speaks(&run.agent, kind, what)?),
        None => Ok(()),
    }
}

/// Take a job back that was not given to an agent yet.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = u64, Path)),
    responses((status = 200, body = Job), (status = 404, body = api::Problem),
        (status = 409, description = "it is over, or was given to an agent", body = api::Problem)))]
pub(super) async fn cancel(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    Part(id): Part<u64>,
) -> Result<Json<Job>, Problem> {
    let result = http.app.handle.cancel(JobId(id), &caller.name).await;
    changed(&http, id, result).await
}

/// Keep a job that does not run yet from running.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/hold", tag = "jobs", params(("id" = u64, Path)),
    responses((status = 200, body = Job), (status = 404, body = api::Problem),
        (status = 409, description = "it is over, or was given to an agent", body = api::Problem)))]
pub(super) async fn hold(State(http): State<Http>, Part(id): Part<u64>) -> Result<Json<Job>, Problem> {
    let result = http.app.handle.hold(JobId(id)).await;
    changed(&http, id, result).await
}

/// End the hold of a job.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/release", tag = "jobs", params(("id" = u64, Path)),
    responses((status = 200, body = Job), (status = 404, body = api::Problem),
        (status = 409, description = "it is not held", body = api::Problem)))]
pub(super) async fn release(State(http): State<Http>, Part(id): Part<u64>) -> Result<Json<Job>, Problem> {
    let result = http.app.handle.release(JobId(id)).await;
    changed(&http, id, result).await
}

/// Do a job again that is over, or that waits for this decision: a new attempt, the same number. What its runs were stays on record.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/restart", tag = "jobs", params(("id" = u64, Path)), request_body = Option<JobRestart>,
    responses((status = 200, body = Job), (status = 404, body = api::Problem),
        (status = 409, description = "it is not over, or must not be executed twice (then `force` and a reason do it)", body = api::Problem),
        (status = 422, description = "`force` without a reason", body = api::Problem)))]
pub(super) async fn restart(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    Part(id): Part<u64>,
    OptionalBody(wish): OptionalBody<JobRestart>,
) -> Result<Json<Job>, Problem> {
    let JobRestart { hold, force, reason } = wish;
    let restart = Restart { job: JobId(id), by: caller.name, hold, force, reason };
    let result = http.app.handle.restart(restart).await;
    changed(&http, id, result).await
}

/// Give up a job whose agent will never come back. What comes later is recorded beside it.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/abandon", tag = "jobs", params(("id" = u64, Path)), request_body = JobAbandon,
    responses((status = 200, body = Job), (status = 404, body = api::Problem),
        (status = 409, description = "it is over, or its agent is connected", body = api::Problem),
        (status = 422, description = "without a reason", body = api::Problem)))]
pub(super) async fn abandon(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    Part(id): Part<u64>,
    Body(JobAbandon { reason }): Body<JobAbandon>,
) -> Result<Json<Job>, Problem> {
    let result = http.app.handle.abandon(JobId(id), &caller.name, &reason).await;
    changed(&http, id, result).await
}

/// Say in one sentence why a job does not run yet, or what became of it.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/why", tag = "jobs", params(("id" = u64, Path)),
    responses((status = 200, body = Why), (status = 404, body = api::Problem)))]
pub(super) async fn why(State(http): State<Http>, Part(id): Part<u64>) -> Result<Json<Why>, Problem> {
    let (record, runs) = records(&http, JobId(id)).await?;
    let why = match record.status.is_final() {
        true => became(&record, runs.last()),
        false => http.app.handle.why(JobId(id)).await?,
    };
    Ok(Json(Why { id, status: record.status.into(), why }))
}

/// The job after a command. The core knows only jobs that are not over: of the others the record says what they are.
async fn changed(http: &Http, id: u64, result: Result<(), CoreError>) -> Result<Json<Job>, Problem> {
    match result {
        Ok(()) => Ok(Json(load(http, JobId(id)).await?)),
        Err(CoreError::Rejected(Rejection::NoSuchJob(job))) => {
            let (record, _) = records(http, job).await?;
            Err(Rejection::AlreadyFinal { job, status: record.status }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// A job as the record has it.
async fn load(http: &Http, job: JobId) -> Result<Job, Problem> {
    let (record, runs) = records(http, job).await?;
    Ok(show::job(&record, &runs))
}

/// A job's record and its runs, first to last.
pub(super) async fn records(http: &Http, job: JobId) -> Result<(JobRecord, Vec<RunRecord>), Problem> {
    let found = http
        .read(move |db| match db.job(job)? {
            // The runs second: they are never older than the job then.
            Some(record) => Ok(Some((record, db.runs(job)?))),
            None => Ok(None),
        })
        .await?;
    found.ok_or_else(|| Problem::no_such_job(job.0))
}

/// What a body of `POST /api/v1/jobs` orders.
///
/// # Errors
/// What the interface would answer.
pub fn read_order(body: &[u8], by: &str) -> Result<JobSpec, String> {
    read_json::<JobSubmit>(body).and_then(|request| spec(request, by)).map_err(|problem| problem.detail())
}

fn spec(request: JobSubmit, by: &str) -> Result<JobSpec, Problem> {
    if request.script.is_none() && request.command.first().is_none_or(String::is_empty) {
        return Err(Problem::invalid(
            "there is nothing to run: give \"command\" ([\"/bin/true\"]) or \"script\"",
        ));
    }
    let bad = |e: job::AttributeError| Problem::invalid(e.to_string());
    let limits = request.limits.iter().map(|(name, value)| job::Limit::read(name, value));
    if request.start_at.is_some() && request.delay.is_some() {
        return Err(Problem::invalid("give \"start_at\" or \"delay\", not both"));
    }
    let wrong = |e: &dyn std::error::Error| Problem::invalid(e.to_string());
    job::check_capture(&request.capture).map_err(|e| wrong(&e))?;
    Ok(JobSpec {
        output_limit: request.output_limit.map(|limit| limit.parse()).transpose().map_err(|e| {
            let error: job::output::ParseOutputLimitError = e;
            wrong(&error)
        })?,
        leftovers: match request.leftovers {
            Some(leftovers) => leftovers.parse().map_err(|error: job::ParseLeftoversError| wrong(&error))?,
            None => job::Leftovers::default(),
        },
        capture: request.capture,
        umask: request.umask.map(|mask| mask.parse()).transpose().map_err(bad)?,
        nice: request.nice.map(job::check_nice).transpose().map_err(bad)?,
        limits: limits.collect::<Result<_, _>>().map_err(bad)?,
        name: request.name.unwrap_or_default(),
        queue: request.queue.unwrap_or_else(|| QUEUE_DEFAULT.to_owned()),
        agent: request.agent,
        priority: request.priority.unwrap_or(0),
        command: request.command.into_iter().map(String::into_bytes).collect(),
        script: request.script.map(String::into_bytes),
        env: request.env.into_iter().collect(),
        params: request.params.into_iter().collect(),
        cwd: request.cwd,
        user: request.user,
        timeout_ms: request.timeout.map(|timeout| timeout.ms),
        grace_ms: request.grace.map(|grace| grace.ms),
        submitted_by: by.to_owned(),
        idempotency_key: request.idempotency_key,
        held: request.held,
        start_at_ms: request.start_at.map(|at| at.ms),
        delay_ms: request.delay.map(|delay| delay.ms),
        policy: Policy {
            retry: request.retry.map(Into::into),
            on_unknown: request.on_unknown.unwrap_or_default().0,
            restart_safe: request.restart_safe.unwrap_or_default().0,
        },
    })
}

/// Whether a run that is over can have written anything.
pub(super) fn never_started(run: &RunRecord) -> bool {
    run.status.is_final() && run.started_at_ms.is_none() && run.status != Status::Unknown
}

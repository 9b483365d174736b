//! Backups, the check of the database, the end of a recovery. What may take long is an operation: it goes on whether or not somebody waits for it.
//!
//! | a request for a backup or a check  | is answered                                                                       |
//! |------------------------------------|-----------------------------------------------------------------------------------|
//! | with `Prefer: respond-async`       | at once: 202, the operation, `Location` (RFC 7240)                                |
//! | without, and it is over in time    | with what came of it                                                              |
//! | without, and it takes longer       | after [`ANSWER_MAX`], as the first                                                |
//! | while another one goes on          | 409, and which it is                                                              |
//! | with the key of an earlier request | as that one                                                                       |
//!
//! The audit has it twice: when it begins, with who, from where and why, and when it is over, with what came of it.

use super::Http;
use super::extract::{OptionalBody, Params, Part};
use super::problem::Problem;
use crate::backup::Made;
use crate::core::{CoreError, Handle, Order};
use crate::operation::{self, Begun, Kind, NotBegun, Outcome, Tell};
use api::{Backup, BackupList, BackupMake, Check, Finding, Operation, OperationList, Progress, Span};
use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use utoipa::IntoParams;

/// Who wants to wait for the end itself is answered after this long at the latest; shorter than any request may take.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// The longest that a question for an operation may stay open.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Make a backup of the database on the server's host, while everything goes on. With `Prefer: respond-async`, or if it takes longer than a
/// minute and a half, the answer is the operation, to be asked for at `Location`.
#[utoipa::path(post, path = "/api/v1/server/backups", tag = "server", request_body = Option<BackupMake>,
    params(("Prefer" = Option<String>, Header, description = "`respond-async`: answer at once, with the operation")),
    responses((status = 201, description = "the backup, complete and on disk", body = Backup),
        (status = 202, description = "it is being made; `Location` names the operation", body = Operation),
        (status = 409, description = "another one is being made", body = api::Problem),
        (status = 422, description = "it cannot be made there", body = api::Problem)))]
pub(super) async fn back_up(
    State(http): State<Http>,
    headers: HeaderMap,
    OptionalBody(request): OptionalBody<BackupMake>,
) -> Result<Response, Problem> {
    let (backups, db) = (Arc::clone(&http.app.backups), Arc::clone(&http.app.db));
    let to = request.to.clone().map(PathBuf::from);
    let work = move |tell: Tell<'_>| {
        let made = backups.make(&*db, to.as_deref(), os::clock::wall_ms(), tell)?;
        Ok(Outcome::Made(Box::new(made)))
    };
    let begun = begin(&http, Kind::Backup, json!({"to": request.to}), work).await?;
    answer(&http, begun, &headers).await
}

/// List the complete backups of the server's usual folder, the newest first.
#[utoipa::path(get, path = "/api/v1/server/backups", tag = "server", responses((status = 200, body = BackupList)))]
pub(super) async fn list(State(http): State<Http>) -> Result<Json<BackupList>, Problem> {
    let backups = Arc::clone(&http.app.backups);
    let found = tokio::task::spawn_blocking(move || backups.list()).await.map_err(|_| Problem::stopping())?;
    let found = found.map_err(|e| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "backups",
            "The backups cannot be listed",
            format!("{e:#}"),
        )
    })?;
    Ok(Json(BackupList { items: found.into_iter().map(shown).collect() }))
}

/// Look for contradictions in the database, reading everything: the file, its indexes, and what must be true of jobs, runs and messages. With
/// `Prefer: respond-async`, or if it takes longer than a minute and a half, the answer is the operation, to be asked for at `Location`.
#[utoipa::path(post, path = "/api/v1/server/check", tag = "server",
    params(("Prefer" = Option<String>, Header, description = "`respond-async`: answer at once, with the operation")),
    responses((status = 200, description = "what was found", body = Check),
        (status = 202, description = "it goes on; `Location` names the operation", body = Operation),
        (status = 409, description = "another one goes on", body = api::Problem)))]
pub(super) async fn check(State(http): State<Http>, headers: HeaderMap) -> Result<Response, Problem> {
    let db = Arc::clone(&http.app.db);
    let work = move |tell: Tell<'_>| Ok(Outcome::Checked(db.check(tell)?));
    let begun = begin(&http, Kind::Check, json!({}), work).await?;
    answer(&http, begun, &headers).await
}

/// List the operations that go on, and the latest that are over, the newest first.
#[utoipa::path(get, path = "/api/v1/server/operations", tag = "server", responses((status = 200, body = OperationList)))]
pub(super) async fn operations(State(http): State<Http>) -> Json<OperationList> {
    Json(OperationList { items: http.app.operations.list().into_iter().map(operation).collect() })
}

/// How an operation is to be shown.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// Answer when it is over, or after this long (at most 60 s), whatever comes first: `30s`.
    #[param(value_type = Option<String>)]
    wait: Option<Span>,
}

/// Show an operation; with `wait` the answer comes when it is over, or when the time is.
#[utoipa::path(get, path = "/api/v1/server/operations/{id}", tag = "server", params(("id" = String, Path), Wait),
    responses((status = 200, body = Operation), (status = 404, description = "no such operation since the server was started", body = api::Problem)))]
pub(super) async fn show_operation(
    State(http): State<Http>,
    Part(id): Part<String>,
    Params(params): Params<Wait>,
) -> Result<Json<Operation>, Problem> {
    let state = http.app.operations.find(&id);
    let mut state = state.ok_or_else(|| {
        let detail = format!(
            "there is no operation \"{id}\": it is long over, or the server was started anew and it ended then; \
             `lastword server operations` lists those there are"
        );
        Problem::new(StatusCode::NOT_FOUND, "no-such-operation", "No such operation", detail)
    })?;
    let limit = params.wait.map_or(Duration::ZERO, |wait| Duration::from_millis(wait.ms).min(WAIT_MAX));
    Ok(Json(operation(patiently(&http, &mut state, limit).await)))
}

/// End the recovery after a restore: agents that have not told what they ran since the backup never will. Jobs of the backup that wait
/// go on; one that such an agent ran since runs again.
#[utoipa::path(post, path = "/api/v1/server/end-recovery", tag = "server", responses((status = 204)))]
pub(super) async fn end_recovery(State(http): State<Http>) -> Result<StatusCode, Problem> {
    http.app.handle.end_recovery().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins an operation by the present order, with its entries in the audit.
async fn begin(
    http: &Http,
    kind: Kind,
    asked: Value,
    work: impl FnOnce(Tell<'_>) -> anyhow::Result<Outcome> + Send + 'static,
) -> Result<Begun, Problem> {
    let order = Order::present().ok_or_else(Problem::stopping)?; // every request that may change something has one
    let by = order.caller.name.clone();
    let once = order.once.as_ref();
    let key =
        once.map(|once| operation::Key { user: by.clone(), key: once.key.clone(), digest: once.digest });
    let audit = Audit { handle: http.app.handle.clone(), order: Arc::clone(&order), kind };
    let (noted, is_noted) = oneshot::channel::<()>();
    let over = {
        let audit = audit.clone();
        move |operation: operation::Operation| async move {
            let _ = is_noted.await; // the beginning first
            audit.note_end(&operation).await;
        }
    };
    match http.app.operations.begin((kind, &by, key), work, over) {
        Ok(begun) if begun.repeated => {
            order.on_repeated();
            Ok(begun)
        }
        Ok(begun) => {
            let id = begun.state.borrow().id.clone();
            // On its own, so that nobody who hangs up now keeps it from the audit.
            let note = tokio::spawn(async move {
                audit.note("begun", &id, asked, None).await;
                let _ = noted.send(()); // it was over already, if nobody hears
            });
            let _ = note.await; // it panicked, which is traced
            Ok(begun)
        }
        Err(NotBegun::KeyReused(key)) => Err(CoreError::KeyReused(key).into()),
        Err(busy @ NotBegun::Busy { .. }) => {
            audit.note("begun", "", asked, Some(busy.to_string())).await;
            let title = "One of its kind goes on";
            Err(Problem::new(StatusCode::CONFLICT, "busy", title, busy.to_string()))
        }
    }
}

/// Writes what becomes of an operation into the audit, on behalf of whoever began it.
#[derive(Clone)]
struct Audit {
    handle: Handle,
    order: Arc<Order>,
    kind: Kind,
}

impl Audit {
    async fn note_end(&self, operation: &operation::Operation) {
        let (detail, refusal) = match &operation.outcome {
            Some(Outcome::Made(made)) => {
                let file = made.path.display().to_string();
                (json!({"file": file, "bytes": made.manifest.bytes, "commit": made.manifest.commit}), None)
            }
            Some(Outcome::Checked(checked)) => (json!({"contradictions": checked.findings.len()}), None),
            Some(Outcome::Failed(why)) => (json!({}), Some(why.clone())),
            None => return,
        };
        if let Some(why) = &refusal {
            tracing::error!("the {} of {} failed: {why}", self.kind.name(), operation.by);
        }
        self.note("over", &operation.id, detail, refusal).await;
    }

    /// What cannot be noted now is traced: the operation itself may be what is needed while the database cannot be written.
    async fn note(&self, stage: &str, id: &str, detail: Value, refusal: Option<String>) {
        let action = format!("server.{}", self.kind.name());
        let mut all = Map::new();
        all.insert("stage".to_owned(), stage.into());
        if !id.is_empty() {
            all.insert("operation".to_owned(), id.into());
        }
        all.extend(detail.as_object().cloned().into_iter().flatten().filter(|(_, value)| !value.is_null()));
        let note = self.handle.note(&action, "server", all, refusal);
        if let Err(e) = Arc::clone(&self.order).during(note).await {
            tracing::warn!("{action} of {} could not be noted in the audit: {e}", self.order.caller.name);
        }
    }
}

async fn answer(http: &Http, mut begun: Begun, headers: &HeaderMap) -> Result<Response, Problem> {
    let limit = if is_for_later(headers) { Duration::ZERO } else { ANSWER_MAX };
    let present = patiently(http, &mut begun.state, limit).await;
    let kind = present.kind;
    match present.outcome {
        Some(Outcome::Made(made)) if !limit.is_zero() => {
            Ok((StatusCode::CREATED, Json(shown(*made))).into_response())
        }
        Some(Outcome::Checked(checked)) if !limit.is_zero() => Ok(Json(check_of(checked)).into_response()),
        Some(Outcome::Failed(why)) if !limit.is_zero() => Err(match kind {
            Kind::Backup => Problem::invalid(format!("the backup could not be made: {why}")),
            Kind::Check => {
                let title = "The database cannot be checked";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "database", title, why)
            }
        }),
        Some(Outcome::Made(_) | Outcome::Checked(_) | Outcome::Failed(_)) | None => {
            let operation = operation(begun.state.borrow().clone());
            let location = format!("/api/v1/server/operations/{}", operation.id);
            Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(operation)).into_response())
        }
    }
}

/// Whether the answer is wanted at once, whatever it can say by then.
fn is_for_later(headers: &HeaderMap) -> bool {
    let lines = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut wishes = lines.flat_map(|line| line.split([',', ';']));
    wishes.any(|wish| wish.trim().eq_ignore_ascii_case("respond-async"))
}

/// Waits until it is over, at most so long, and not when the server stops.
async fn patiently(
    http: &Http,
    state: &mut watch::Receiver<operation::Operation>,
    limit: Duration,
) -> operation::Operation {
    let mut stopping = http.stopping.clone();
    let present = state.borrow().clone();
    tokio::select! {
        over = operation::wait(state, limit) => over,
        _ = stopping.wait_for(|stopping| *stopping) => present,
    }
}

pub(super) fn operation(of: operation::Operation) -> Operation {
    let (mut backup, mut check, mut failure) = (None, None, None);
    let state = match of.outcome {
        None => "running",
        Some(Outcome::Made(made)) => {
            backup = Some(shown(*made));
            "done"
        }
        Some(Outcome::Checked(checked)) => {
            check = Some(check_of(checked));
            "done"
        }
        Some(Outcome::Failed(why)) => {
            failure = Some(why);
            "failed"
        }
    };
    let progress = |progress: operation::Progress| Progress {
        step: progress.step.to_owned(),
        done: progress.done,
        total: progress.total,
        unit: progress.unit.name().to_owned(),
    };
    Operation {
        id: of.id,
        kind: of.kind.name().to_owned(),
        state: state.to_owned(),
        by: of.by,
        begun_at: of.begun_at_ms.into(),
        ended_at: of.ended_at_ms.map(Into::into),
        progress: of.progress.map(progress),
        backup,
        check,
        failure,
    }
}

pub(super) fn check_of(checked: crate::db::Checked) -> Check {
    let finding = |f: crate::db::Finding| Finding { what: f.what, advice: f.advice.to_owned() };
    Check {
        jobs: checked.jobs,
        runs: checked.runs,
        facts: checked.facts,
        findings: checked.findings.into_iter().map(finding).collect(),
    }
}

pub(super) fn shown(made: Made) -> Backup {
    let manifest = made.manifest;
    Backup {
        file: made.path.display().to_string(),
        made_at: manifest.made_at_ms.into(),
        software: manifest.software,
        node: manifest.node,
        database_id: manifest.database_id,
        epoch: manifest.epoch,
        commit: manifest.commit,
        schema: manifest.schema,
        last_job: manifest.last_job,
        bytes: manifest.bytes,
        sha256: manifest.sha256,
        rows: manifest.rows,
    }
}

//! Backups, the check of the database, the end of a recovery.

use super::Http;
use super::extract::OptionalBody;
use super::problem::Problem;
use crate::backup::Made;
use api::{Backup, BackupList, BackupMake, Check, Finding};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::path::PathBuf;
use std::sync::Arc;

/// Make a backup of the database on the server's host, while everything goes on.
#[utoipa::path(post, path = "/api/v1/server/backups", tag = "server", request_body = Option<BackupMake>,
    responses((status = 201, description = "the backup, complete and on disk", body = Backup),
        (status = 409, description = "another one is being made", body = api::Problem),
        (status = 422, description = "it cannot be made there", body = api::Problem)))]
pub(super) async fn back_up(
    State(http): State<Http>,
    OptionalBody(request): OptionalBody<BackupMake>,
) -> Result<(StatusCode, Json<Backup>), Problem> {
    let (backups, db) = (Arc::clone(&http.app.backups), Arc::clone(&http.app.db));
    let to = request.to.map(PathBuf::from);
    let made = tokio::task::spawn_blocking(move || backups.make(&*db, to.as_deref(), os::clock::wall_ms()));
    let made = made.await.map_err(|_| Problem::stopping())?;
    let made = made.map_err(|error| {
        tracing::error!("a backup could not be made: {error:#}");
        Problem::invalid(format!("the backup could not be made: {error:#}"))
    })?;
    Ok((StatusCode::CREATED, Json(shown(made))))
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

/// Look for contradictions in the database, reading everything: the file, its indexes, and what must be true of jobs, runs and messages.
#[utoipa::path(post, path = "/api/v1/server/check", tag = "server", responses((status = 200, body = Check)))]
pub(super) async fn check(State(http): State<Http>) -> Result<Json<Check>, Problem> {
    let checked = http.read(|db| db.check()).await?;
    let finding = |f: crate::db::Finding| Finding { what: f.what, advice: f.advice.to_owned() };
    Ok(Json(Check {
        jobs: checked.jobs,
        runs: checked.runs,
        facts: checked.facts,
        findings: checked.findings.into_iter().map(finding).collect(),
    }))
}

/// End the recovery after a restore: agents that have not told what they ran since the backup never will. Jobs of the backup that wait
/// go on; one that such an agent ran since runs again.
#[utoipa::path(post, path = "/api/v1/server/end-recovery", tag = "server", responses((status = 204)))]
pub(super) async fn end_recovery(State(http): State<Http>) -> Result<StatusCode, Problem> {
    http.app.handle.end_recovery().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(made: Made) -> Backup {
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

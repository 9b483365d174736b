//! The server's own state: for people, for whoever restarts it, for Prometheus.

use super::problem::Problem;
use super::{Http, show};
use crate::db::Place;
use api::{FilesStatus, Health, Recovery, ServerStatus};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use std::time::Duration;

/// So long has the core for a question before it counts as stuck.
const CORE_MAX: Duration = Duration::from_secs(5);

/// Show whether the server makes progress, and what it holds.
#[utoipa::path(get, path = "/api/v1/server/status", tag = "server",
    responses((status = 200, body = ServerStatus), (status = 503, body = api::Problem)))]
pub(super) async fn status(State(http): State<Http>) -> Result<Json<ServerStatus>, Problem> {
    let answer = tokio::time::timeout(CORE_MAX, http.app.handle.status()).await;
    let stuck =
        || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stuck", "No progress", "the core does not answer");
    let status = answer.map_err(|_| stuck())??;
    let health = http.app.handle.health();
    let counts = http.read(|db| db.file_counts()).await?;
    let count = |place: Place| counts[place as usize];
    let files = FilesStatus {
        store: http.app.files.url(),
        trouble: http.app.files.trouble(),
        with_agents: count(Place::Agent).files,
        stored: count(Place::Stored).files,
        stored_bytes: count(Place::Stored).bytes,
        lost: count(Place::Lost).files,
        removed: count(Place::Removed).files,
    };
    Ok(Json(ServerStatus {
        name: http.app.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: health.is_ready(),
        reason: Some(health.problems.join("; ")).filter(|text| !text.is_empty()),
        started_at: status.started_at_ms.into(),
        epoch: status.epoch,
        database_id: status.database_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        commit: status.commit,
        inbox: status.inbox as u64,
        agents: status.agents as u64,
        agents_connected: status.agents_connected as u64,
        strays: status.strays,
        recovery: status.recovery.map(|view| Recovery { untold: view.untold, kept_back: view.kept_back }),
        files,
        jobs: show::counts(&status.counts),
    }))
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "server", responses((status = 200, body = Health)))]
pub(super) async fn alive() -> Json<Health> {
    Json(Health { status: "ok".to_owned(), reason: None, warnings: Vec::new() })
}

/// The server makes progress: its database can be written, its core takes steps. A file store that cannot be used is a warning: nothing else suffers
/// from it.
#[utoipa::path(get, path = "/readyz", tag = "server",
    responses((status = 200, body = Health), (status = 503, description = "it does not; the reason is said", body = Health)))]
pub(super) async fn ready(State(http): State<Http>) -> (StatusCode, Json<Health>) {
    let mut problems = http.app.handle.health().problems;
    match tokio::time::timeout(CORE_MAX, http.app.handle.status()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => problems.push(error.to_string()),
        Err(_) => problems.push("the core does not answer".to_owned()),
    }
    if *http.stopping.borrow() {
        problems.push("the server stops".to_owned());
    }
    let warnings = http.app.files.trouble().into_iter().collect();
    if problems.is_empty() {
        (StatusCode::OK, Json(Health { status: "ok".to_owned(), reason: None, warnings }))
    } else {
        let reason = Some(problems.join("; "));
        (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "not ready".to_owned(), reason, warnings }))
    }
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server",
    responses((status = 200, description = "Prometheus text format", content_type = "text/plain", body = String)))]
pub(super) async fn figures(State(http): State<Http>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text(&http))
}

/// The figures as they stand.
pub(super) fn text(http: &Http) -> String {
    for (status, count) in http.app.handle.counts().iter() {
        metrics::gauge!("lastword_jobs", "status" => status.name()).set(count as f64);
    }
    metrics::gauge!("lastword_agents_connected").set(http.app.agents.connected() as f64);
    metrics::gauge!("lastword_ready").set(if http.app.handle.health().is_ready() { 1.0 } else { 0.0 });
    metrics::gauge!("lastword_commit_number").set(http.app.db.commit_number() as f64);
    http.metrics.as_ref().map(|metrics| metrics.render()).unwrap_or_default()
}

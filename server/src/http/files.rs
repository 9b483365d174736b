//! The files that were kept of a job: listed as the agent's facts tell them, with the place that the record has for each. Read from the file store
//! if they are there, else from their agent, and passed on piece by piece.

use super::extract::{Params, Part};
use super::output::Pieces;
use super::problem::Problem;
use super::{Http, jobs};
use crate::agents::Wanted;
use crate::db::{FileRecord, Place};
use crate::files::{Files, StoreError};
use api::{FileState, JobFile, JobFiles};
use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use job::{JobId, RunId};
use protocol::message::{Captured, Fact, FactBody};
use protocol::stream::Which;
use scheduler::RunRecord;
use serde::Deserialize;
use std::ops;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use utoipa::IntoParams;

/// One piece on its way from the store.
const PIECE_BYTES: u64 = 1 << 20;
/// Pieces that wait for a slow reader.
const PIECES_WAITING_MAX: usize = 1;

/// Of which attempt.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Attempt {
    /// Of this attempt; the latest if absent.
    attempt: Option<u32>,
}

/// Which part of a file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Range {
    /// Of this attempt; the latest if absent.
    attempt: Option<u32>,
    /// From this byte; 0 if absent.
    #[serde(default)]
    offset: u64,
    /// At most this many bytes; all if absent.
    limit: Option<u64>,
}

/// List the files that were kept of a job (`capture`), as far as they are there by now, and where each of them is.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/files", tag = "jobs", operation_id = "files", params(("id" = u64, Path), Attempt),
    responses((status = 200, body = JobFiles), (status = 404, description = "no such job, or it has no run yet", body = api::Problem)))]
pub(super) async fn list(
    State(http): State<Http>,
    Part(id): Part<u64>,
    Params(which): Params<Attempt>,
) -> Result<Json<JobFiles>, Problem> {
    let run = run(&http, id, which.attempt).await?;
    let items = kept(&http, run.id).await?.into_iter().map(Kept::show).collect();
    Ok(Json(JobFiles { attempt: run.attempt, items }))
}

/// Read a file that was kept of a job. A slash in its name is written as `%2F`.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/files/{name}", tag = "jobs", operation_id = "file",
    params(("id" = u64, Path), ("name" = String, Path, description = "its name, as the list has it"), Range),
    responses((status = 200, description = "the bytes", content_type = "application/octet-stream", body = Vec<u8>, headers(
            ("ETag" = String, description = "of the whole, whichever part is asked for"),
            ("X-Sha256" = String, description = "SHA-256 of the whole, hexadecimal"))),
        (status = 404, description = "no such job or file", body = api::Problem),
        (status = 410, description = "it is lost, or retention has removed it; the detail says why", body = api::Problem),
        (status = 503, description = "the file store, or the agent that has the file, cannot be reached", body = api::Problem)))]
pub(super) async fn read(
    State(http): State<Http>,
    Part((id, name)): Part<(u64, String)>,
    Params(range): Params<Range>,
) -> Result<Response, Problem> {
    let run = run(&http, id, range.attempt).await?;
    let Some(kept) = kept(&http, run.id).await?.into_iter().find(|kept| kept.file.name == name) else {
        let detail = format!("no file \"{name}\" was kept of job {id}; see `lastword job files {id}`");
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-such-file", "No such file", detail));
    };
    let size = kept.file.bytes.unwrap_or(0);
    let from = range.offset.min(size);
    let part = from..from.saturating_add(range.limit.unwrap_or(u64::MAX)).min(size);
    let sha256 = hex(&kept.file.sha256);
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (CONTENT_LENGTH, (part.end - part.start).to_string()),
        (ETAG, format!("\"{sha256}\"")),
        (HeaderName::from_static("x-sha256"), sha256),
    ];
    let body = body(&http, &run, kept, part).await?;
    Ok((headers, body).into_response())
}

/// From wherever it is. What the store has lost, or cannot give now, may still be with its agent.
async fn body(http: &Http, run: &RunRecord, kept: Kept, part: ops::Range<u64>) -> Result<Body, Problem> {
    let mut away = None;
    if let Some(record) = &kept.record {
        match (record.place, &record.key) {
            (Place::Stored, Some(key)) => match from_store(&http.app.files, key, part.clone()).await {
                Ok(body) => return Ok(body),
                Err(StoreError::Missing) => http.app.files.on_missing(record).await,
                Err(error @ StoreError::Away(_)) => away = Some(error),
            },
            (Place::Lost | Place::Removed, _) => {
                let (state, why) = (show(record.place).text(), record.reason.as_deref());
                let detail = format!(
                    "file \"{}\" is {state}: {}",
                    kept.file.name,
                    why.unwrap_or("why is not on record")
                );
                return Err(Problem::new(StatusCode::GONE, "gone", "It is there no more", detail));
            }
            (Place::Agent | Place::Stored, _) => {}
        }
    }
    let (which, bytes_max) = (Which::Kept(kept.file.name), Some(part.end - part.start));
    let wanted = Wanted { run: run.id, which, offset: part.start, bytes_max, follow: false };
    match (http.app.agents.output(&run.agent, wanted).await, away) {
        (Ok(output), _) => Ok(Body::new(Pieces::whole(output))),
        (Err(_), Some(error)) => Err(error.into()),
        (Err(error), None) => Err(error.into()),
    }
}

async fn run(http: &Http, id: u64, attempt: Option<u32>) -> Result<RunRecord, Problem> {
    let (_, mut runs) = jobs::records(http, JobId(id)).await?;
    let found = match attempt {
        None => runs.pop(),
        Some(n) => runs.into_iter().find(|run| run.attempt == n),
    };
    found.ok_or_else(|| {
        let detail = format!("job {id} has no such run, or none yet; see `lastword job show {id}`");
        Problem::new(StatusCode::NOT_FOUND, "no-run-yet", "No such run", detail)
    })
}

/// A file as its agent told of it, and what the record has of it. One that was kept before there was a file store has no such record: it stays with
/// its agent.
struct Kept {
    kept_at_ms: Option<i64>,
    file: Captured,
    record: Option<FileRecord>,
}

impl Kept {
    fn show(self) -> JobFile {
        let Kept { kept_at_ms, file, record } = self;
        let place = record.as_ref().map_or(Place::Agent, |record| record.place);
        let stored_at = record.as_ref().filter(|_| place == Place::Stored).map(|record| record.at_ms.into());
        JobFile {
            name: file.name,
            bytes: file.bytes.unwrap_or(0),
            sha256: hex(&file.sha256),
            kept_at: kept_at_ms.map(Into::into),
            state: show(place),
            stored_at,
            reason: record.and_then(|record| record.reason),
        }
    }
}

fn show(place: Place) -> FileState {
    match place {
        Place::Agent => FileState::WithAgent,
        Place::Stored => FileState::Stored,
        Place::Lost => FileState::Lost,
        Place::Removed => FileState::Removed,
    }
}

/// The files that the run's facts tell of, by name.
async fn kept(http: &Http, run: RunId) -> Result<Vec<Kept>, Problem> {
    let (facts, records) = http.read(move |db| Ok((db.facts(run)?, db.files(run)?))).await?;
    let file = |bytes: &[u8]| match Fact::read(bytes).ok()? {
        Fact { at_ms, body: Some(FactBody::Captured(file)) } => Some((at_ms, file)),
        Fact { .. } => None,
    };
    let mut files: Vec<_> = facts.iter().filter_map(|fact| file(&fact.bytes)).collect();
    files.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
    files.dedup_by(|(_, one), (_, other)| one.name == other.name); // told again after a crash
    let of = |(kept_at_ms, file): (Option<i64>, Captured)| {
        let record = records.iter().find(|record| record.file.name == file.name).cloned();
        Kept { kept_at_ms, file, record }
    };
    Ok(files.into_iter().map(of).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body whose first bytes are there already: what is not in the store at all is told before anything else.
async fn from_store(files: &Files, key: &str, part: ops::Range<u64>) -> Result<Body, StoreError> {
    let until = |from: u64| from..part.end.min(from.saturating_add(PIECE_BYTES));
    let first = files.read(key, until(part.start)).await?;
    let (pieces, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    let (files, key, end) = (files.clone(), key.to_owned(), part.end);
    let mut at = part.start + first.len() as u64;
    tokio::spawn(async move {
        let mut next = Ok(first);
        loop {
            let failed = next.is_err();
            if pieces.send(next).await.is_err() || failed || at >= end {
                return; // the reader is gone, or all was said; a body that stays too short breaks the connection
            }
            next = files.read(&key, at..end.min(at.saturating_add(PIECE_BYTES))).await;
            at += next.as_ref().map_or(0, |piece| piece.len() as u64);
        }
    });
    Ok(Body::new(FromStore(receiver)))
}

/// A body whose pieces come from the store.
struct FromStore(mpsc::Receiver<Result<Bytes, StoreError>>);

impl HttpBody for FromStore {
    type Data = Bytes;
    type Error = StoreError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

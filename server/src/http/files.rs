//! The files that were kept of a job. They stay with the agent; here they are listed as its facts tell them, and passed on piece by piece.

use super::extract::{Params, Part};
use super::problem::Problem;
use super::{Http, jobs};
use crate::agents::QueryError;
use api::{JobFile, JobFiles};
use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use job::{JobId, RunId};
use protocol::message::{AnswerBody, Captured, Fact, FactBody, FileRange, QueryBody};
use scheduler::RunRecord;
use serde::Deserialize;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use utoipa::IntoParams;

/// One piece on its way from the agent.
const PIECE_BYTES: u32 = 64 << 10;
/// Pieces that wait for a slow reader.
const PIECES_WAITING_MAX: usize = 2;

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

/// List the files that were kept of a job (`capture`), as far as they are there by now.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/files", tag = "jobs", operation_id = "files", params(("id" = u64, Path), Attempt),
    responses((status = 200, body = JobFiles), (status = 404, description = "no such job, or it has no run yet", body = api::Problem)))]
pub(super) async fn list(
    State(http): State<Http>,
    Part(id): Part<u64>,
    Params(which): Params<Attempt>,
) -> Result<Json<JobFiles>, Problem> {
    let run = run(&http, id, which.attempt).await?;
    let items = kept(&http, run.id).await?.into_iter().map(|(at_ms, file)| JobFile {
        name: file.name,
        bytes: file.bytes.unwrap_or(0),
        sha256: file.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        kept_at: at_ms.map(Into::into),
    });
    Ok(Json(JobFiles { attempt: run.attempt, items: items.collect() }))
}

/// Read a file that was kept of a job. A slash in its name is written as `%2F`.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/files/{name}", tag = "jobs", operation_id = "file",
    params(("id" = u64, Path), ("name" = String, Path, description = "its name, as the list has it"), Range),
    responses((status = 200, description = "the bytes", content_type = "application/octet-stream", body = Vec<u8>, headers(
            ("X-Sha256" = String, description = "SHA-256 of the whole, hexadecimal"))),
        (status = 404, description = "no such job or file", body = api::Problem),
        (status = 503, description = "the agent, which keeps the file, is not connected", body = api::Problem)))]
pub(super) async fn read(
    State(http): State<Http>,
    Part((id, name)): Part<(u64, String)>,
    Params(range): Params<Range>,
) -> Result<Response, Problem> {
    let run = run(&http, id, range.attempt).await?;
    let Some((_, file)) = kept(&http, run.id).await?.into_iter().find(|(_, file)| file.name == name) else {
        let detail = format!("no file \"{name}\" was kept of job {id}; see `lastword job files {id}`");
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-such-file", "No such file", detail));
    };
    let length = file.bytes.unwrap_or(0).saturating_sub(range.offset).min(range.limit.unwrap_or(u64::MAX));
    let source = Source { http, agent: run.agent, run: run.id, name };
    let first = source.piece(range.offset, length).await?;
    let (pieces, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(source.pump(first, range.offset, length, pieces));
    let sha256: String = file.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (HeaderName::from_static("x-sha256"), sha256),
    ];
    Ok((headers, Body::new(Pieces(receiver))).into_response())
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

/// The files that the run's facts tell of, with the agent's clock, by name.
async fn kept(http: &Http, run: RunId) -> Result<Vec<(Option<i64>, Captured)>, Problem> {
    let facts = http.read(move |db| db.facts(run)).await?;
    let file = |bytes: &[u8]| match Fact::read(bytes).ok()? {
        Fact { at_ms, body: Some(FactBody::Captured(file)) } => Some((at_ms, file)),
        Fact { .. } => None,
    };
    let mut files: Vec<_> = facts.iter().filter_map(|fact| file(&fact.bytes)).collect();
    files.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
    files.dedup_by(|(_, one), (_, other)| one.name == other.name); // told again after a crash
    Ok(files)
}

/// Where the bytes come from.
struct Source {
    http: Http,
    agent: String,
    run: RunId,
    name: String,
}

impl Source {
    async fn piece(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, QueryError> {
        let bytes_max = u32::try_from(bytes).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let (offset, bytes_max) = (Some(offset), Some(bytes_max));
        let question = QueryBody::File(FileRange { name: self.name.clone(), offset, bytes_max });
        match self.http.app.agents.query(&self.agent, self.run, question).await? {
            AnswerBody::Output(data) if data.data.len() as u64 <= bytes => Ok(data.data),
            AnswerBody::Output(_) | AnswerBody::Ledger(_) | AnswerBody::Failed(_) => {
                Err(self.failed("its answer makes no sense"))
            }
        }
    }

    /// Sends piece after piece. A body that stays shorter than promised breaks the connection: the reader sees that something is missing.
    async fn pump(
        self,
        first: Vec<u8>,
        offset: u64,
        length: u64,
        pieces: mpsc::Sender<Result<Bytes, QueryError>>,
    ) {
        let (mut sent, mut next) = (0, Ok(first));
        loop {
            let failed = next.is_err();
            sent += next.as_ref().map_or(0, |piece: &Vec<u8>| piece.len() as u64);
            if pieces.send(next.map(Bytes::from)).await.is_err() || failed || sent >= length {
                return; // the reader is gone, or all was said
            }
            next = match self.piece(offset + sent, length - sent).await {
                Ok(piece) if piece.is_empty() => Err(self.failed("the file is shorter than it was")),
                answered => answered,
            };
        }
    }

    fn failed(&self, reason: &str) -> QueryError {
        QueryError::Failed { agent: self.agent.clone(), reason: reason.to_owned() }
    }
}

/// A body whose pieces come from a channel.
struct Pieces(mpsc::Receiver<Result<Bytes, QueryError>>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = QueryError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, QueryError>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

//! What a job wrote. It stays with the agent; here it is only passed on, piece by piece.

use super::extract::{Params, Part};
use super::problem::Problem;
use super::{Http, jobs};
use crate::agents::QueryError;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use job::{JobId, RunId};
use protocol::message::{AnswerBody, OutputData, OutputRange, QueryBody, StreamKind};
use scheduler::RunRecord;
use serde::Deserialize;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use utoipa::IntoParams;

/// One piece on its way from the agent. Small beside the wire's largest frame, so that a status never waits long behind it.
const PIECE_BYTES: u64 = 256 << 10;
/// Pieces that wait for a slow reader.
const PIECES_WAITING_MAX: usize = 2;

/// Which part of it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Range {
    /// From this byte; 0 if absent.
    #[serde(default)]
    offset: u64,
    /// At most this many bytes; all that is there now if absent.
    limit: Option<u64>,
    /// Of this attempt; the latest if absent.
    attempt: Option<u32>,
}

/// Read what a job wrote, from an offset on; while it runs: what is there now. Ask again from `X-Offset` plus the length of the answer.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/output/{stream}", tag = "jobs",
    params(("id" = u64, Path), ("stream" = String, Path, description = "`stdout` or `stderr`"), Range),
    responses((status = 200, description = "the bytes", content_type = "application/octet-stream", body = Vec<u8>, headers(
            ("X-Offset" = u64, description = "where the answer begins"),
            ("X-Size" = u64, description = "the size of the whole so far"),
            ("X-Complete" = bool, description = "nothing more will be written"),
            ("X-Attempt" = u32, description = "the attempt that wrote it"))),
        (status = 404, description = "no such job, or it has no run yet", body = api::Problem),
        (status = 503, description = "the agent, which keeps the output, is not connected", body = api::Problem)))]
pub(super) async fn read(
    State(http): State<Http>,
    Part((id, stream)): Part<(u64, String)>,
    Params(range): Params<Range>,
) -> Result<Response, Problem> {
    let stream = match stream.as_str() {
        "stdout" => StreamKind::Stdout,
        "stderr" => StreamKind::Stderr,
        _ => {
            let detail = format!("a job has the outputs stdout and stderr, not \"{stream}\"");
            return Err(Problem::new(StatusCode::NOT_FOUND, "no-such-address", "No such address", detail));
        }
    };
    let (_, runs) = jobs::records(&http, JobId(id)).await?;
    let run = choose(id, &runs, range.attempt)?;
    let source = Source { http, agent: run.agent.clone(), run: run.id, stream };
    let first = match source.piece(range.offset, range.limit.unwrap_or(PIECE_BYTES)).await {
        Ok(first) => first,
        // What never started wrote nothing, whatever its agent can say about it.
        Err(QueryError::Away(_) | QueryError::Failed { .. }) if jobs::never_started(run) => {
            OutputData { offset: Some(0), data: Vec::new(), size: Some(0), complete: true }
        }
        Err(error) => return Err(error.into()),
    };
    let size = first.size.unwrap_or_default();
    let offset = range.offset.min(size);
    let length = (size - offset).min(range.limit.unwrap_or(u64::MAX));
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (HeaderName::from_static("x-offset"), offset.to_string()),
        (HeaderName::from_static("x-size"), size.to_string()),
        (HeaderName::from_static("x-complete"), first.complete.to_string()),
        (HeaderName::from_static("x-attempt"), run.attempt.to_string()),
    ];
    Ok((headers, source.body(first.data, offset, length)).into_response())
}

fn choose(id: u64, runs: &[RunRecord], attempt: Option<u32>) -> Result<&RunRecord, Problem> {
    let (run, detail) = match attempt {
        None => (
            runs.last(),
            format!("job {id} has no run yet, so there is no output; see `lastword job why {id}`"),
        ),
        Some(n) => (runs.iter().find(|run| run.attempt == n), format!("job {id} has no attempt {n}")),
    };
    run.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no-run-yet", "No such run", detail))
}

/// Where the bytes come from.
struct Source {
    http: Http,
    agent: String,
    run: RunId,
    stream: StreamKind,
}

impl Source {
    /// Asks the agent for one piece.
    async fn piece(&self, offset: u64, bytes: u64) -> Result<OutputData, QueryError> {
        let bytes_max = u32::try_from(bytes.min(PIECE_BYTES)).unwrap_or(u32::MAX);
        let range = OutputRange {
            stream: Some(self.stream as i32),
            offset: Some(offset),
            bytes_max: Some(bytes_max),
        };
        match self.http.app.agents.query(&self.agent, self.run, QueryBody::Output(range)).await? {
            AnswerBody::Output(data) if data.data.len() as u64 <= bytes => Ok(data),
            AnswerBody::Output(_) | AnswerBody::Ledger(_) | AnswerBody::Failed(_) => {
                Err(QueryError::Failed {
                    agent: self.agent.clone(),
                    reason: "its answer makes no sense".to_owned(),
                })
            }
        }
    }

    /// The body of an answer of exactly `length` bytes from `offset` on, of which `first` is the beginning.
    fn body(self, mut first: Vec<u8>, offset: u64, length: u64) -> Body {
        first.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        if first.len() as u64 == length {
            return Body::from(first);
        }
        let (pieces, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        tokio::spawn(self.pump(first, offset, length, pieces));
        Body::new(Pieces(receiver))
    }

    /// Sends piece after piece. A body that stays shorter than promised breaks the connection: the reader sees that something is missing.
    async fn pump(
        self,
        first: Vec<u8>,
        offset: u64,
        length: u64,
        pieces: mpsc::Sender<Result<Bytes, QueryError>>,
    ) {
        let mut sent = first.len() as u64;
        let mut next = Ok(first);
        loop {
            let failed = next.is_err();
            if pieces.send(next.map(Bytes::from)).await.is_err() || failed || sent == length {
                return; // the reader is gone, or all was said
            }
            next = match self.piece(offset + sent, length - sent).await {
                Ok(piece) if piece.data.is_empty() => {
                    let reason = "the output became shorter while it was read".to_owned();
                    Err(QueryError::Failed { agent: self.agent.clone(), reason })
                }
                Ok(piece) => {
                    sent += piece.data.len() as u64;
                    Ok(piece.data)
                }
                Err(error) => Err(error),
            };
        }
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

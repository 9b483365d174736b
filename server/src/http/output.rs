//! What a job wrote. It stays with the agent; here it is only passed on, piece by piece, as fast as the reader takes it.

use super::extract::{Params, Part};
use super::problem::Problem;
use super::{Http, jobs};
use crate::agents::{Output, QueryError, Wanted};
use api::Span;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use job::JobId;
use protocol::message::StreamKind;
use protocol::stream::Which;
use scheduler::RunRecord;
use serde::Deserialize;
use std::ops;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use utoipa::IntoParams;

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
    /// Go on with what is written later, until the run is over: the answer has no length and ends there.
    #[serde(default)]
    follow: bool,
    /// With `follow`: end the answer after this time anyway, for whoever asks again from where it ended.
    #[param(value_type = Option<String>, example = "60s")]
    wait: Option<Span>,
}

/// Read what a job wrote, from an offset on; while it runs: what is there now, or with `follow=true` all until it has ended. If the answer breaks
/// off, ask again from where it broke off. What an output limit left out of the middle is not sent: `X-Gap` says which bytes the answer skips. An
/// answer ends where something begins that was left out only after the answer had begun.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/output/{stream}", tag = "jobs",
    params(("id" = u64, Path), ("stream" = String, Path, description = "`stdout` or `stderr`"), Range),
    responses((status = 200, description = "the bytes", content_type = "application/octet-stream", body = Vec<u8>, headers(
            ("X-Offset" = u64, description = "where the answer begins"),
            ("X-Size" = u64, description = "the size of the whole so far"),
            ("X-Complete" = bool, description = "nothing more will be written"),
            ("X-Gap" = String, description = "`FROM-TO`, if the output limit left something out: these bytes, without TO, are skipped"),
            ("X-Attempt" = u32, description = "the attempt that wrote it"))),
        (status = 404, description = "no such job, or it has no run yet", body = api::Problem),
        (status = 410, description = "the agent's retention has removed it; the detail says when", body = api::Problem),
        (status = 503, description = "the agent, which keeps the output, is not connected, or too many read output", body = api::Problem)))]
pub(super) async fn read(
    State(http): State<Http>,
    Part((id, stream)): Part<(u64, String)>,
    Params(range): Params<Range>,
) -> Result<Response, Problem> {
    let which = match stream.as_str() {
        "stdout" => Which::Output(StreamKind::Stdout),
        "stderr" => Which::Output(StreamKind::Stderr),
        _ => {
            let detail = format!("a job has the outputs stdout and stderr, not \"{stream}\"");
            return Err(Problem::new(StatusCode::NOT_FOUND, "no-such-address", "No such address", detail));
        }
    };
    let (_, runs) = jobs::records(&http, JobId(id)).await?;
    let run = choose(id, &runs, range.attempt)?;
    let wanted =
        Wanted { run: run.id, which, offset: range.offset, bytes_max: range.limit, follow: range.follow };
    let output = match http.app.agents.output(&run.agent, wanted).await {
        Ok(output) => output,
        // What never started wrote nothing, whatever its agent can say about it.
        Err(QueryError::Away(_) | QueryError::Gone { .. } | QueryError::Failed { .. })
            if jobs::never_started(run) =>
        {
            Output::nothing()
        }
        Err(error) => return Err(error.into()),
    };
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (HeaderName::from_static("x-offset"), output.offset.to_string()),
        (HeaderName::from_static("x-size"), output.size.to_string()),
        (HeaderName::from_static("x-complete"), output.complete.to_string()),
        (HeaderName::from_static("x-attempt"), run.attempt.to_string()),
    ];
    let gap = output
        .gap
        .clone()
        .map(|gap| [(HeaderName::from_static("x-gap"), format!("{}-{}", gap.start, gap.end))]);
    if range.follow {
        let wait = range.wait.map(|wait| Duration::from_millis(wait.ms));
        let until = let_go(http.stopping.clone(), wait);
        let body = Body::new(Pieces { output, until: Some(Box::pin(until)) });
        return Ok((headers, gap, body).into_response());
    }
    // A body that stays shorter than promised breaks the connection: the reader sees that something is missing.
    let length = length(&output, range.offset, range.limit);
    let body = Body::new(Pieces::whole(output));
    Ok((headers, gap, [(CONTENT_LENGTH, length.to_string())], body).into_response())
}

/// How many bytes a range of it has, beside the gap.
fn length(output: &Output, offset: u64, limit: Option<u64>) -> u64 {
    let end = offset.min(output.size).saturating_add(limit.unwrap_or(u64::MAX)).min(output.size);
    let overlap = |gap: &ops::Range<u64>| gap.end.min(end).saturating_sub(gap.start.max(output.offset));
    end.saturating_sub(output.offset).saturating_sub(output.gap.as_ref().map_or(0, overlap))
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

/// When a follower is let go, and whether in good order.
pub(super) type LetGo = Pin<Box<dyn Future<Output = Result<(), QueryError>> + Send>>;

/// The body of an answer: what comes from the agent, as fast as it is taken.
pub(super) struct Pieces {
    pub(super) output: Output,
    /// A follower is let go then: it asks again from where it is.
    pub(super) until: Option<LetGo>,
}

impl Pieces {
    /// All of it.
    pub(super) fn whole(output: Output) -> Pieces {
        Pieces { output, until: None }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = QueryError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, QueryError>>> {
        match self.until.as_mut().map(|until| until.as_mut().poll(context)) {
            Some(Poll::Ready(Ok(()))) => return Poll::Ready(None),
            Some(Poll::Ready(Err(error))) => return Poll::Ready(Some(Err(error))),
            Some(Poll::Pending) | None => {}
        }
        let piece = self.output.poll_next(context);
        piece.map(|piece| piece.map(|piece| piece.map(|piece| Frame::data(Bytes::from(piece)))))
    }
}

/// When a follower is let go: after `wait` in good order; when the server stops, so that it sees that something is missing.
pub(super) async fn let_go(
    mut stopping: watch::Receiver<bool>,
    wait: Option<Duration>,
) -> Result<(), QueryError> {
    let over = async {
        match wait {
            Some(wait) => tokio::time::sleep(wait).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => Ok(()),
        _ = stopping.wait_for(|stopping| *stopping) => Err(QueryError::Stopping),
    }
}

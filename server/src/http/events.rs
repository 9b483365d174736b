//! What happens, told as it happens: server-sent events, and pages of what was.
//!
//! A follower is told everything from where it says that it left off: first from the record, then live. Live events wait for it in the
//! core's feed, which is bounded: who falls behind there is cut off with a last event that says so, and comes again with the number of the
//! event that it saw last. So nothing is missed, nothing is told twice, and nobody's slowness costs the server memory.

use super::Http;
use super::extract::Params;
use super::page::{check_limit, read_number};
use super::problem::Problem;
use crate::auth::Caller;
use crate::db::Walk;
use api::{Event, EventList};
use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use job::JobId;
use scheduler::{EventFilter, EventKind, EventRecord};
use serde::Deserialize;
use serde_json::json;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, watch};
use utoipa::IntoParams;

/// So often a follower hears from the server though nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// So many events are read from the record at once.
const READ_MAX: usize = 500;
/// So many live events go into one piece.
const PIECE_EVENTS_MAX: usize = 100;
/// Pieces that wait for a slow reader.
const PIECES_WAITING_MAX: usize = 2;

/// Which events to follow, and from where on.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Follow {
    /// Of these kinds or families, separated by commas: `job.status,agent`.
    kind: Option<String>,
    /// About these jobs, separated by commas: `1042,1043`.
    job: Option<String>,
    /// Of these queues and their jobs, separated by commas.
    queue: Option<String>,
    /// About these objects, separated by commas: `agent/host1,server`.
    object: Option<String>,
    /// From behind the event with this number on, unless `Last-Event-ID` says otherwise. From now on if absent.
    after: Option<u64>,
}

/// Which page of which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Of these kinds or families, separated by commas: `job.status,agent`.
    kind: Option<String>,
    /// About these jobs, separated by commas: `1042,1043`.
    job: Option<String>,
    /// Of these queues and their jobs, separated by commas.
    queue: Option<String>,
    /// About these objects, separated by commas: `agent/host1,server`.
    object: Option<String>,
    /// At most this many, 1 to 1000; 100 if absent.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List what happened, newest first, a page at a time.
#[utoipa::path(get, path = "/api/v1/events/list", tag = "events", params(Page),
    responses((status = 200, body = EventList), (status = 400, body = api::Problem)))]
pub(super) async fn list(
    State(http): State<Http>,
    Params(page): Params<Page>,
) -> Result<Json<EventList>, Problem> {
    let limit = check_limit(page.limit)?;
    let from = Walk::Below(read_number(page.cursor.as_deref())?);
    let filter = filter([page.kind, page.job, page.queue, page.object])?;
    let piece = http.read(move |db| db.events(&filter, from, limit)).await?;
    let next_cursor = piece.next.map(|next| next.to_string());
    Ok(Json(EventList { items: piece.items.iter().map(show).collect(), next_cursor }))
}

/// Follow what happens (server-sent events): `id` is the event's number, `event` its kind, `data` an `Event`. After a break come again with
/// `Last-Event-ID`: nothing is missed. Two more kinds are not events: `gap` (what is asked for is not kept any more) and `cut-off` (the last word
/// to a reader that is too slow, or that may not read any more).
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(Follow, ("Last-Event-ID" = Option<u64>, Header, description = "the number of the last event that was seen")),
    responses((status = 200, description = "the events", content_type = "text/event-stream", body = Event),
        (status = 400, body = api::Problem),
        (status = 429, description = "too many follow already", body = api::Problem)))]
pub(super) async fn follow(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Params(params): Params<Follow>,
) -> Result<Response, Problem> {
    let after = match headers.get("last-event-id").map(|value| value.to_str().map(str::parse::<u64>)) {
        Some(Ok(Ok(number))) => Some(number),
        Some(Err(_) | Ok(Err(_))) => {
            return Err(Problem::unreadable("the header Last-Event-ID is not the number of an event"));
        }
        None => params.after,
    };
    let filter = filter([params.kind, params.job, params.queue, params.object])?;
    let place = Arc::clone(&http.followers).try_acquire_owned().map_err(|_| too_many())?;
    let live = http.app.handle.follow(); // before the record is read: nothing falls between the two
    let kept = http.read(|db| db.events_kept()).await?;
    let (pieces, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    let newest = kept.map_or(0, |(_, newest)| newest);
    let follower = Follower { http, caller, filter, last: after.unwrap_or(newest), pieces, _place: place };
    tokio::spawn(follower.run(live, kept));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(Pieces(receiver))).into_response())
}

fn too_many() -> Problem {
    let detail = "too many clients follow events already; try again later, or read /api/v1/events/list";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-followers", "No room for another follower", detail)
}

/// Somebody who follows.
struct Follower {
    http: Http,
    caller: Caller,
    filter: EventFilter,
    /// Up to here everything was told.
    last: u64,
    pieces: mpsc::Sender<Result<Bytes, Infallible>>,
    _place: OwnedSemaphorePermit,
}

/// A body whose pieces come from a channel.
struct Pieces(mpsc::Receiver<Result<Bytes, Infallible>>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// The follower needs nothing more.
struct Over;

type Feed = broadcast::Receiver<Arc<EventRecord>>;

impl Follower {
    async fn run(mut self, live: Feed, kept: Option<(u64, u64)>) {
        // Whatever the reason, the body ends with this task.
        let _ = self.tell_all(live, kept).await;
    }

    async fn tell_all(&mut self, mut live: Feed, kept: Option<(u64, u64)>) -> Result<(), Over> {
        self.begin(kept).await?;
        loop {
            self.catch_up().await?;
            live = self.tell_live(live).await?;
        }
    }

    /// Says what cannot be told any more, and where the counting stands, so that a break before the first event loses nothing either.
    async fn begin(&mut self, kept: Option<(u64, u64)>) -> Result<(), Over> {
        let (oldest, newest) = kept.unwrap_or((1, 0));
        let text = if self.last > newest {
            format!(
                "the last event seen is {}, and the last one here is {newest}: this database went back in time",
                self.last
            )
        } else if self.last + 1 < oldest {
            format!("events {} to {} are not kept any more", self.last + 1, oldest - 1)
        } else {
            return self.send(format!("id: {}\n\n", self.last)).await;
        };
        self.last = self.last.clamp(oldest.saturating_sub(1), newest);
        let data = json!({"text": text});
        self.send(format!("id: {}\nevent: gap\ndata: {data}\n\n", self.last)).await
    }

    /// Tells what the record has.
    async fn catch_up(&mut self) -> Result<(), Over> {
        loop {
            let (filter, after) = (self.filter.clone(), Walk::After(self.last));
            let piece = match self.http.read(move |db| db.events(&filter, after, READ_MAX)).await {
                Ok(piece) => piece,
                Err(_) => return self.cut_off("the record cannot be read at the moment; come again").await,
            };
            let text: String = piece.items.iter().map(frame).collect();
            if !text.is_empty() {
                self.send(text).await?;
            }
            self.last = piece.items.last().map(|last| last.number).max(piece.next).unwrap_or(self.last);
            if piece.next.is_none() {
                return Ok(());
            }
        }
    }

    /// Tells what happens, until the stream is over or the record has to be read again; hands back the feed then.
    async fn tell_live(&mut self, mut live: Feed) -> Result<Feed, Over> {
        let mut stopping = self.http.stopping.clone();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.reset();
        let mut caught_up = false;
        loop {
            tokio::select! {
                next = live.recv() => match next {
                    Ok(record) => {
                        caught_up = true;
                        let text = self.take(record, &mut live);
                        if !text.is_empty() {
                            self.send(text).await?;
                        }
                    }
                    // It was away reading the record, and the feed went on: not its fault.
                    Err(RecvError::Lagged(_)) if !caught_up => return Ok(live.resubscribe()),
                    Err(RecvError::Lagged(missed)) => {
                        let text = format!("this reader is too slow, {missed} events wait; come again with Last-Event-ID {}", self.last);
                        self.cut_off(&text).await?;
                    }
                    Err(RecvError::Closed) => return Err(Over),
                },
                _ = heartbeat.tick() => self.send(": still here\n\n".to_owned()).await?,
                () = stopped(&mut stopping) => return Err(Over),
                () = self.pieces.closed() => return Err(Over),
            }
        }
    }

    /// This event and those that wait behind it, as far as they are wanted and were not told yet.
    fn take(&mut self, first: Arc<EventRecord>, live: &mut Feed) -> String {
        let mut text = String::new();
        let mut next = Ok(first);
        let mut count = 0;
        while let Ok(record) = next {
            if record.number > self.last {
                self.last = record.number;
                if self.filter.takes(&record.event) {
                    text.push_str(&frame(&record));
                }
            }
            count += 1;
            next = if count < PIECE_EVENTS_MAX { live.try_recv() } else { Err(TryRecvError::Empty) };
        }
        text
    }

    /// Nothing is told to somebody whose token does not open any more.
    async fn send(&self, text: String) -> Result<(), Over> {
        if !self.http.app.tokens.is_open(&self.caller.token_id, os::clock::wall_ms()) {
            return self.cut_off("the token was revoked or has expired, or its user was disabled").await;
        }
        self.pieces.send(Ok(Bytes::from(text))).await.map_err(|_| Over)
    }

    /// The last word.
    async fn cut_off(&self, text: &str) -> Result<(), Over> {
        let data = json!({"text": text});
        let _ = self.pieces.send(Ok(Bytes::from(format!("event: cut-off\ndata: {data}\n\n")))).await;
        Err(Over)
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await; // an error is the stop too
}

fn frame(record: &EventRecord) -> String {
    let data = serde_json::to_string(&show(record)).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", record.number, record.event.kind.name())
}

pub(super) fn show(record: &EventRecord) -> Event {
    let event = &record.event;
    Event {
        number: record.number,
        at: record.at_ms.into(),
        kind: event.kind.name().to_owned(),
        severity: event.severity.name().to_owned(),
        object: event.object.to_string(),
        queue: event.queue.clone(),
        text: event.text.clone(),
        data: event.data.clone(),
    }
}

/// The words of each part are separated by commas: kinds, jobs, queues, objects.
fn filter([kinds, jobs, queues, objects]: [Option<String>; 4]) -> Result<EventFilter, Problem> {
    let words = |text: Option<String>| -> Vec<String> {
        let text = text.unwrap_or_default();
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let kinds = words(kinds);
    let is_unknown = |word: &&String| {
        !EventKind::ALL.iter().any(|kind| kind.name() == word.as_str() || kind.family() == word.as_str())
    };
    if let Some(unknown) = kinds.iter().find(is_unknown) {
        let all: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        let all = all.join(", ");
        return Err(Problem::unreadable(format!(
            "the query: \"{unknown}\" is no kind of event; there are {all}"
        )));
    }
    let job = |word: String| {
        let number = word.parse().map(JobId);
        number.map_err(|_| Problem::unreadable(format!("the query: \"{word}\" is not the number of a job")))
    };
    let object = |word: String| word.parse().map_err(|e| Problem::unreadable(format!("the query: {e}")));
    Ok(EventFilter {
        kinds,
        jobs: words(jobs).into_iter().map(job).collect::<Result<_, _>>()?,
        queues: words(queues),
        objects: words(objects).into_iter().map(object).collect::<Result<_, _>>()?,
    })
}

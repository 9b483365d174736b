//! What happened, and who asked for it.

use crate::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Something that happened. In the stream: `id` is its number, `event` its kind, `data` all of this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts from 1, without a gap.
    pub number: u64,
    /// When (the server's clock).
    pub at: Time,
    /// What happened: `job.status`, `agent.lost`, … The part before the dot is its family.
    pub kind: String,
    /// How much it matters: `info`, `warning` or `error`.
    pub severity: String,
    /// To what it happened: `job/1042`, `agent/host1`, `queue/nightly`, `server`.
    pub object: String,
    /// The queue that it concerns.
    pub queue: Option<String>,
    /// For people.
    pub text: String,
    /// For machines; which fields there are depends on the kind.
    #[schema(value_type = Object)]
    pub data: Map<String, Value>,
}

/// A page of events, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// The events. A page may have fewer than asked for, even none, and still not be the last one.
    pub items: Vec<Event>,
    /// Ask again with this as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// Somebody asked for something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Audit {
    /// Counts from 1, without a gap.
    pub number: u64,
    /// When (the server's clock).
    pub at: Time,
    /// The user who asked.
    pub user: String,
    /// The name of the token that was used.
    pub token: String,
    /// What that token may do.
    pub role: String,
    /// The address that it came from.
    pub from: String,
    /// The program that it came by, as it calls itself.
    pub via: String,
    /// What was asked for: `queue.hold`, `job.kill`, …
    pub action: String,
    /// To what it was to be done: `queue/nightly`, `job/1042`, `token/0a1b2c3d`.
    pub object: String,
    /// What was asked for in particular, and what was there before. Never a secret.
    #[schema(value_type = Object)]
    pub detail: Map<String, Value>,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
    /// `done` or `refused`.
    pub result: String,
    /// Why it was refused, if it was.
    pub refusal: Option<String>,
}

/// A page of the audit, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// The entries. A page may have fewer than asked for, even none, and still not be the last one.
    pub items: Vec<Audit>,
    /// Ask again with this as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

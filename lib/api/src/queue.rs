//! Queues and the agents that serve them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Nothing is taken from it while it is held.
    pub held: bool,
    /// So many of its jobs may be with agents at once; no limit of its own if absent.
    #[serde(default)]
    pub slots: Option<u32>,
    /// Among queues that share an agent the higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// The agents that serve it.
    pub agents: Vec<String>,
    /// Jobs that wait in it, the held ones included.
    pub waiting: u64,
    /// Jobs of it that were given to an agent and are not over.
    pub active: u64,
}

/// All queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueList {
    /// By name.
    pub items: Vec<Queue>,
    /// Ask again with this as `cursor` for the next page; absent on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// Creates a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueCreate {
    /// Its name.
    pub name: String,
    /// Hold it from the start.
    #[serde(default)]
    pub held: bool,
    /// The agents that serve it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
}

/// Changes a queue; what is absent stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueChange {
    /// So many of its jobs may be with agents at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// It has no limit of its own; not beside `slots`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_slots: bool,
    /// Among queues that share an agent the higher goes first; 0 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
}

/// Names the agent that is attached to a queue or detached from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Its name.
    pub agent: String,
}

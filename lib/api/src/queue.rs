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

/// Names the agent that is attached to a queue or detached from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// Its name.
    pub agent: String,
}

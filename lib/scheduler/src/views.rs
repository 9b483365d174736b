//! What the engine shows of queues and agents: the record with what is only known live.

use crate::{AgentRecord, QueueRecord};

/// A queue as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueView {
    /// What is stored of it.
    pub record: QueueRecord,
    /// The agents that it may use, by name.
    pub agents: Vec<String>,
    /// Jobs that wait in it, the held ones included.
    pub waiting: u64,
    /// Jobs of it that are dispatched or running.
    pub active: u64,
}

/// An agent as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// What is stored of it.
    pub record: AgentRecord,
    /// The queues that may use it, by name.
    pub queues: Vec<String>,
    /// It has a session now.
    pub connected: bool,
    /// Slots in use: runs dispatched or running.
    pub used: u32,
    /// Why it takes no new runs; empty if it does.
    pub refusing: String,
    /// The latest proof that failed since it last connected.
    pub failed_proof: Option<FailedProof>,
    /// It had no room a moment ago and gets nothing new until then, the server's wall clock.
    pub paused_until_ms: Option<i64>,
}

/// Somebody who did not prove to be the agent; known until the agent connects or the server ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedProof {
    /// When, the server's wall clock.
    pub at_ms: i64,
    /// Where it came from, or where the server dialled the agent.
    pub address: String,
    /// Why, for people.
    pub reason: String,
}

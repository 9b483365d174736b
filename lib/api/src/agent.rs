//! Agents (the server's side of each: a process server with slots).

use crate::Time;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An agent as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Whether a link to it is up.
    pub connected: bool,
    /// Since when the link is up or down; absent if it never was up.
    pub since: Option<Time>,
    /// When it was last heard of.
    pub last_seen_at: Option<Time>,
    /// The host that the server dials; absent if the agent dials in.
    pub host: Option<String>,
    /// The port that the server dials.
    pub port: Option<u16>,
    /// The agent dials the server.
    pub dials_in: bool,
    /// How many runs it may have at once.
    pub slots: u32,
    /// How many it has.
    pub slots_used: u32,
    /// Why it takes no new runs, if it does not.
    pub refusing: Option<String>,
    /// The queues that it serves.
    pub queues: Vec<String>,
    /// It had no room a moment ago and gets nothing new until then.
    pub paused_until: Option<Time>,
    /// Where its link comes from or goes to.
    pub address: Option<String>,
    /// The version of the protocol that both speak on its link; absent while it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
    /// The identity of its data root.
    pub agent_id: Option<String>,
    /// Its program's version.
    pub software: Option<String>,
    /// Its host's name, kernel and machine.
    pub platform: Option<String>,
    /// Its latest link ended because it was stopped on purpose; if not, and it is not connected, it is lost.
    pub stopped: bool,
    /// It gets no new runs; what runs there goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<AgentDrain>,
    /// What its operator has to look at: another host claims to be it, its data root went back in time, a message was changed on its disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// When that was noticed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble_at: Option<Time>,
    /// Somebody did not prove to be this agent since it last connected: a wrong secret, mostly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_proof: Option<AgentFailedProof>,
}

/// The latest try to link up in which an agent's proof failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentFailedProof {
    /// When.
    pub at: Time,
    /// Where it came from, or where the server dialled the agent.
    pub address: String,
    /// Why it failed.
    pub reason: String,
}

/// Since when and why an agent gets no new runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentDrain {
    /// Who asked for it.
    pub by: String,
    /// Why; absent if nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    pub since: Time,
}

/// Asks for no new runs on an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentDrainRequest {
    /// Why, for people; at most 500 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentList {
    /// By name.
    pub items: Vec<Agent>,
    /// Ask again with this as `cursor` for the next page; absent on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// Makes an agent known. Either `host` and `port`, for an agent that the server dials, or `dials_in`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentAdd {
    /// Its name, as in its configuration.
    pub name: String,
    /// The host to dial (a name is looked up anew at every attempt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port to dial; 7412 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The agent dials the server.
    #[serde(default)]
    pub dials_in: bool,
    /// The shared secret as text; either this or `secret_hex`. At least 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The shared secret as the hexadecimal digits of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hex: Option<String>,
    /// The queues to serve at once; `["default"]` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    /// How many runs it may have at once; 100 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
}

/// Changes an agent; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentChange {
    /// How many runs it may have at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// A new shared secret as text; the one before stays valid beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// A new shared secret as the hexadecimal digits of its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_hex: Option<String>,
    /// Only the newest secret stays valid. Links in use are not cut.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retire_old_secret: bool,
}

/// The answer to a ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ping {
    /// The agent.
    pub name: String,
    /// From the server to the agent and back, milliseconds.
    pub round_trip_ms: f64,
}

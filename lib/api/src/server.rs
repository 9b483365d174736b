//! The server's own state, and what an error looks like.

use crate::{Counts, Recovery, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The state of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerStatus {
    /// The node's name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Whether it makes progress.
    pub ready: bool,
    /// Why it does not, if it does not.
    pub reason: Option<String>,
    /// When this process started.
    pub started_at: Time,
    /// The number of its term of office.
    pub epoch: u64,
    /// The identity of its database.
    pub database_id: String,
    /// The number of the last commit.
    pub commit: u64,
    /// Commands and facts that wait for the core.
    pub inbox: u64,
    /// Agents that it knows.
    pub agents: u64,
    /// Agents whose link is up.
    pub agents_connected: u64,
    /// Messages of runs that its database does not know (it went back in time): kept, and not to be overlooked.
    pub strays: u64,
    /// What a restore has left to do, if there is anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// The file store, and the files that were kept of jobs.
    #[serde(default)]
    pub files: FilesStatus,
    /// Jobs by status.
    pub jobs: Counts,
}

/// The file store, and the files that were kept of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FilesStatus {
    /// Where the store is; absent if there is none.
    pub store: Option<String>,
    /// Why it cannot be used at the moment, if it cannot; files stay with their agents meanwhile.
    pub trouble: Option<String>,
    /// Files that agents have and the store has not.
    pub with_agents: u64,
    /// Files in the store.
    pub stored: u64,
    /// Bytes of those.
    pub stored_bytes: u64,
    /// Files that neither their agents nor the store can give.
    pub lost: u64,
    /// Files that retention removed from the store.
    pub removed: u64,
}

/// Whether the server is alive or ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok` or `not ready`.
    pub status: String,
    /// Why not, if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What does not hinder it, and somebody should look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// An error (RFC 9457), sent as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The kind of the problem, stable: `urn:lastword:problem:no-such-job`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was tried, on what, what went wrong and what can be done.
    pub detail: String,
}

//! The ledger of a job: what the server and the agent each have on record, side by side.

use crate::{JobStatus, Time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The ledger of every run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    /// The job's number.
    pub id: u64,
    /// Where it stands.
    pub status: JobStatus,
    /// One ledger per attempt, first to last.
    pub runs: Vec<RunProof>,
}

/// The ledger of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunProof {
    /// Its identifier, a UUIDv7.
    pub run_id: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The agent it was placed on.
    pub agent: String,
    /// Where it stands.
    pub status: JobStatus,
    /// Who saw its end.
    pub witness: Option<String>,
    /// Where the agent keeps it: `live`, `settled`, `quarantined` or `no record`; absent if the agent could not be asked.
    pub agent_place: Option<String>,
    /// Why the agent's view is missing, if it is.
    pub agent_missing: Option<String>,
    /// Whether every message that both have is the same, byte for byte; absent where nothing can be compared.
    pub agrees: Option<bool>,
    /// Step by step: placed, accepted, started, ended, stored, received, committed, acknowledged, and whatever else was noted.
    pub steps: Vec<Step>,
}

/// One step of a run's life as each side has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Its name.
    pub step: String,
    /// The number of the message in the run's log, where it is one.
    pub seq: Option<u64>,
    /// What the server has on record.
    pub server: Option<View>,
    /// What the agent has on disk.
    pub agent: Option<View>,
}

/// One side's view of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct View {
    /// When, by the clock of whoever wrote it down.
    pub at: Option<Time>,
    /// What, for people.
    pub what: String,
}

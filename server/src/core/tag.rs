//! The version of what people change: another one whenever somebody, or an outcome, made it something else. Figures that move by
//! themselves (how many jobs wait, when an agent was last heard of) are no part of it.

use scheduler::{AgentRecord, AgentView, JobRecord, QueueView};
use sha2::{Digest, Sha256};
use std::fmt::Debug;

/// Of a queue: its settings and its agents.
pub fn of_queue(view: &QueueView) -> String {
    digest(&(&view.record, &view.agents))
}

/// Of an agent: its settings and its queues, not its links.
pub fn of_agent(view: &AgentView) -> String {
    let settings = AgentRecord {
        boot_id: None,
        incarnation: None,
        software: String::new(),
        platform: String::new(),
        connected_at_ms: None,
        disconnected_at_ms: None,
        stopped: false,
        trouble: None,
        ..view.record.clone()
    };
    digest(&(settings, &view.queues))
}

/// Of a job: everything.
pub fn of_job(record: &JobRecord) -> String {
    digest(record)
}

/// Whatever a record gets in later versions is part of its text.
fn digest(what: &impl Debug) -> String {
    let bytes = Sha256::digest(format!("{what:?}"));
    bytes.iter().take(TAG_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// So much of the digest tells versions apart.
const TAG_BYTES: usize = 8;

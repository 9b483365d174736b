//! The bodies of requests.

use job::JobId;
use protocol::message::RunSpec;
use scheduler::{JobSpec, SpecColumns};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Every body that the interface takes; what was read is the same when it is written and read again.
pub(crate) fn api_bodies(bytes: &[u8]) {
    order(bytes);
    same_again::<api::JobSubmit>(bytes);
    same_again::<api::BatchSubmit>(bytes);
    same_again::<api::Kill>(bytes);
    same_again::<api::JobRestart>(bytes);
    same_again::<api::JobAbandon>(bytes);
    same_again::<api::QueueCreate>(bytes);
    same_again::<api::QueueChange>(bytes);
    same_again::<api::Attachment>(bytes);
    same_again::<api::AgentAdd>(bytes);
    same_again::<api::AgentChange>(bytes);
    same_again::<api::AgentDrainRequest>(bytes);
    same_again::<api::TokenNew>(bytes);
    same_again::<api::UserAdd>(bytes);
    same_again::<api::BackupMake>(bytes);
    same_again::<api::SupportBundleMake>(bytes);
}

fn same_again<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let Ok(body) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_value(&body).expect("what was read can be written");
    let again: T = serde_json::from_value(written.clone())
        .unwrap_or_else(|e| panic!("what was written cannot be read again: {e} in {written}"));
    assert_eq!(serde_json::to_value(&again).expect("twice"), written, "not the same when it is read again");
}

/// What the server makes of the order for a job: refused in words, or kept in the database and sent to an agent as it was meant.
fn order(bytes: &[u8]) {
    let spec = match central_server::http::read_order(bytes, "anna") {
        Ok(spec) => spec,
        Err(refusal) => return assert!(!refusal.is_empty(), "a refusal without a word"),
    };
    if spec.check().is_err() {
        return;
    }
    let columns = SpecColumns {
        pinned: spec.agent.clone(),
        priority: spec.priority,
        idempotency_key: spec.idempotency_key.clone(),
        held: spec.held,
        settings: spec.encode_settings(),
    };
    assert_eq!(
        JobSpec::decode(&spec.encode(), columns).as_ref(),
        Ok(&spec),
        "the database keeps another job"
    );
    let run: RunSpec = spec.run_spec(JobId(1), 1, "host1", "", 0);
    assert_eq!(run.check(), Ok(()), "an agent would refuse what the server took");
}

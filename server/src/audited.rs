//! Operations with their entries in the audit, whoever asks for them: one when it begins, with who, from where and why, and one when it is over, with
//! what came of it. One that is refused because another goes on has one.

use crate::core::{Handle, Order};
use crate::operation::{Begun, Key, Kind, NotBegun, Operation, Operations, Outcome, Tell};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Whoever asked waits no longer than this for the entry of the beginning.
const NOTE_MAX: Duration = Duration::from_secs(5);

/// Begins `work` on behalf of that order; `asked` is what the audit says of it.
pub(crate) async fn begin(
    operations: &Operations,
    handle: &Handle,
    order: &Arc<Order>,
    (kind, asked): (Kind, Value),
    work: impl FnOnce(Tell<'_>) -> anyhow::Result<Outcome> + Send + 'static,
) -> Result<Begun, NotBegun> {
    let by = order.caller.name.clone();
    let once = order.once.as_ref();
    let key = once.map(|once| Key { user: by.clone(), key: once.key.clone(), digest: once.digest });
    let audit = Audit { handle: handle.clone(), order: Arc::clone(order), kind };
    let (noted, is_noted) = oneshot::channel::<()>();
    let over = {
        let audit = audit.clone();
        move |operation: Operation| async move {
            let _ = is_noted.await; // the beginning first
            audit.note_end(&operation).await;
        }
    };
    let begun = operations.begin((kind, &by, key), work, over);
    match &begun {
        Ok(begun) if begun.repeated => {}
        Ok(begun) => {
            let id = begun.state.borrow().id.clone();
            // On its own, so that nobody who hangs up now keeps it from the audit.
            let note = tokio::spawn(async move {
                audit.note("begun", &id, asked, None).await;
                let _ = noted.send(()); // it was over already, if nobody hears
            });
            let _ = tokio::time::timeout(NOTE_MAX, note).await; // while the database cannot be written it is noted later
        }
        Err(NotBegun::KeyReused(_)) => {}
        Err(busy @ NotBegun::Busy { .. }) => audit.note("begun", "", asked, Some(busy.to_string())).await,
    }
    begun
}

/// Writes what becomes of an operation into the audit, on behalf of whoever began it.
#[derive(Clone)]
struct Audit {
    handle: Handle,
    order: Arc<Order>,
    kind: Kind,
}

impl Audit {
    async fn note_end(&self, operation: &Operation) {
        let (detail, refusal) = match &operation.outcome {
            Some(Outcome::Made(made)) => {
                let file = made.path.display().to_string();
                (json!({"file": file, "bytes": made.manifest.bytes, "commit": made.manifest.commit}), None)
            }
            Some(Outcome::Checked(checked)) => (json!({"contradictions": checked.findings.len()}), None),
            Some(Outcome::Failed(why)) => (json!({}), Some(why.clone())),
            None => return,
        };
        if let Some(why) = &refusal {
            tracing::error!("the {} of {} failed: {why}", self.kind.name(), operation.by);
        }
        self.note("over", &operation.id, detail, refusal).await;
    }

    /// What cannot be noted now is traced: the operation itself may be what is needed while the database cannot be written.
    async fn note(&self, stage: &str, id: &str, detail: Value, refusal: Option<String>) {
        let action = format!("server.{}", self.kind.name());
        let mut all = Map::new();
        all.insert("stage".to_owned(), stage.into());
        if !id.is_empty() {
            all.insert("operation".to_owned(), id.into());
        }
        all.extend(detail.as_object().cloned().into_iter().flatten().filter(|(_, value)| !value.is_null()));
        let note = self.handle.note(&action, "server", all, refusal);
        if let Err(e) = Arc::clone(&self.order).during(note).await {
            tracing::warn!("{action} of {} could not be noted in the audit: {e}", self.order.caller.name);
        }
    }
}

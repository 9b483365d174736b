//! Forgets what is too old or too much: events, audit entries, answers under idempotency keys. A little at a time, so that no commit waits
//! long for it.

use crate::db::{Database, Journal, Keep};
use std::sync::Arc;
use std::time::Duration;

/// Between two sweeps.
const PAUSE: Duration = Duration::from_secs(60);
/// Between two pieces of one sweep: commits come first.
const PIECE_PAUSE: Duration = Duration::from_millis(50);
/// So long a request with an idempotency key may come again, milliseconds.
const ANSWERS_AGE_MS: i64 = 24 * 3_600_000;

/// What is kept of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Not older, milliseconds.
    pub(crate) age_ms: i64,
    /// Not more.
    pub(crate) count_max: u64,
}

/// What is kept of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) events: Rule,
    pub(crate) audit: Rule,
}

/// Sweeps until the server ends.
pub(crate) async fn run(database: Arc<dyn Database>, rules: Rules) {
    let answers = Rule { age_ms: ANSWERS_AGE_MS, count_max: u64::MAX };
    loop {
        let now_ms = os::clock::aging_ms();
        for (journal, rule) in
            [(Journal::Events, rules.events), (Journal::Audit, rules.audit), (Journal::Answers, answers)]
        {
            let keep = Keep { since_ms: now_ms.saturating_sub(rule.age_ms), count_max: rule.count_max };
            sweep(&database, journal, keep).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn sweep(database: &Arc<dyn Database>, journal: Journal, keep: Keep) {
    loop {
        let database = Arc::clone(database);
        match tokio::task::spawn_blocking(move || database.forget(journal, keep)).await {
            Ok(Ok(true)) => tokio::time::sleep(PIECE_PAUSE).await,
            Ok(Ok(false)) | Err(_) => return,
            Ok(Err(e)) => {
                tracing::warn!("what is too old of {journal:?} is not forgotten yet: {e}");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{AuditFilter, AuditRecord, Entry, Sqlite, Walk};

    #[tokio::test]
    async fn a_sweep_goes_on_until_only_what_is_to_be_kept_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let database: Arc<dyn Database> = Arc::new(Sqlite::open(&dir.path().join("server.db")).unwrap());
        let entry = |number| {
            Entry::Audit(AuditRecord {
                number,
                at_ms: 1,
                user: String::new(),
                token: String::new(),
                role: String::new(),
                from: String::new(),
                via: String::new(),
                action: String::new(),
                object: String::new(),
                detail: serde_json::Map::new(),
                reason: None,
                refusal: None,
            })
        };
        let entries: Vec<Entry> = (1..=5_000).map(entry).collect();
        database.commit_with(&[], &entries).unwrap();
        sweep(&database, Journal::Audit, Keep { since_ms: 0, count_max: 100 }).await;
        let left = database.audit(&AuditFilter::default(), Walk::After(0), 9_999).unwrap();
        assert_eq!((left.items.len(), left.items[0].number), (100, 4_901));
    }
}

//! Jobs that are over long enough, or too many, are deleted with their runs and messages. Their events go by the rule for events.
//!
//! A few at a time, through the core like every other change, so that the counts stay right and no commit of what agents tell waits for more
//! than one small piece. Never deleted: what is not over, and what an agent may still have something to tell of. An agent has told
//! everything when its present connection has lasted for a while, for it begins with all that was not acknowledged; an agent that is
//! away keeps its jobs here until it comes back or is removed. After a restore nothing is deleted before every agent has told.

use crate::core::{CoreError, Handle};
use crate::db::{Database, Expired};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks when there is nothing to delete.
const LOOK: Duration = Duration::from_secs(60);
/// Jobs that are deleted in one commit.
const PIECE_JOBS_MAX: usize = 50;
/// The least pause between two pieces.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The pause is so many times as long as the piece took.
const PAUSE_FACTOR: u32 = 10;
/// A connection that has lasted so long has brought what was not acknowledged before, and acknowledgements have reached the agent.
const TOLD_MS_MIN: i64 = 60_000;

/// What is kept of the jobs that are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Jobs {
    /// So long after their end; for ever if zero.
    pub(crate) age: Duration,
    /// At most so many; any number if zero.
    pub(crate) count_max: u64,
}

impl Jobs {
    /// Works for ever, if there is anything to do by these rules.
    pub(crate) async fn run(self, handle: Handle, database: Arc<dyn Database>) {
        if self == Jobs::default() {
            return;
        }
        loop {
            let began = Instant::now();
            let pause = match self.piece(&handle, &database, os::clock::aging_ms()).await {
                Ok(0) => LOOK,
                Ok(_) => (began.elapsed() * PAUSE_FACTOR).max(PAUSE_MIN),
                Err(CoreError::Stopping) => return,
                Err(e) => {
                    tracing::warn!("old jobs are not deleted yet: {e}");
                    LOOK
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Deletes some; how many.
    pub(crate) async fn piece(
        self,
        handle: &Handle,
        database: &Arc<dyn Database>,
        now_ms: i64,
    ) -> Result<u64, CoreError> {
        let before = over(handle);
        let Some(expired) = self.expired(before, now_ms) else { return Ok(0) };
        if handle.recovery().await?.is_some() {
            return Ok(0);
        }
        let told_before_ms = now_ms.saturating_sub(TOLD_MS_MIN);
        let has_told = |at_ms: Option<i64>| at_ms.is_some_and(|at_ms| at_ms < told_before_ms);
        let agents = handle.agents().await?.into_iter();
        let agents = agents.filter(|agent| agent.connected && has_told(agent.record.connected_at_ms));
        let expired =
            Expired { told_before_ms, agents: agents.map(|agent| agent.record.name).collect(), ..expired };
        let database = Arc::clone(database);
        let found = tokio::task::spawn_blocking(move || database.expired(&expired));
        let found = found.await.map_err(|_| CoreError::Stopping)??;
        let count = found.len() as u64;
        if count > 0 {
            handle.forget(found).await?;
            metrics::counter!("lastword_jobs_deleted_total").increment(count);
        }
        Ok(count)
    }

    /// What to look for now, with so many jobs that are over.
    fn expired(self, over: u64, now_ms: i64) -> Option<Expired> {
        let too_many = over.saturating_sub(self.count_max);
        if self.count_max > 0 && too_many > 0 {
            let limit = usize::try_from(too_many).unwrap_or(usize::MAX).min(PIECE_JOBS_MAX);
            return Some(Expired { ended_before_ms: i64::MAX, limit, ..Expired::default() });
        }
        let age_ms = i64::try_from(self.age.as_millis()).unwrap_or(i64::MAX);
        let ended_before_ms = now_ms.saturating_sub(age_ms);
        (age_ms > 0).then(|| Expired { ended_before_ms, limit: PIECE_JOBS_MAX, ..Expired::default() })
    }
}

/// How many jobs are over.
fn over(handle: &Handle) -> u64 {
    handle.counts().iter().filter(|(status, _)| status.is_final()).map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_go_first_then_the_old_and_nothing_without_a_rule() {
        let hour = Duration::from_secs(3_600);
        assert_eq!(Jobs::default().expired(1_000_000, 5), None);
        let by_count = Jobs { age: hour, count_max: 100 };
        let few = by_count.expired(103, 0).unwrap();
        assert_eq!((few.limit, few.ended_before_ms), (3, i64::MAX));
        let old = by_count.expired(100, 3_600_007).unwrap();
        assert_eq!((old.limit, old.ended_before_ms), (PIECE_JOBS_MAX, 7));
        assert_eq!(Jobs { age: Duration::ZERO, count_max: 100 }.expired(100, 5), None);
    }
}

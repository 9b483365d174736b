//! Jobs that are over long enough are deleted, with their runs and messages.
//!
//! Some at a time, through the core like every other change, so that counts stay right and a commit of what agents tell never waits for
//! more than one small piece. Never deleted: what is not over, and what an agent may not know to be acknowledged (it was not
//! connected for a while after its last message).

use crate::core::{CoreError, Handle};
use crate::db::{Database, DbError, Expired};
use job::JobId;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks when there is nothing to delete.
const LOOK: Duration = Duration::from_secs(60);
/// Jobs that are deleted in one commit.
const JOBS_PER_PIECE_MAX: usize = 100;
/// The least pause between two pieces.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Deleting takes at most one in so many parts of the time.
const SHARE: u32 = 10;

/// How long jobs that are over are kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retention {
    /// So long after their end; for ever if zero.
    pub(crate) age: Duration,
    /// At most so many; any number if zero.
    pub(crate) jobs_max: u64,
}

impl Retention {
    /// Works for ever, if there is anything to do by these rules.
    pub(crate) async fn run(self, handle: Handle, database: Arc<dyn Database>) {
        if self.age.is_zero() && self.jobs_max == 0 {
            return;
        }
        loop {
            let began = Instant::now();
            let pause = match self.piece(&handle, &database).await {
                Ok(0) => LOOK,
                Ok(deleted) => {
                    metrics::counter!("lastword_jobs_deleted_total").increment(deleted as u64);
                    (began.elapsed() * SHARE).max(PAUSE_MIN)
                }
                Err(CoreError::Stopping) => return,
                Err(e) => {
                    tracing::warn!("old jobs are not deleted, tried again: {e}");
                    LOOK
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Deletes some; how many.
    async fn piece(self, handle: &Handle, database: &Arc<dyn Database>) -> Result<usize, CoreError> {
        let Some(expired) = self.expired(handle, os::clock::wall_ms()) else { return Ok(0) };
        let database = Arc::clone(database);
        let found =
            tokio::task::spawn_blocking(move || -> Result<Vec<JobId>, DbError> { database.expired(expired) });
        let found = found.await.map_err(|_| CoreError::Stopping)??;
        let count = found.len();
        if count > 0 {
            handle.forget(found).await?;
        }
        Ok(count)
    }

    /// What to look for now.
    fn expired(self, handle: &Handle, now_ms: i64) -> Option<Expired> {
        let over: u64 = handle.counts().iter().filter(|(status, _)| status.is_final()).map(|(_, n)| n).sum();
        let too_many = over.saturating_sub(self.jobs_max);
        if self.jobs_max > 0 && too_many > 0 {
            let limit = usize::try_from(too_many).unwrap_or(usize::MAX).min(JOBS_PER_PIECE_MAX);
            return Some(Expired { ended_before_ms: i64::MAX, now_ms, limit });
        }
        let age_ms = i64::try_from(self.age.as_millis()).unwrap_or(i64::MAX);
        let ended_before_ms = now_ms.saturating_sub(age_ms);
        (age_ms > 0).then_some(Expired { ended_before_ms, now_ms, limit: JOBS_PER_PIECE_MAX })
    }
}

//! What goes from the store: files whose time is over, objects that nothing names any more. A little at a time, and nothing while the store cannot
//! be used.
//!
//! The rules are `[retention] files_age` and `files_bytes_max`. A file whose job is deleted goes with it. First the record says that a file is
//! removed, then its object goes: a reader in between is told the truth.

use super::{Context, StoreError};
use crate::core::CoreError;
use crate::db::{DbError, FileChange, FileRecord, Place};
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks when there is nothing to do.
const LOOK: Duration = Duration::from_secs(5);
/// Between two pieces of what is to go: commits come first.
const PIECE_PAUSE: Duration = Duration::from_millis(50);
/// Between two applications of the rules.
const RULES_EVERY: Duration = Duration::from_secs(60);
/// Between two looks through the whole store.
const LOOK_THROUGH_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// After one that did not come to its end.
const LOOK_THROUGH_PAUSE: Duration = Duration::from_secs(600);
/// Files that are removed in one commit, objects that are deleted in one go.
const PIECE_MAX: usize = 50;

/// What stays in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// So long; for ever if zero.
    pub(crate) age: Duration,
    /// So much; without a limit if zero.
    pub(crate) bytes_max: u64,
    /// An object that nothing names stays so long.
    pub(crate) orphans_age: Duration,
}

/// Why a step was not made.
pub(super) enum Failure {
    Store(StoreError),
    Database(DbError),
    Core(CoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Failure {
        Failure::Database(error)
    }
}

impl From<CoreError> for Failure {
    fn from(error: CoreError) -> Failure {
        Failure::Core(error)
    }
}

/// Works until the server stops.
pub(super) async fn run(context: Context, rules: Rules) {
    let (mut rules_at, mut look_through_at) = (Instant::now(), Instant::now());
    loop {
        let mut more = false;
        let step = async {
            if Instant::now() >= rules_at {
                more |= context.apply(rules, os::clock::aging_ms()).await?;
                context.count().await?;
                rules_at = Instant::now() + if more { Duration::ZERO } else { RULES_EVERY };
            }
            more |= context.delete_some().await?;
            if Instant::now() >= look_through_at {
                look_through_at = Instant::now() + LOOK_THROUGH_PAUSE;
                context.look_through(rules.orphans_age).await?;
                look_through_at = Instant::now() + LOOK_THROUGH_EVERY;
            }
            Ok(())
        };
        match step.await {
            Ok(()) => {}
            Err(Failure::Core(CoreError::Stopping)) => return,
            Err(Failure::Store(error)) => context.on_trouble(&error).await,
            Err(Failure::Database(error)) => tracing::warn!("the file store is not tidied now: {error}"),
            Err(Failure::Core(error)) => tracing::warn!("the file store is not tidied now: {error}"),
        }
        tokio::time::sleep(if more { PIECE_PAUSE } else { LOOK }).await;
    }
}

impl Context {
    /// Removes some of what the rules do not let stay; whether there may be more.
    async fn apply(&self, rules: Rules, now_ms: i64) -> Result<bool, Failure> {
        if rules.age.is_zero() && rules.bytes_max == 0 {
            return Ok(false);
        }
        let counts = self.ask(|db| db.file_counts()).await?;
        let stored = counts[Place::Stored as usize].bytes;
        let oldest = self.ask(|db| db.files_oldest(PIECE_MAX)).await?;
        let going = going(rules, now_ms, stored, &oldest);
        let count = going.len();
        if count > 0 {
            self.handle.files(going, Vec::new()).await?;
            metrics::counter!("lastword_files_removed_total").increment(count as u64);
            tracing::info!(files = count, "stored files were removed by their age or for want of room");
        }
        Ok(count == PIECE_MAX)
    }

    /// Deletes some objects that nothing names any more; whether there are more.
    async fn delete_some(&self) -> Result<bool, Failure> {
        let keys = self.ask(|db| db.file_objects_gone(PIECE_MAX)).await?;
        if keys.is_empty() {
            return Ok(false);
        }
        let store = self.ready().await?;
        let mut deleted = Vec::new();
        let mut failed = None;
        for key in &keys {
            match store.delete(key).await {
                Ok(()) => deleted.push(FileChange::ObjectDeleted(key.clone())),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        self.handle.files(deleted, Vec::new()).await?;
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(keys.len() == PIECE_MAX),
        }
    }

    /// For the figures.
    async fn count(&self) -> Result<(), Failure> {
        let is_up = if self.store.trouble().is_none() { 1.0 } else { 0.0 };
        metrics::gauge!("lastword_file_store_up").set(is_up);
        let counts = self.ask(|db| db.file_counts()).await?;
        for place in Place::ALL {
            let count = counts[place as usize];
            metrics::gauge!("lastword_files", "place" => place.name()).set(count.files as f64);
            metrics::gauge!("lastword_files_bytes", "place" => place.name()).set(count.bytes as f64);
        }
        Ok(())
    }
}

/// Which of the oldest may not stay, with `stored` bytes in the store.
fn going(rules: Rules, now_ms: i64, stored: u64, oldest: &[FileRecord]) -> Vec<FileChange> {
    let age_ms = i64::try_from(rules.age.as_millis()).unwrap_or(i64::MAX);
    let mut left = stored;
    let mut going = Vec::new();
    for FileRecord { file, at_ms, .. } in oldest {
        let reason = if age_ms > 0 && now_ms.saturating_sub(*at_ms) > age_ms {
            "files_age"
        } else if rules.bytes_max > 0 && left > rules.bytes_max {
            "files_bytes_max"
        } else {
            break; // the others are younger
        };
        left = left.saturating_sub(file.bytes);
        let reason = format!("removed from the file store by [retention] {reason}");
        going.push(FileChange::Removed { run: file.run, name: file.name.clone(), reason, at_ms: now_ms });
    }
    going
}

#[cfg(test)]
mod tests {
    use super::*;
    use job::{JobId, RunId};
    use scheduler::KeptFile;

    fn file(n: u64, bytes: u64) -> FileRecord {
        let file = KeptFile {
            run: RunId::new(n, u128::from(n)),
            name: n.to_string(),
            job: JobId(n),
            agent: "a".into(),
            bytes,
            sha256: Vec::new(),
            kept_at_ms: None,
        };
        let at_ms = i64::try_from(n).unwrap() * 1_000;
        FileRecord { file, place: Place::Stored, at_ms, key: None, reason: None, tries: 0, queue: None }
    }

    fn told(rules: Rules, stored: u64) -> Vec<String> {
        let oldest: Vec<_> = (1..=5).map(|n| file(n, 10)).collect();
        let text = |change| {
            let FileChange::Removed { name, reason, .. } = change else { panic!("{change:?}") };
            format!("{name} {}", reason.rsplit(' ').next().unwrap())
        };
        going(rules, 6_000, stored, &oldest).into_iter().map(text).collect()
    }

    #[test]
    fn the_oldest_go_by_age_and_by_room_and_without_a_rule_nothing_does() {
        assert_eq!(told(Rules::default(), u64::MAX), [""; 0]);
        let by_age = Rules { age: Duration::from_millis(3_500), ..Rules::default() };
        assert_eq!(told(by_age, 50), ["1 files_age", "2 files_age"]);
        let by_room = Rules { bytes_max: 35, ..Rules::default() };
        assert_eq!(told(by_room, 50), ["1 files_bytes_max", "2 files_bytes_max"]);
        assert_eq!(told(Rules { bytes_max: 50, ..Rules::default() }, 50), [""; 0]);
        let both = Rules { bytes_max: 25, ..by_age };
        assert_eq!(told(both, 50), ["1 files_age", "2 files_age", "3 files_bytes_max"]);
    }
}

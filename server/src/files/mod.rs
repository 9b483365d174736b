//! The file store: files that agents kept of jobs, fetched from there and stored in a folder or a bucket.
//!
//! ```text
//! agent ──stream──▶ fetch (size, SHA-256) ──▶ store (whole or not at all, synced) ──▶ "stored" committed ──▶ word to the agent
//!                       ▲ what the record has as awaited                                  http ── reads ─▶ store, else agent
//! ```
//!
//! The record is the queue ([`crate::db::FileChange`]): what is not stored is found there after every start. One file after the other, a few at a
//! time, in the lane of output, so that it delays no status. Nothing else depends on it: a store that is full or away is told and tried again.
//!
//! What a kill -9 or a power cut can leave, and what follows:
//!
//! | in the store                                     | meaning                              | recovery                                                 |
//! |--------------------------------------------------|--------------------------------------|----------------------------------------------------------|
//! | a half-written object (`KEY#1`, parts of an upload) | died amid one file                 | no reader ever sees it; the file is fetched again; in a folder the rest is removed by the next look, in a bucket by its own rule for such parts |
//! | an object, and the record says "awaited" or "lost" | died before the commit; brought back | its content is compared: it is taken, or written over    |
//! | an object that nothing in the record names       | its job was deleted meanwhile, or the record is that of a backup | deleted when it is old enough, never while a restore is going on |
//! | no object, and the record says "stored"          | the record is that of a backup, or somebody was at the store | fetched again, if its agent has it; else lost, and told |
//! | another server's mark, or no mark where ours was | a wrong folder, or one that is not mounted | nothing is written, read or deleted before that is mended |

#[cfg(feature = "s3")]
mod credentials;
mod fetch;
mod keeper;
mod key;
mod look;
mod place;
mod status;
mod store;
mod tidy;
mod upload;
mod words;

#[cfg(test)]
#[cfg(feature = "s3")]
pub(crate) mod fake_s3;
#[cfg(test)]
mod tests;

pub(crate) use place::Place;
pub use status::Files;
pub(crate) use store::Store;
pub use store::StoreError;
pub(crate) use tidy::Rules;

use crate::agents::Directory;
use crate::core::Handle;
use crate::db::{Database, DbError};
use std::sync::Arc;
use std::time::Duration;

/// What those who work for the store have in common.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) handle: Handle,
    pub(crate) database: Arc<dyn Database>,
    pub(crate) agents: Directory,
    pub(crate) store: Arc<Store>,
}

impl Context {
    /// Asks the record on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        f: impl FnOnce(&dyn Database) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let database = Arc::clone(&self.database);
        let asked = tokio::task::spawn_blocking(move || f(&*database)).await;
        asked.map_err(|_| DbError::Retry("the server stops".to_owned()))?
    }
}

/// Starts the work, for as long as the server runs.
pub(crate) fn spawn(context: Context, rules: Rules) {
    tokio::spawn(keeper::run(context.clone()));
    tokio::spawn(words::run(context.clone()));
    tokio::spawn(tidy::run(context, rules));
}

/// Pauses that grow from one trouble to the next.
#[derive(Clone, Copy, Debug)]
struct Pause {
    next: Duration,
    min: Duration,
    max: Duration,
}

impl Pause {
    fn new(min: Duration, max: Duration) -> Pause {
        Pause { next: min, min, max }
    }

    /// The pause to be made now.
    fn grow(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.max);
        pause
    }

    fn reset(&mut self) {
        self.next = self.min;
    }
}

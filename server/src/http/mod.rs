//! The REST interface: checks who asks, translates between JSON and the core, reads the record. Decides nothing itself.
//!
//! | room         | what for                                                              |
//! |--------------|-----------------------------------------------------------------------|
//! | `serve.rs`   | connections with their limits; the end                                |
//! | `guard.rs`   | tokens and roles, the limit on time, the count of requests            |
//! | `manners.rs` | orders, conditions, versions: what HTTP says of changes                |
//! | `extract.rs` | bodies, queries and paths, with errors that say where                 |
//! | `problem.rs` | every refusal as RFC 9457                                             |
//! | `show.rs`    | records as the interface shows them                                   |
//! | `describe.rs` | what the OpenAPI description says of every address alike             |
//! | the others   | the handlers                                                          |
//!
//! Nothing here is acknowledged before the core committed it; a connection that breaks leaves nothing half done.

mod access;
mod agents;
mod audit;
mod deed;
mod describe;
mod events;
mod extract;
mod files;
mod guard;
mod jobs;
mod lists;
mod manners;
mod operate;
mod output;
mod page;
mod problem;
mod proof;
mod queues;
mod routes;
mod serve;
mod server;
mod show;
mod support;
#[cfg(test)]
mod tests;

use crate::agents::Directory;
use crate::auth::Tokens;
use crate::backup::Backups;
use crate::bundle::Place;
use crate::core::{CoreError, Handle};
use crate::db::{Database, DbError};
use crate::files::Files;
use crate::operation::Operations;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

pub use jobs::read_order;
pub use serve::{Limits, serve};

/// What the interface needs of the rest of the server; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The node's name.
    pub name: String,
    /// The core.
    pub handle: Handle,
    /// The record, for reading.
    pub db: Arc<dyn Database>,
    /// The agents.
    pub agents: Directory,
    /// Makes backups.
    pub backups: Arc<Backups>,
    /// What takes longer than a request.
    pub operations: Operations,
    /// Where kept files are stored.
    pub files: Files,
    /// Who may ask.
    pub tokens: Tokens,
    /// Where the server lives, for its support bundle.
    pub place: Arc<Place>,
}

/// What every handler can reach.
#[derive(Clone)]
struct Http {
    app: AppState,
    metrics: Option<metrics_exporter_prometheus::PrometheusHandle>,
    stopping: watch::Receiver<bool>,
    /// Places for those who follow events: they stay, and others must find room.
    followers: Arc<Semaphore>,
    /// One support bundle at a time: each takes memory.
    bundles: Arc<Semaphore>,
}

/// So long has the core for a question before it counts as stuck.
const CORE_MAX: Duration = Duration::from_secs(5);

impl Http {
    /// Asks the core. It does not answer while the database cannot be written, and nobody waits for that.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, CoreError>>,
    ) -> Result<T, problem::Problem> {
        let handle = &self.app.handle;
        let answered = match handle.has_database_trouble() {
            true => None,
            false => tokio::time::timeout(CORE_MAX, question).await.ok(),
        };
        answered.map_or_else(|| Err(problem::Problem::stuck(&handle.health().problems)), |answer| Ok(answer?))
    }

    /// Reads the record on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&dyn Database) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, problem::Problem> {
        let db = self.app.db.clone();
        match tokio::task::spawn_blocking(move || f(&*db)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(problem::Problem::stopping()),
        }
    }
}

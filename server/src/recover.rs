//! The server's part in a recovery after a restore: looks at the runs that only their agents know, asks each agent what such a run was to run,
//! and has the core take it over. An agent that has sent everything, and of which no stray is left to look at, has told.
//!
//! Killed at any point, the next start begins anew: what was taken over is no stray any more, and the rest is looked at again.

use crate::agents::{Directory, QueryError};
use crate::core::{CoreError, Handle};
use crate::db::Database;
use job::RunId;
use prost::Message;
use protocol::message::{AnswerBody, LedgerQuery, QueryBody, RunSpec};
use scheduler::Rejection;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// For an agent to say what a run was to run.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Strays that are read at once.
const STRAYS_MAX: usize = 100_000;

/// Works until the recovery is over, if there is one.
pub(crate) async fn run(handle: Handle, agents: Directory, database: Arc<dyn Database>) {
    let mut recoverer = Recoverer { handle, agents, database, settled: HashSet::new() };
    loop {
        match recoverer.step().await {
            Ok(true) => {}
            Ok(false) | Err(CoreError::Stopping) => return,
            Err(e) => tracing::warn!("the recovery after the restore is tried again: {e}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Recoverer {
    handle: Handle,
    agents: Directory,
    database: Arc<dyn Database>,
    /// Strays that stay what they are.
    settled: HashSet<RunId>,
}

impl Recoverer {
    /// `false`: it is over.
    async fn step(&mut self) -> Result<bool, CoreError> {
        let Some(view) = self.handle.recovery().await? else { return Ok(false) };
        // After the question who has sent everything: so what they sent is among the strays by now.
        let database = Arc::clone(&self.database);
        let strays = tokio::task::spawn_blocking(move || database.stray_runs(STRAYS_MAX));
        let strays = strays.await.map_err(|_| CoreError::Stopping)??;
        let mut unclear: BTreeSet<String> = BTreeSet::new();
        for (run, agent) in strays {
            if !self.settled.contains(&run) && !self.look_at(run, &agent).await? {
                unclear.insert(agent);
            }
        }
        for agent in view.caught_up.iter().filter(|agent| !unclear.contains(*agent)) {
            tracing::info!(%agent, "the agent has told what it ran since the backup");
            self.handle.told(agent).await?;
        }
        Ok(true)
    }

    /// Takes a run over if it fits. `false`: its agent could not be asked, later again.
    async fn look_at(&mut self, run: RunId, agent: &str) -> Result<bool, CoreError> {
        let question = self.agents.query(agent, run, QueryBody::Ledger(LedgerQuery {}));
        let answer = match tokio::time::timeout(ANSWER_MAX, question).await {
            Ok(Ok(AnswerBody::Ledger(ledger))) => {
                ledger.spec.ok_or_else(|| "it has no record of it".to_owned())
            }
            Ok(Ok(_)) => Err("its answer makes no sense".to_owned()),
            Ok(Err(QueryError::Failed { reason, .. })) => Err(reason),
            Ok(Err(_)) | Err(_) => return Ok(false),
        };
        let spec = answer.and_then(|bytes| RunSpec::decode(&bytes[..]).map_err(|e| e.to_string()));
        let taken = match spec {
            Ok(spec) => match self.handle.adopt(agent, run, spec).await {
                Err(CoreError::Rejected(rejection @ Rejection::NotAdopted(_))) => Err(rejection.to_string()),
                Err(error) => return Err(error),
                Ok(()) => Ok(()),
            },
            Err(reason) => Err(format!("agent \"{agent}\" cannot say what run {run} was to run: {reason}")),
        };
        match taken {
            Ok(()) => tracing::info!(%agent, %run, "a run of which the backup knew nothing is taken over"),
            Err(reason) => {
                tracing::warn!("{reason}");
                self.settled.insert(run);
            }
        }
        Ok(true)
    }
}

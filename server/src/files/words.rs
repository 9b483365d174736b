//! Tells agents that the server has all files of a run, so that their retention need not spare them any more. An agent that is away, or that has kept
//! more files meanwhile, is told again later. Nobody waits for it.

use super::Context;
use crate::agents::QueryError;
use crate::core::CoreError;
use crate::db::{FileChange, FileWord};
use protocol::message::{AnswerBody, FilesStored, QueryBody};
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Agents that are told something at the same time.
const AGENTS_MAX: usize = 8;
/// Runs of which an agent is told in one go.
const RUNS_MAX: usize = 64;
/// An agent that did not take a word is not told one before this: it has more files, cannot write, or is too old to understand.
const PAUSE: Duration = Duration::from_secs(60);

/// Works until the server stops.
pub(super) async fn run(context: Context) {
    let mut telling: JoinSet<(String, Result<bool, CoreError>)> = JoinSet::new();
    let mut not_before: HashMap<String, Instant> = HashMap::new();
    let mut told_now: Vec<String> = Vec::new();
    loop {
        not_before.retain(|_, at| *at > Instant::now());
        let agents = context.ask(|db| db.file_words_to()).await.unwrap_or_else(|e| {
            tracing::warn!("agents are not told yet which files are stored: {e}");
            Vec::new()
        });
        for agent in agents {
            let waits = not_before.contains_key(&agent) || told_now.contains(&agent);
            if telling.len() < AGENTS_MAX && !waits && context.agents.live(&agent).is_some() {
                told_now.push(agent.clone());
                let context = context.clone();
                telling.spawn(async move {
                    let told = context.tell_agent(&agent).await;
                    (agent, told)
                });
            }
        }
        tokio::select! {
            Some(Ok((agent, told))) = telling.join_next() => {
                told_now.retain(|name| *name != agent);
                match told {
                    Ok(true) => {}
                    Ok(false) | Err(CoreError::Database(_)) => {
                        not_before.insert(agent, Instant::now() + PAUSE);
                    }
                    Err(_) => return,
                }
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

impl Context {
    /// Whether the agent took every word.
    async fn tell_agent(&self, agent: &str) -> Result<bool, CoreError> {
        let asked = agent.to_owned();
        let words = self.ask(move |db| db.file_words(&asked, RUNS_MAX)).await?;
        let mut told = Vec::new();
        let mut all = true;
        for FileWord { run, files } in words {
            let word = QueryBody::FilesStored(FilesStored { files: Some(files) });
            match self.agents.query(agent, run, word).await {
                Ok(AnswerBody::Noted(noted)) if noted.complete => told.push(FileChange::Told(run)),
                Ok(_) => all = false,
                Err(error) => {
                    all = false;
                    if !matches!(error, QueryError::Away(_)) {
                        tracing::debug!(%agent, %run, "that its files are stored was not noted: {error}");
                    }
                    break;
                }
            }
        }
        if !told.is_empty() {
            self.handle.files(told, Vec::new()).await?;
        }
        Ok(all)
    }
}

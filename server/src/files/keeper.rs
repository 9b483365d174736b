//! Works off what is to be fetched: a few files at a time, from each agent fewer, agent by agent in turn.
//!
//! | what is in the way                         | what follows                                                        |
//! |--------------------------------------------|---------------------------------------------------------------------|
//! | the agent is not connected                 | nothing; looked for again when it is                                |
//! | the agent cannot give this file now        | noted, with the reason; again after a pause that grows, with each file |
//! | the store is full, away or not ours        | told; nothing is fetched until a pause is over, which grows         |
//! | the database cannot be written             | the file is found in the store after the pause, and need not come again |

use super::fetch::{Fetched, PAUSE_MS_MAX};
use super::{Context, Pause};
use crate::core::CoreError;
use crate::db::{DbError, FileRecord};
use job::RunId;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Files that are fetched at the same time.
const FETCHES_MAX: usize = 4;
/// Of them from one agent.
const FETCHES_OF_AGENT_MAX: usize = 2;
/// Between two looks when nothing happens: an agent came back, a pause is over.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses when the store cannot be used.
const STORE_PAUSE_MIN: Duration = Duration::from_secs(1);
const STORE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Which file.
type File = (RunId, String);

struct Keeper {
    context: Context,
    fetches: JoinSet<(FileRecord, Fetched)>,
    under_way: HashSet<File>,
    of_agent: HashMap<String, usize>,
    /// The agent whose turn it was.
    last: String,
    pause: Pause,
    until: Instant,
}

/// Works until the server stops.
pub(super) async fn run(context: Context) {
    let pause = Pause::new(STORE_PAUSE_MIN, STORE_PAUSE_MAX);
    let mut keeper = Keeper {
        context,
        fetches: JoinSet::new(),
        under_way: HashSet::new(),
        of_agent: HashMap::new(),
        last: String::new(),
        pause,
        until: Instant::now(),
    };
    loop {
        if let Err(error) = keeper.begin_some().await {
            tracing::warn!("files are not fetched yet: {error}");
        }
        tokio::select! {
            Some(done) = keeper.fetches.join_next() => {
                let Ok((record, fetched)) = done else { continue };
                if keeper.on_done(&record, fetched).await.is_err() {
                    return;
                }
            }
            () = keeper.context.handle.file_kept() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

impl Keeper {
    /// Begins as many as may be under way.
    async fn begin_some(&mut self) -> Result<(), DbError> {
        if Instant::now() < self.until || self.fetches.len() >= FETCHES_MAX {
            return Ok(());
        }
        let mut agents = self.context.ask(|db| db.files_awaited_from()).await?;
        agents.retain(|agent| self.context.agents.live(agent).is_some());
        if agents.is_empty() && self.fetches.is_empty() && self.context.store.trouble().is_some() {
            return self.look_again().await;
        }
        let turn = agents.partition_point(|agent| *agent <= self.last);
        agents.rotate_left(turn);
        for agent in agents {
            let room = FETCHES_MAX - self.fetches.len();
            if room == 0 {
                break;
            }
            let of_agent = self.of_agent.get(&agent).copied().unwrap_or(0);
            let room = room.min(FETCHES_OF_AGENT_MAX.saturating_sub(of_agent));
            if room > 0 {
                self.begin(&agent, room, room + of_agent).await?;
                self.last = agent;
            }
        }
        Ok(())
    }

    /// Nothing is to be fetched, so nothing else would show that the store can be used again.
    async fn look_again(&mut self) -> Result<(), DbError> {
        match self.context.ready().await {
            Ok(_) => {
                self.pause.reset();
                self.context.on_well().await;
            }
            Err(error) => {
                self.context.on_trouble(&error).await;
                self.wait();
            }
        }
        Ok(())
    }

    /// Those under way are among those that are due.
    async fn begin(&mut self, agent: &str, room: usize, limit: usize) -> Result<(), DbError> {
        let asked = agent.to_owned();
        let now_ms = os::clock::wall_ms();
        let due = self.context.ask(move |db| db.files_due(&asked, now_ms, PAUSE_MS_MAX, limit)).await?;
        let new = due.into_iter().filter(|record| !self.under_way.contains(&of(record))).take(room);
        for record in new.collect::<Vec<_>>() {
            self.under_way.insert(of(&record));
            *self.of_agent.entry(agent.to_owned()).or_default() += 1;
            let context = self.context.clone();
            self.fetches.spawn(async move {
                let fetched = context.fetch(&record).await;
                (record, fetched)
            });
        }
        Ok(())
    }

    /// An error ends the work.
    async fn on_done(&mut self, record: &FileRecord, fetched: Fetched) -> Result<(), CoreError> {
        self.under_way.remove(&of(record));
        if let Some(count) = self.of_agent.get_mut(&record.file.agent) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_agent.remove(&record.file.agent);
            }
        }
        match fetched {
            Fetched::Stored => {
                self.pause.reset();
                self.context.on_well().await;
            }
            Fetched::Noted | Fetched::AgentAway => {}
            Fetched::StoreAway(error) => {
                self.context.on_trouble(&error).await;
                self.wait();
            }
            Fetched::NotNoted(CoreError::Stopping) => return Err(CoreError::Stopping),
            Fetched::NotNoted(error) => {
                tracing::warn!("what became of a file is not written down yet: {error}");
                self.wait();
            }
        }
        Ok(())
    }

    /// Several that fail together are one failure.
    fn wait(&mut self) {
        if Instant::now() >= self.until {
            self.until = Instant::now() + self.pause.grow();
        }
    }
}

fn of(record: &FileRecord) -> File {
    (record.file.run, record.file.name.clone())
}

//! What the core shows of itself without being asked.

use scheduler::{Counts, Event, EventKind, Object};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Whether the server does its work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What hinders it, each a sentence; none if it is ready.
    pub problems: Vec<String>,
}

impl Health {
    /// Nothing hinders it.
    pub fn is_ready(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Between the core and everybody who looks at it.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes whoever fetches files.
    file_kept: Notify,
}

struct State {
    counts: Counts,
    progress: Instant,
    database: Option<String>,
    /// Why no new jobs are taken, if none are.
    disk: Option<String>,
    fenced: BTreeMap<String, String>,
}

/// So long without a step of the core, and the server does not count as ready any more.
const PROGRESS_MAX: Duration = Duration::from_secs(10);

impl Shared {
    pub(super) fn new(counts: Counts) -> Shared {
        let state =
            State { counts, progress: Instant::now(), database: None, disk: None, fenced: BTreeMap::new() };
        Shared { state: Mutex::new(state), file_kept: Notify::new() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        let mut problems: Vec<String> = state.database.iter().cloned().collect();
        problems.extend(state.disk.clone());
        let still = state.progress.elapsed();
        if still > PROGRESS_MAX {
            problems.push(format!("the core has not made a step for {} s", still.as_secs()));
        }
        problems.extend(state.fenced.values().cloned());
        Health { problems }
    }

    /// An agent has told of a file.
    pub(super) fn on_file_kept(&self) {
        self.file_kept.notify_one();
    }

    /// Waits until one has, since the last time.
    pub(super) async fn file_kept(&self) {
        self.file_kept.notified().await;
    }

    /// The core made a step, and the counts are these.
    pub(super) fn on_step(&self, counts: Counts) {
        let mut state = self.lock();
        state.counts = counts;
        state.progress = Instant::now();
        state.database = None;
    }

    /// The database cannot be written.
    pub(super) fn on_trouble(&self, text: String) {
        let mut state = self.lock();
        state.progress = Instant::now();
        state.database = Some(text);
    }

    /// Why the database cannot be written at the moment, if it cannot.
    pub(super) fn database_trouble(&self) -> Option<String> {
        self.lock().database.clone()
    }

    /// There is little room on the disk, or enough again. What is to be told if that is new.
    pub(super) fn on_disk(&self, trouble: Option<String>) -> Option<Event> {
        let before = std::mem::replace(&mut self.lock().disk, trouble.clone());
        match (before.is_some(), trouble) {
            (false, Some(text)) => {
                tracing::error!("{text}");
                Some(Event::new(EventKind::DiskLow, Object::Server, text))
            }
            (true, None) => {
                let text = "there is room on the disk again: new jobs are taken";
                tracing::info!("{text}");
                Some(Event::new(EventKind::DiskEnough, Object::Server, text))
            }
            (true, Some(_)) | (false, None) => None,
        }
    }

    /// Why no new jobs are taken, if none are.
    pub(super) fn disk_trouble(&self) -> Option<String> {
        self.lock().disk.clone()
    }

    /// An agent knows a higher epoch.
    pub(super) fn on_fenced(&self, agent: &str, text: String) {
        let before = self.lock().fenced.insert(agent.to_owned(), text.clone());
        if before.as_ref() != Some(&text) {
            tracing::error!("{text}"); // once, however often the agent comes
        }
    }

    /// The agent took an order of this server.
    pub(super) fn on_obeyed(&self, agent: &str) {
        let mut state = self.lock();
        if !state.fenced.is_empty() {
            state.fenced.remove(agent);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

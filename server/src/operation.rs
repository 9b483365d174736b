//! Work that takes longer than a request: a backup, a check of the database. One request begins it, others ask how far it has come and
//! what came of it.
//!
//! Kept in memory only. An operation that was under way when the process ended has ended with it (what it left on disk is cleared away by its
//! own module), and whoever asks for it is told so: its number begins with the epoch, which no other start has.

use crate::backup::Made;
use crate::db::Checked;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// So many are remembered after their end.
const OVER_MAX: usize = 100;

/// How far something long has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// Of how much; 0 if nobody can tell.
    pub total: u64,
    /// What is counted.
    pub unit: Unit,
}

/// What progress is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Pieces of work of any size.
    Steps,
    /// Records of the database.
    Rows,
}

impl Unit {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Steps => "steps",
            Unit::Rows => "rows",
        }
    }
}

impl Progress {
    /// A step of which nobody can tell how long it takes.
    pub fn begun(step: &'static str) -> Progress {
        Progress { step, done: 0, total: 0, unit: Unit::Steps }
    }
}

/// Whoever wants to know how far it has come.
pub type Tell<'a> = &'a dyn Fn(Progress);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A backup of the database.
    Backup,
    /// A check of the database.
    Check,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Backup => "backup",
            Kind::Check => "check",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A backup was made.
    Made(Box<Made>),
    /// The database was looked through.
    Checked(Checked),
    /// It could not be done, and why.
    Failed(String),
}

/// An operation as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name: `EPOCH-NUMBER`.
    pub id: String,
    /// What is done.
    pub kind: Kind,
    /// Who began it.
    pub by: String,
    /// When, wall clock.
    pub begun_at_ms: i64,
    /// When it was over, wall clock; absent while it goes on.
    pub ended_at_ms: Option<i64>,
    /// How far it has come.
    pub progress: Option<Progress>,
    /// What came of it; absent while it goes on.
    pub outcome: Option<Outcome>,
}

/// What makes a second request the same as the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Whose key it is.
    pub user: String,
    /// The key.
    pub key: String,
    /// SHA-256 of the request.
    pub digest: [u8; 32],
}

/// Why an operation does not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBegun {
    /// One of its kind is under way.
    #[error(
        "a {} is being made already: operation {id} of {by}; `lastword server wait {id}` waits for it", .kind.name()
    )]
    Busy {
        /// Of which kind.
        kind: Kind,
        /// The other one.
        id: String,
        /// Whose it is.
        by: String,
    },
    /// The key was used for something else.
    #[error("idempotency key \"{0}\" belongs to another request; take a new key for each request")]
    KeyReused(String),
}

/// All that this process did and does; cheap to clone.
#[derive(Clone)]
pub struct Operations {
    epoch: u64,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    last: u64,
    /// The oldest first.
    entries: VecDeque<Entry>,
}

struct Entry {
    key: Option<Key>,
    state: Arc<watch::Sender<Operation>>,
}

/// An operation that was begun, or found again.
pub struct Begun {
    /// Where it is told how far it has come.
    pub state: watch::Receiver<Operation>,
    /// It was begun before, by an earlier request with the same key.
    pub repeated: bool,
}

impl Operations {
    /// Of a process that opened the database in this epoch.
    pub fn new(epoch: u64) -> Operations {
        Operations { epoch, table: Arc::default() }
    }

    /// Begins `work` on a thread of its own, unless one of its kind is under way. `over` is called with what came of it, before whoever waits is told.
    pub fn begin<F: Future<Output = ()> + Send + 'static>(
        &self,
        (kind, by, key): (Kind, &str, Option<Key>),
        work: impl FnOnce(Tell<'_>) -> anyhow::Result<Outcome> + Send + 'static,
        over: impl FnOnce(Operation) -> F + Send + 'static,
    ) -> Result<Begun, NotBegun> {
        let state = match self.lock().enter(self.epoch, kind, by, key)? {
            Entered::New(state) => state,
            Entered::Known(state) => return Ok(Begun { state: state.subscribe(), repeated: true }),
        };
        let begun = Begun { state: state.subscribe(), repeated: false };
        tokio::spawn(async move {
            let told = Arc::clone(&state);
            let tell = move |progress| {
                told.send_modify(|operation| operation.progress = Some(progress));
            };
            let outcome = match tokio::task::spawn_blocking(move || work(&tell)).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(e)) => Outcome::Failed(format!("{e:#}")),
                Err(e) => Outcome::Failed(format!("it ended before its time: {e}")),
            };
            let ended_at_ms = Some(os::clock::wall_ms());
            let ended = Operation { ended_at_ms, outcome: Some(outcome), ..state.borrow().clone() };
            over(ended.clone()).await;
            state.send_replace(ended);
        });
        Ok(begun)
    }

    /// Where one is told of; none if there is none of that name.
    pub fn find(&self, id: &str) -> Option<watch::Receiver<Operation>> {
        let table = self.lock();
        let entry = table.entries.iter().find(|entry| entry.state.borrow().id == id);
        entry.map(|entry| entry.state.subscribe())
    }

    /// All that are remembered, the newest first.
    pub fn list(&self) -> Vec<Operation> {
        self.lock().entries.iter().rev().map(|entry| entry.state.borrow().clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Entered {
    New(Arc<watch::Sender<Operation>>),
    Known(Arc<watch::Sender<Operation>>),
}

impl Table {
    fn enter(&mut self, epoch: u64, kind: Kind, by: &str, key: Option<Key>) -> Result<Entered, NotBegun> {
        if let Some(key) = &key
            && let Some((known, state)) = self.of_key(key)
        {
            return match known.digest == key.digest {
                true => Ok(Entered::Known(state)),
                false => Err(NotBegun::KeyReused(key.key.clone())),
            };
        }
        let mut present = self.entries.iter().map(|entry| entry.state.borrow());
        if let Some(other) = present.find(|other| other.kind == kind && other.outcome.is_none()) {
            return Err(NotBegun::Busy { kind, id: other.id.clone(), by: other.by.clone() });
        }
        drop(present);
        self.forget_the_oldest();
        self.last += 1;
        let operation = Operation {
            id: format!("{epoch}-{}", self.last),
            kind,
            by: by.to_owned(),
            begun_at_ms: os::clock::wall_ms(),
            ended_at_ms: None,
            progress: None,
            outcome: None,
        };
        let state = Arc::new(watch::Sender::new(operation));
        self.entries.push_back(Entry { key, state: Arc::clone(&state) });
        Ok(Entered::New(state))
    }

    fn of_key(&self, key: &Key) -> Option<(&Key, Arc<watch::Sender<Operation>>)> {
        let same = |known: &&Key| known.user == key.user && known.key == key.key;
        self.entries
            .iter()
            .find_map(|entry| Some((entry.key.as_ref().filter(same)?, Arc::clone(&entry.state))))
    }

    fn forget_the_oldest(&mut self) {
        let over = |entry: &Entry| entry.state.borrow().outcome.is_some();
        while self.entries.len() >= OVER_MAX {
            let Some(oldest) = self.entries.iter().position(over) else { return };
            self.entries.remove(oldest);
        }
    }
}

/// Waits until it is over, at most so long; as it stands then.
pub async fn wait(state: &mut watch::Receiver<Operation>, limit: Duration) -> Operation {
    let over = state.wait_for(|operation| operation.outcome.is_some());
    let _ = tokio::time::timeout(limit, over).await; // it goes on, or is over
    state.borrow().clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Nothing in a test takes longer, or it has failed.
    const DEADLINE: Duration = Duration::from_secs(30);

    async fn nothing(_: Operation) {}

    fn checked() -> anyhow::Result<Outcome> {
        Ok(Outcome::Checked(Checked::default()))
    }

    fn key(user: &str, digest: u8) -> Option<Key> {
        Some(Key { user: user.into(), key: "k".into(), digest: [digest; 32] })
    }

    #[tokio::test]
    async fn one_of_a_kind_goes_on_at_a_time_and_is_told_of_until_it_is_over() {
        let operations = Operations::new(7);
        let (go, gate) = mpsc::channel::<()>();
        let work = move |tell: Tell<'_>| {
            tell(Progress { step: "x", done: 1, total: 2, unit: Unit::Rows });
            gate.recv()?;
            checked()
        };
        let mut begun = operations.begin((Kind::Check, "anna", None), work, nothing).unwrap();
        let busy = operations.begin((Kind::Check, "bert", None), |_| checked(), nothing).err().unwrap();
        assert_eq!(busy, NotBegun::Busy { kind: Kind::Check, id: "7-1".into(), by: "anna".into() });
        let told = begun.state.wait_for(|operation| operation.progress.is_some());
        let told = tokio::time::timeout(DEADLINE, told).await.unwrap().unwrap().clone();
        assert_eq!((told.progress.unwrap().done, told.outcome), (1, None));
        // Another kind does not wait for it.
        operations.begin((Kind::Backup, "bert", None), |_| anyhow::bail!("no room"), nothing).unwrap();
        let failed = wait(&mut operations.find("7-2").unwrap(), DEADLINE).await;
        assert_eq!(failed.outcome, Some(Outcome::Failed("no room".into())));
        go.send(()).unwrap();
        let over = wait(&mut begun.state, DEADLINE).await;
        assert_eq!(over.outcome, Some(Outcome::Checked(Checked::default())));
        assert!(over.ended_at_ms.is_some());
        assert!(operations.begin((Kind::Check, "bert", None), |_| checked(), nothing).is_ok());
        assert_eq!(
            operations.list().iter().map(|o| o.id.as_str()).collect::<Vec<_>>(),
            ["7-3", "7-2", "7-1"]
        );
    }

    #[tokio::test]
    async fn the_same_key_finds_the_same_operation_and_another_request_under_it_is_refused() {
        let operations = Operations::new(1);
        let begin = |key| operations.begin((Kind::Check, "anna", key), |_| checked(), nothing);
        let mut first = begin(key("anna", 1)).unwrap();
        wait(&mut first.state, DEADLINE).await;
        let again = begin(key("anna", 1)).unwrap();
        assert!(again.repeated && !first.repeated);
        assert_eq!(again.state.borrow().id, "1-1");
        assert_eq!(begin(key("anna", 2)).err().unwrap(), NotBegun::KeyReused("k".into()));
        let others = begin(key("bert", 2)).unwrap();
        assert_eq!(others.state.borrow().id, "1-2");
    }

    #[tokio::test]
    async fn only_so_many_are_remembered() {
        let operations = Operations::new(1);
        for _ in 0..OVER_MAX + 5 {
            let mut begun = operations.begin((Kind::Check, "anna", None), |_| checked(), nothing).unwrap();
            wait(&mut begun.state, DEADLINE).await;
        }
        assert_eq!(operations.list().len(), OVER_MAX);
        assert!(operations.find("1-1").is_none());
    }
}

//! Writing a batch while the core decides what comes next.
//!
//! The core waits for one batch before it begins another, and tells nobody of a batch before it is written. Only facts about runs in memory
//! are decided meanwhile: for everything else, and for whatever has to be looked up in the database, the core waits first.

use super::health::Shared;
use crate::db::{Database, DbError, Entry};
use scheduler::Change;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The first pause after a commit that failed, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What is written in one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    pub(super) entries: Vec<Entry>,
}

/// Returns when the batch is written, however long that takes.
pub(super) fn write(database: &dyn Database, shared: &Shared, batch: &Batch) {
    if batch.changes.is_empty() && batch.entries.is_empty() {
        return;
    }
    let mut pause = RETRY_MIN;
    let began = Instant::now();
    os::crash::point("commit.before");
    let commit = || {
        os::crash::fault("commit.write").map_err(|e| DbError::Retry(e.to_string()))?;
        database.commit_with(&batch.changes, &batch.entries)
    };
    while let Err(e) = commit() {
        tracing::error!("{} changes are not written: {e}; next try in {pause:?}", batch.changes.len());
        shared.on_trouble(match e {
            DbError::Retry(why) => why,
            e @ (DbError::Unusable(_) | DbError::Damaged(_)) => e.to_string(),
        });
        std::thread::sleep(pause);
        pause = (pause * 2).min(RETRY_MAX);
    }
    os::crash::point("commit.after");
    metrics::counter!("lastword_commits_total").increment(1);
    metrics::histogram!("lastword_commit_changes").record(batch.changes.len() as f64);
    metrics::histogram!("lastword_commit_seconds").record(began.elapsed().as_secs_f64());
}

/// A thread that writes one batch at a time. It ends, and lets the database go, when this is dropped.
pub(super) struct Writer {
    batches: Option<mpsc::Sender<Batch>>,
    written: mpsc::Receiver<Batch>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn spawn(database: Arc<dyn Database>, shared: Arc<Shared>) -> std::io::Result<Writer> {
        let (batches, inbox) = mpsc::channel::<Batch>();
        let (tell, written) = mpsc::channel();
        let thread = std::thread::Builder::new().name("writer".to_owned()).spawn(move || {
            while let Ok(batch) = inbox.recv() {
                write(&*database, &shared, &batch);
                if tell.send(batch).is_err() {
                    return; // the core is gone
                }
            }
        })?;
        Ok(Writer { batches: Some(batches), written, thread: Some(thread) })
    }

    /// Begins to write a batch; [`Writer::wait`] has to be called before the next one.
    pub(super) fn begin(&self, batch: Batch) {
        if self.batches.as_ref().is_none_or(|batches| batches.send(batch).is_err()) {
            gone();
        }
    }

    /// Returns the batch that was begun when it is written, however long that takes.
    pub(super) fn wait(&self) -> Batch {
        self.written.recv().unwrap_or_else(|_| gone())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.batches = None;
        let _ = self.thread.take().map(JoinHandle::join); // if it panicked, it has said so
    }
}

/// Nobody knows what of the batch is written, so the server has to start again.
fn gone() -> ! {
    panic!("the thread that writes the database is gone")
}

//! Everything that touches the data root, away from the event loop: a slow disk delays runs, never the heartbeats.
//!
//! One rule of POSIX locks is kept here: closing any descriptor of a log drops a lock that this process holds on it. So readers and the
//! rare recorder of this process exclude each other.

use crate::event::Event;
use job::{Outcome, RunId};
use os::pidfd::Pidfd;
use spool::{DataRoot, Ledger, LedgerError, NotKept, RecordError, RunDir, Shelf, TakeError, Unwritten};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

/// Threads for the disk: enough for their syncs to share a journal commit.
pub(crate) const THREADS_MAX: usize = 24;

/// Logs are guarded in so many groups, so that one directory that hangs holds up few others.
const STRIPES: usize = 64;
/// Questions to local processes under way at a time.
const QUESTIONS_MAX: usize = 8;

/// What was found in a live run's directory.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The log.
    pub(crate) ledger: Ledger,
    /// Who holds its lock: the job-processor, by pid and descriptor.
    pub(crate) holder: Option<(u32, Pidfd)>,
    /// A descriptor of the job's process, if it was started in this boot, has no outcome yet and still exists.
    pub(crate) job: Option<Pidfd>,
}

/// What is here of a run that is not live.
#[derive(Debug)]
pub(crate) enum Recalled {
    /// It is settled.
    Settled(Box<Ledger>),
    /// Its log is damaged.
    Damaged,
    /// Its log cannot be read now.
    NotNow(io::Error),
    /// Its directory stands among the live ones.
    Live,
    /// Nothing.
    None,
}

/// The data root for many threads.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) root: DataRoot,
    pub(crate) boot_id: [u8; 16],
    logs: Arc<[RwLock<()>; STRIPES]>,
    deeds: Arc<[Mutex<()>; STRIPES]>,
    runs_sync: Arc<GroupSync>,
    questions: Arc<Semaphore>,
    events: UnboundedSender<Event>,
}

impl Disk {
    pub(crate) fn new(root: DataRoot, boot_id: [u8; 16], events: UnboundedSender<Event>) -> io::Result<Disk> {
        let runs = os::disk::open_dir(&root.shelf(Shelf::Live))?;
        Ok(Disk {
            root,
            boot_id,
            logs: Arc::new(std::array::from_fn(|_| RwLock::new(()))),
            deeds: Arc::new(std::array::from_fn(|_| Mutex::new(()))),
            runs_sync: Arc::new(GroupSync::new(runs)),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            events,
        })
    }

    /// Does `work` on a thread of its own and reports its event.
    pub(crate) fn spawn(&self, work: impl FnOnce(&Disk) -> Event + Send + 'static) {
        let disk = self.clone();
        tokio::task::spawn_blocking(move || {
            let event = work(&disk);
            let _ = disk.events.send(event); // the loop is gone only when the process goes
        });
    }

    /// As [`Disk::spawn`], for questions to local processes, which may be stopped and never answer: few at a time, so that there are always
    /// threads for the disk.
    pub(crate) fn ask(&self, work: impl FnOnce(&Disk) -> Event + Send + 'static) {
        let (disk, questions) = (self.clone(), self.questions.clone());
        tokio::spawn(async move {
            let permit = questions.acquire_owned().await;
            disk.spawn(move |disk| {
                let event = work(disk);
                drop(permit);
                event
            });
        });
    }

    /// Reads a live run's log, and looks who holds its lock and whether its process exists. What is being written at this moment may look damaged or
    /// held by the monitor: that is an error of kind `WouldBlock`, to be tried again.
    ///
    /// What is read may be told to a server, so it has to be durable. Messages up to `durable_seq`, and the first one, are; the writer of a later one may
    /// be amid its sync, or have died there: the log is synced.
    pub(crate) fn read(&self, run_id: RunId, open_job: bool, durable_seq: u64) -> Result<Seen, LedgerError> {
        let dir = self.root.run(Shelf::Live, run_id);
        let (ledger, holder) = {
            let reading = self.reading(run_id);
            // The lock first: a holder that is gone afterwards has written all that it ever will.
            let log = dir.open_log().map_err(LedgerError::Io)?;
            let holder = match os::lock::holder(&log).map_err(LedgerError::Io)? {
                Some(pid) => self.holder(&dir, pid)?,
                None => None,
            };
            match Ledger::read_from(&log, run_id) {
                Ok(ledger) => {
                    let new = ledger.messages.len() > 1 && ledger.last_seq() > durable_seq;
                    if new && let Err(e) = os::crash::fault("told.sync").and_then(|()| log.sync_data()) {
                        drop((log, reading));
                        return Err(self.write_again(&dir, e));
                    }
                    (ledger, holder)
                }
                Err(LedgerError::Damaged(_)) if holder.is_some() => {
                    return Err(not_now("its log is being written"));
                }
                Err(LedgerError::Damaged(what)) => {
                    drop(reading);
                    return Err(self.confirm_damage(&dir, what));
                }
                Err(e @ LedgerError::Io(_)) => return Err(e),
            }
        };
        let same_boot = ledger.started_boot().is_some_and(|boot| boot.0 == self.boot_id);
        let wanted = open_job && same_boot && ledger.ended.is_none();
        let job = match ledger.process().filter(|_| wanted) {
            Some(process) => Pidfd::open_checked(&process).map_err(LedgerError::Io)?,
            None => None,
        };
        Ok(Seen { ledger, holder, job })
    }

    /// The holder of a log's lock as a job-processor: its pid, and a descriptor that is surely its own.
    fn holder(&self, dir: &RunDir, pid: u32) -> Result<Option<(u32, Pidfd)>, LedgerError> {
        if self.root.lock_holder("platform-agent").map_err(LedgerError::Io)? == Some(pid) {
            return Err(not_now("the monitor is recording its outcome"));
        }
        // Opened first, then asked again: if that pid still holds the lock, the descriptor is of its holder.
        let pidfd = Pidfd::open(pid).map_err(LedgerError::Io)?;
        match dir.lock_holder().map_err(LedgerError::Io)? {
            Some(still) if still == pid => Ok(pidfd.map(|pidfd| (pid, pidfd))),
            _ => Err(not_now("its job-processor is going")),
        }
    }

    /// A reader without a lock can see a log half-way between two records; its writer cannot.
    fn confirm_damage(&self, dir: &RunDir, what: String) -> LedgerError {
        let _recording = self.recording(dir.run_id());
        match spool::Recorder::take(dir) {
            Err(TakeError::Ledger(LedgerError::Damaged(_))) => LedgerError::Damaged(what),
            Err(TakeError::Ledger(e @ LedgerError::Io(_))) => e,
            Ok(_) | Err(TakeError::Held) => not_now("its log was being written"),
        }
    }

    /// What a log shows whose sync failed may be in the kernel's cache only, and another sync would only seem to succeed. A writer that lives hears of it
    /// too; in the place of a dead one we write it again (`store::Log::open`).
    fn write_again(&self, dir: &RunDir, failed: io::Error) -> LedgerError {
        tracing::error!(run = %dir.run_id(), "its log cannot be synced: {failed}");
        let _recording = self.recording(dir.run_id());
        match spool::Recorder::take(dir) {
            Err(TakeError::Ledger(e)) => e,
            Ok(_) | Err(TakeError::Held) => not_now("its log could not be synced"),
        }
    }

    /// Reads a log on any shelf, for questions.
    pub(crate) fn read_at(&self, dir: &RunDir) -> Result<(Ledger, bool), LedgerError> {
        let _reading = self.reading(dir.run_id());
        let locked = dir.lock_holder().map_err(LedgerError::Io)?.is_some();
        Ok((Ledger::read(dir)?, locked))
    }

    /// Reads a settled log. One that is damaged is set aside, so that it is not settled any more and people can look at it.
    pub(crate) fn read_settled(&self, run_id: RunId) -> Result<Ledger, LedgerError> {
        let read = self.read_at(&self.root.run(Shelf::Settled, run_id)).map(|(ledger, _)| ledger);
        if let Err(LedgerError::Damaged(what)) = &read {
            tracing::error!(run = %run_id, "a settled run is set aside into quarantine: {what}");
            if let Err(e) = self.root.move_to(run_id, Shelf::Settled, Shelf::Quarantined) {
                tracing::warn!(run = %run_id, "it cannot be moved to its shelf now: {e}"); // whoever reads it next tries again
            }
        }
        read
    }

    /// Looks for a run that is not live.
    pub(crate) fn recall(&self, run_id: RunId) -> Recalled {
        match self.read_settled(run_id) {
            Ok(ledger) => Recalled::Settled(Box::new(ledger)),
            Err(LedgerError::Damaged(_)) => Recalled::Damaged,
            Err(LedgerError::Io(e)) if e.kind() != io::ErrorKind::NotFound => Recalled::NotNow(e),
            Err(LedgerError::Io(not_found)) => match self.root.find(run_id) {
                Ok(Some((Shelf::Quarantined, _))) => Recalled::Damaged,
                Ok(Some((Shelf::Live, _))) => Recalled::Live,
                Ok(Some((Shelf::Settled, _))) => Recalled::NotNow(not_found), // it came just now, or has no log
                Ok(None) => Recalled::None,
                Err(e) => Recalled::NotNow(e),
            },
        }
    }

    /// Records an outcome in the place of a job-processor that is gone.
    pub(crate) fn record(
        &self,
        run_id: RunId,
        decide: impl FnOnce(&Ledger) -> Option<Outcome>,
    ) -> Result<bool, RecordError> {
        let _recording = self.recording(run_id);
        spool::record_in_place_of(&self.root.run(Shelf::Live, run_id), decide)
    }

    /// Appends why an adopted job is told to end. Best effort: a full disk must not keep it alive.
    pub(crate) fn note_stop(
        &self,
        run_id: RunId,
        stopping: protocol::message::Stopping,
    ) -> Result<(), TakeError> {
        let _recording = self.recording(run_id);
        let (mut recorder, ledger) = spool::Recorder::take(&self.root.run(Shelf::Live, run_id))?;
        if ledger.ended.is_none() && ledger.stopping.is_none() {
            let _ = recorder.record(protocol::message::FactBody::Stopping(stopping));
        }
        Ok(())
    }

    /// Appends a fact to the log of an adopted run that is not over.
    pub(crate) fn note(&self, run_id: RunId, fact: protocol::message::FactBody) -> Result<(), String> {
        let _recording = self.recording(run_id);
        let taken = spool::Recorder::take(&self.root.run(Shelf::Live, run_id));
        let (mut recorder, ledger) = taken.map_err(|e| e.to_string())?;
        if ledger.ended.is_some() {
            return Err("the run is over".to_owned());
        }
        recorder.record(fact).map(drop).map_err(|e| e.to_string())
    }

    /// Does what a live run's log asks for now, one deed of a run after the other: of two threads with contrary deeds the one that read the later log
    /// is the later one. The log itself is free meanwhile: a deed may read it.
    pub(crate) fn as_it_says(&self, run_id: RunId, act: impl FnOnce(&Ledger)) -> Result<(), LedgerError> {
        let _deed = self.deeds[Self::index(run_id)].lock().unwrap_or_else(PoisonError::into_inner);
        let (ledger, _) = self.read_at(&self.root.run(Shelf::Live, run_id))?;
        act(&ledger);
        Ok(())
    }

    /// Keeps the files that the job's spec asks for, if that was not done.
    pub(crate) fn keep_files(&self, run_id: RunId, unwritten: Unwritten) -> Result<(), NotKept> {
        let _recording = self.recording(run_id);
        let dir = self.root.run(Shelf::Live, run_id);
        let taken = spool::Recorder::take(&dir).map_err(|e| NotKept::Failed(e.to_string()));
        let (mut recorder, ledger) = taken?;
        if ledger.started.is_none() {
            return Ok(()); // nothing was executed, so no file is the job's
        }
        spool::capture(&dir, &ledger.spec, ledger.captured(), &mut recorder, unwritten)
    }

    /// Writes down that the server needs the run's kept files no more, if it knows of as many as there are; whether it does.
    pub(crate) fn note_files_stored(&self, dir: &RunDir, known: u64) -> Result<bool, String> {
        let (ledger, _) = self.read_at(dir).map_err(|e| e.to_string())?;
        let complete = dir.files_complete().map_err(|e| e.to_string())?;
        if !complete || ledger.captured().len() as u64 > known {
            return Ok(false);
        }
        dir.note_files_stored().map(|()| true).map_err(|e| format!("it cannot be written down: {e}"))
    }

    fn reading(&self, run_id: RunId) -> RwLockReadGuard<'_, ()> {
        self.stripe(run_id).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn recording(&self, run_id: RunId) -> RwLockWriteGuard<'_, ()> {
        self.stripe(run_id).write().unwrap_or_else(PoisonError::into_inner)
    }

    fn stripe(&self, run_id: RunId) -> &RwLock<()> {
        &self.logs[Self::index(run_id)]
    }

    fn index(run_id: RunId) -> usize {
        usize::from(run_id.as_bytes()[15]) % STRIPES // its last byte is random
    }

    /// Makes the names in `runs/` durable; many callers share one sync.
    pub(crate) fn sync_runs(&self) -> io::Result<()> {
        self.runs_sync.sync()
    }
}

fn not_now(why: &str) -> LedgerError {
    LedgerError::Io(io::Error::new(io::ErrorKind::WouldBlock, why.to_owned()))
}

/// One directory, synced for many at once: whoever comes while a sync is under way waits for the next one, which counts for all
/// that came.
#[derive(Debug)]
struct GroupSync {
    dir: OwnedFd,
    state: Mutex<Rounds>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    begun: u64,
    done: u64,
    /// The last round that failed, and how.
    failed: Option<(u64, i32)>,
}

impl GroupSync {
    fn new(dir: OwnedFd) -> GroupSync {
        GroupSync { dir, state: Mutex::default(), changed: Condvar::new() }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = state.begun + 1; // a round that began before now may have missed what we did
        loop {
            if state.done >= mine {
                return match state.failed {
                    Some((round, errno)) if round >= mine => Err(io::Error::from_raw_os_error(errno)),
                    _ => Ok(()),
                };
            }
            if state.begun == state.done {
                state.begun += 1;
                let round = state.begun;
                drop(state);
                let result = os::disk::sync_dir(&self.dir);
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.done = round;
                if let Err(e) = result {
                    state.failed = Some((round, e.raw_os_error().unwrap_or(0)));
                }
                self.changed.notify_all();
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use job::Never;

    #[test]
    fn a_run_that_is_not_live_is_found_wherever_it_stands_and_nowhere_else() {
        let data = tempfile::tempdir().unwrap();
        let root = DataRoot::create(data.path(), true, false).unwrap();
        let disk = Disk::new(root, [0; 16], tokio::sync::mpsc::unbounded_channel().0).unwrap();
        let run_id = RunId::new(1, 1);
        assert!(matches!(disk.recall(run_id), Recalled::None));
        spool::prepare(&disk.root, run_id, &protocol::RunSpec::default(), [0; 16], 0, None).unwrap();
        assert!(matches!(disk.recall(run_id), Recalled::Live));
        disk.root.move_to(run_id, Shelf::Live, Shelf::Settled).unwrap();
        assert!(matches!(disk.recall(run_id), Recalled::Settled(ledger) if ledger.messages.len() == 1));
        std::fs::write(disk.root.run(Shelf::Settled, run_id).log(), "no log at all").unwrap();
        assert!(matches!(disk.recall(run_id), Recalled::Damaged));
        assert!(matches!(disk.recall(run_id), Recalled::Damaged), "in quarantine");
        assert_eq!(disk.root.list(Shelf::Quarantined).unwrap(), [run_id]);
    }

    #[test]
    fn of_a_run_that_never_executed_no_file_is_kept() {
        let data = tempfile::tempdir().unwrap();
        let root = DataRoot::create(data.path(), true, false).unwrap();
        let disk = Disk::new(root, [0; 16], tokio::sync::mpsc::unbounded_channel().0).unwrap();
        let (run_id, capture) = (RunId::new(1, 1), vec!["/etc/passwd".to_owned()]);
        let spec =
            protocol::RunSpec { capture, user: Some("ann".to_owned()), ..protocol::RunSpec::default() };
        let never = Outcome::NeverStarted { reason: "killed before".to_owned(), why: Never::Canceled };
        spool::prepare(&disk.root, run_id, &spec, [0; 16], 0, Some(&never)).unwrap();
        disk.keep_files(run_id, Unwritten::Wait).unwrap();
        let (ledger, _) = disk.read_at(&disk.root.run(Shelf::Live, run_id)).unwrap();
        assert_eq!((ledger.captured().len(), ledger.messages.len()), (0, 2));
    }
}

//! Writing a run's log: by its job-processor, or by whoever records an outcome in its place. Both take the lock first.

use crate::ledger::{Ledger, LedgerError, encode, is_unexecuted, slot_of};
use crate::root::RunDir;
use crate::{SLOT_ENDED, SLOT_STARTED};
use job::{End, Never, Outcome, RunId, Witness};
use os::child::{Announced, Farewell};
use os::wait::Waited;
use protocol::message::{Ended, Fact, FactBody};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use store::{Log, WriteError};

/// The writer of one run's log. While it lives the lock is held; dropping it lets go.
#[derive(Debug)]
pub struct Recorder {
    log: Log<File>,
}

/// Why a log could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Its writer is alive, however slow.
    #[error("another process holds the log")]
    Held,
    /// It cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Recorder {
    /// Opens the log once, takes its lock and reads it.
    pub fn take(dir: &RunDir) -> Result<(Recorder, Ledger), TakeError> {
        let io_error = |e: io::Error| TakeError::Ledger(LedgerError::Io(e));
        let file = Log::open_file(&dir.log()).map_err(io_error)?;
        if !os::lock::try_lock(&file).map_err(io_error)? {
            return Err(TakeError::Held);
        }
        let (log, contents) = Log::open(file).map_err(LedgerError::from)?;
        Ok((Recorder { log }, Ledger::from_contents(contents, dir.run_id())?))
    }

    /// What a gated child writes after STARTED if its job-processor dies before the start gate opens, or before it recorded that the program
    /// cannot be executed.
    pub fn farewell(&self) -> Result<Farewell, WriteError> {
        let gone = "the job-processor died before the start gate opened: nothing was executed".to_owned();
        let failed = "the command could not be executed, and the job-processor died before it could say why"
            .to_owned();
        let prepared = |outcome: &Outcome| {
            let fact = Fact::new(os::clock::wall_ms(), FactBody::Ended(Ended::from(outcome)));
            self.log.prepared(SLOT_ENDED, &encode(&fact), 1)
        };
        let (announced_at, slot) = self.log.slot(SLOT_STARTED);
        let announced = Announced(Box::new(move |block, pid| {
            slot.payload(block).and_then(protocol::glance::started_pid) == Some(pid)
        }));
        let (at, unexecuted) = prepared(&Outcome::NeverStarted { reason: gone, why: Never::Failed })?;
        let (_, failed) = prepared(&Outcome::CannotExecute { reason: failed })?;
        let file = self.log.medium().as_raw_fd();
        Ok(Farewell { file, announced_at, announced, at, unexecuted, failed })
    }

    /// Writes a fact durably: STARTED and ENDED into their slots, others at the end.
    pub fn record(&mut self, body: FactBody) -> Result<u64, WriteError> {
        let slot = slot_of(&body);
        let bytes = encode(&Fact::new(os::clock::wall_ms(), body));
        match slot {
            Some(slot) => self.log.fill(slot, &bytes),
            None => self.log.append(&bytes),
        }
    }

    /// Writes the outcome durably. A reason that is too long for its slot is cut.
    pub fn record_outcome(&mut self, outcome: &Outcome) -> Result<u64, WriteError> {
        const REASON_CHARS_MAX: usize = 800;
        let mut ended = Ended::from(outcome);
        if ended.reason.chars().count() > REASON_CHARS_MAX {
            ended.reason = ended.reason.chars().take(REASON_CHARS_MAX).chain(['…']).collect();
        }
        self.record(FactBody::Ended(ended))
    }
}

/// Records an outcome in the place of a job-processor that is gone. `decide` sees the log under its lock and gives the outcome, or `None`
/// to leave it open. An outcome that is there already stays. Returns whether one was written.
pub fn record_in_place_of(
    dir: &RunDir,
    decide: impl FnOnce(&Ledger) -> Option<Outcome>,
) -> Result<bool, RecordError> {
    let (mut recorder, ledger) = Recorder::take(dir)?;
    if ledger.ended.is_some() {
        return Ok(false);
    }
    match decide(&ledger) {
        None => Ok(false),
        Some(outcome) => {
            recorder.record_outcome(&outcome)?;
            Ok(true)
        }
    }
}

/// The outcome of a run whose process was seen to end by somebody in its job-processor's place: what it used is completed by what its control group
/// counted, and an end that was asked for says so. A process that executed nothing tells nothing of the job but that.
pub fn witnessed(ledger: &Ledger, end: End, witness: Witness, waited: Option<&Waited>) -> Outcome {
    if ledger.started.as_ref().is_some_and(is_unexecuted) {
        let reason =
            "its process ended before it executed anything, and its job-processor had died".to_owned();
        return Outcome::NeverStarted { reason, why: Never::Failed };
    }
    let usage = crate::usage(waited, ledger.cgroup().as_ref());
    Outcome::Ended { end, cause: ledger.stop_cause(), witness, usage }
}

/// Why no outcome could be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The log could not be taken.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What the network-processor is told when something was recorded: the run's id.
pub fn wake(dir: &RunDir) -> io::Result<()> {
    let root = dir.root().ok_or(io::ErrorKind::InvalidInput)?;
    os::seqpacket::hint(root.path(), crate::WAKE_SOCKET, dir.run_id().as_bytes())
}

/// Reads a hint.
pub fn woken(message: &[u8]) -> Option<RunId> {
    RunId::from_bytes(message).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataRoot, Shelf};
    use os::child::{Attributes, Gated, Program};
    use os::pidfd::Pidfd;
    use os::wait;
    use protocol::RunSpec;
    use protocol::message::Started;
    use std::ffi::CString;
    use std::path::Path;

    /// A run whose job-processor died when its child, before the gate, had been announced: its log, and the child as a zombie.
    struct Lab {
        _data: tempfile::TempDir,
        dir: RunDir,
        child: (u32, Pidfd),
    }

    /// The log announces the process that `whom` makes of the child's.
    fn gate_closes(whom: impl FnOnce(u32) -> u32, kill: bool) -> Lab {
        let data = tempfile::tempdir().unwrap();
        let root = DataRoot::create(data.path(), true, false).unwrap();
        let dir = root.run(Shelf::Live, RunId::new(1, 1));
        crate::prepare(&root, dir.run_id(), &RunSpec::default(), [0; 16], 0, None).unwrap();
        let (mut recorder, _) = Recorder::take(&dir).unwrap();
        let null = || File::open("/dev/null").unwrap().into();
        let program = Program {
            paths: vec![CString::from(c"/bin/true")],
            arguments: vec![CString::from(c"true")],
            environment: Vec::new(),
            directory: CString::from(c"/"),
            attributes: Attributes::default(),
            stdio: [null(), null(), null()],
            cgroup: None,
            farewell: Some(recorder.farewell().unwrap()),
        };
        let (gated, _) = Gated::spawn(&program).unwrap();
        let start_ticks = Some(os::procfs::stat(gated.pid).unwrap().unwrap().start_ticks);
        let pid = Some(whom(gated.pid));
        recorder.record(FactBody::Started(Started { pid, start_ticks, ..Started::default() })).unwrap();
        let child = (gated.pid, Pidfd::open(gated.pid).unwrap().unwrap());
        if kill {
            child.1.signal(os::signal::Signal::KILL).unwrap();
        }
        drop(gated);
        while wait::peek(&child.1).unwrap().is_none() {
            std::thread::yield_now();
        }
        Lab { _data: data, dir, child }
    }

    #[test]
    fn a_child_before_its_gate_says_that_it_never_started_and_nothing_of_its_successor() {
        let own = gate_closes(|pid| pid, false);
        let outcome = Ledger::read(&own.dir).unwrap().outcome().unwrap();
        assert!(matches!(outcome, Some(Outcome::NeverStarted { why: Never::Failed, .. })), "{outcome:?}");
        let other = gate_closes(|pid| pid + 1, false);
        assert_eq!(Ledger::read(&other.dir).unwrap().outcome().unwrap(), None);
        for lab in [own, other] {
            wait::reap(lab.child.0).unwrap();
        }
    }

    #[test]
    fn what_a_killed_child_before_its_gate_ended_with_is_never_the_outcome_of_its_job() {
        let lab = gate_closes(|pid| pid, true);
        let (dir, (pid, pidfd)) = (&lab.dir, &lab.child);
        let waited = wait::peek(pidfd).unwrap().unwrap();
        let end = End::from_wait_status(waited.wait_status).unwrap();
        assert_eq!(end, End::Signaled { signal: 9, core: false });
        let record = |witness| {
            record_in_place_of(dir, |ledger| Some(witnessed(ledger, end, witness, Some(&waited)))).unwrap()
        };
        assert!(record(Witness::Monitor));
        let outcome = Ledger::read(dir).unwrap().outcome().unwrap();
        assert!(matches!(outcome, Some(Outcome::NeverStarted { why: Never::Failed, .. })), "{outcome:?}");
        assert!(Path::new(&format!("/proc/{pid}")).exists(), "it was a zombie all the time");
        wait::reap(*pid).unwrap();
    }
}

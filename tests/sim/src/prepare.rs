//! From a START to a job-processor, step by step: mirrors `lib/spool/src/prepare.rs`, then `agent/network-processor/src/launch.rs`.
//!
//! ```text
//! Make ▶ WriteLog ▶ (synced) SyncDirectory ▶ (synced) Rename ▶ SyncRuns ▶ (synced) Launch
//! ```

use crate::disk::{Disk, Name};
use crate::host::Reapers;
use crate::log;
use crate::mutation::Mutation;
use crate::network_processor::Errand;
use crate::queue::Ms;
use crate::run::Keeper;
use crate::scenario::DISK_FULL;
use crate::world::World;
use job::{Outcome, RunId};
use prost::Message;
use protocol::RunSpec;
use protocol::message::{Accepted, FactBody};
use spool::{SLOT_ENDED, Shelf, Stored};
use store::{Blank, Log};

/// Zeros written in advance for appended records (`ROOM_BYTES` of `lib/spool/src/prepare.rs`).
const ROOM_BYTES: usize = 2_048;
/// Before a directory that could not be synced is tried again (`SYNC_AGAIN`).
const SYNC_AGAIN_MS: Ms = 1_000;

/// A step of a preparation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Make,
    WriteLog,
    SyncDirectory,
    Rename,
    SyncRuns,
    Launch,
}

/// A run that is being prepared.
#[derive(Clone, Debug)]
pub(crate) struct Preparing {
    pub(crate) run: RunId,
    pub(crate) spec: Box<RunSpec>,
    /// Its outcome, if it is only prepared to say that it never starts.
    pub(crate) never: Option<Outcome>,
    pub(crate) messages: Vec<Stored>,
    /// Why a run that is not here already is refused; empty if it is not.
    pub(crate) refusing: String,
}

impl World {
    pub(crate) fn prepare_step(&mut self, host: usize, mut preparing: Preparing, step: Step) {
        let now_ms = self.queue.now_ms();
        let disk = self.disk(host);
        let run = preparing.run;
        let replace = self.mutation == Some(Mutation::ForgetDedup);
        let done = match step {
            Step::Make if !replace && self.prepare_finds(host, run) => return,
            Step::Make if !preparing.refusing.is_empty() => {
                self.np_forgets(host, run);
                return self.refuse_for_want_of_room(host, run, &preparing.refusing);
            }
            Step::Make => disk.borrow_mut().make(run),
            Step::WriteLog => self.write_log(host, &mut preparing, now_ms),
            Step::SyncDirectory => disk.borrow_mut().sync_directory(Name::New(run)),
            Step::Rename => {
                if replace && disk.borrow().exists(Name::Live(run)) {
                    self.hosts[host].locks.remove(&run); // it is a lock of another file now
                }
                disk.borrow_mut().rename(Name::New(run), Name::Live(run), replace)
            }
            Step::SyncRuns if self.mutation == Some(Mutation::NoDirectorySync) => Ok(()),
            Step::SyncRuns => disk.borrow_mut().sync_runs(),
            Step::Launch => return self.launch_prepared(host, preparing),
        };
        let next = match (step, &done) {
            (Step::SyncRuns, Err(_)) => {
                let at_ms = now_ms + SYNC_AGAIN_MS;
                return self.errand_at(host, at_ms, Errand::PrepareAgain(run));
            }
            (_, Err(e)) => return self.not_prepared(host, run, e.kind() == std::io::ErrorKind::StorageFull),
            (Step::Make, Ok(())) => Step::WriteLog,
            (Step::WriteLog, Ok(())) => Step::SyncDirectory,
            (Step::SyncDirectory, Ok(())) => Step::Rename,
            (Step::Rename, Ok(())) => Step::SyncRuns,
            (Step::SyncRuns | Step::Launch, Ok(())) => Step::Launch,
        };
        let at_ms = self.done_at_ms(host) + self.rng.below(2);
        self.errand_at(host, at_ms, Errand::Prepare(preparing, next));
    }

    /// Whether the run is on a shelf already; then that is dealt with.
    fn prepare_finds(&mut self, host: usize, run: RunId) -> bool {
        let disk = self.disk(host);
        let is_on = |shelf| disk.borrow().exists(Name::on(shelf, run));
        if is_on(Shelf::Live) {
            if let Some(known) = self.np_run(host, run) {
                known.keeper = Keeper::Nobody;
            }
            self.np_read(host, run);
        } else if is_on(Shelf::Settled) {
            self.np_forgets(host, run);
            self.recall(host, run);
        } else if is_on(Shelf::Quarantined) {
            self.np_forgets(host, run);
            self.report_damaged(host, run);
        } else {
            return false;
        }
        true
    }

    pub(crate) fn np_forgets(&mut self, host: usize, run: RunId) {
        if let Some(np) = self.np(host) {
            np.runs.remove(&run);
        }
    }

    fn write_log(&mut self, host: usize, preparing: &mut Preparing, now_ms: Ms) -> std::io::Result<()> {
        let boot_id = Some(self.hosts[host].boot_id.to_vec());
        let disk = self.disk(host);
        let mut file = Disk::create_log(&disk, preparing.run)?;
        let accepted = log::encode(now_ms, FactBody::Accepted(Accepted { boot_id }));
        let blank = Blank {
            owner: *preparing.run.as_bytes(),
            head: &preparing.spec.encode_to_vec(),
            slots: 2,
            first: &[&accepted],
            room_bytes: ROOM_BYTES,
        };
        let io_error = |e: store::WriteError| match e {
            store::WriteError::Failed(e) => e,
            other @ (store::WriteError::TooLong { .. } | store::WriteError::Filled(_)) => {
                std::io::Error::other(other)
            }
        };
        store::create(&mut file, &blank).map_err(io_error)?;
        preparing.messages = vec![Stored { seq: 1, bytes: accepted }];
        if let Some(never) = &preparing.never {
            let bytes = log::encode(now_ms, log::ended(never));
            let (mut log, _) = Log::open(file).map_err(std::io::Error::other)?;
            let seq = log.fill(SLOT_ENDED, &bytes).map_err(io_error)?;
            preparing.messages.push(Stored { seq, bytes });
        }
        Ok(())
    }

    fn not_prepared(&mut self, host: usize, run: RunId, is_full: bool) {
        self.disk(host).borrow_mut().remove(Name::New(run));
        self.np_forgets(host, run);
        if is_full {
            self.set_refusing(host, DISK_FULL);
        }
        self.refuse_for_want_of_room(host, run, if is_full { DISK_FULL } else { "the disk failed" });
    }

    /// It is accepted durably: a job-processor may begin, and the server is told.
    fn launch_prepared(&mut self, host: usize, preparing: Preparing) {
        let run = preparing.run;
        let name = self.hosts[host].name.clone();
        self.oracle.on_accepted(run, &name);
        if preparing.never.is_none() {
            if let Some(known) = self.np_run(host, run).filter(|known| known.messages.is_empty()) {
                known.last_seq = preparing.messages.last().map_or(0, |message| message.seq);
                known.messages = preparing.messages;
            }
            self.np_launch(host, run);
            if self.np_run(host, run).is_some_and(|known| known.is_dirty) {
                self.np_read(host, run);
            }
        } else {
            self.np_set_jp(host, run, None);
            self.np_read(host, run);
        }
        self.pump(host);
    }

    pub(crate) fn prepare_again(&mut self, host: usize, run: RunId) {
        let disk = self.disk(host);
        let ended = log::read(&disk, Name::Live(run), run).is_ok_and(|ledger| ledger.ended.is_some());
        if disk.borrow_mut().sync_runs().is_err() {
            let at_ms = self.queue.now_ms() + SYNC_AGAIN_MS;
            return self.errand_at(host, at_ms, Errand::PrepareAgain(run));
        }
        let at_ms = self.done_at_ms(host);
        if ended {
            self.np_set_jp(host, run, None);
            self.np_read(host, run);
        } else {
            self.errand_at(host, at_ms, Errand::Relaunch(run));
        }
    }

    /// Starts a job-processor, unless the system has no process to spare.
    pub(crate) fn np_launch(&mut self, host: usize, run: RunId) {
        let Some(reapers) = self.np(host).map(|np| Reapers { np: np.id, monitor: np.under }) else { return };
        if self.rng.percent(self.no_process_percent) {
            if let Some(known) = self.np_run(host, run) {
                known.launches = known.launches.saturating_sub(1);
            }
            return self.np_set_jp(host, run, None);
        }
        let jp = self.start_jp(host, run, reapers);
        self.np_set_jp(host, run, Some(jp));
    }

    fn np_set_jp(&mut self, host: usize, run: RunId, jp: Option<u32>) {
        if let Some(known) = self.np_run(host, run) {
            known.keeper = jp.map_or(Keeper::Nobody, Keeper::JobProcessor);
            self.deliver_stop(host, run);
        }
    }
}

//! Reading logs and sending what is in them, until the server has it; then settling: mirrors
//! `agent/network-processor/src/{delivery,disk}.rs`.

use crate::disk::{Disk, Name};
use crate::host::Holder;
use crate::log;
use crate::mutation::Mutation;
use crate::network_processor::Errand;
use crate::queue::Ms;
use crate::run::{Keeper, Run};
use crate::world::World;
use job::RunId;
use protocol::convert;
use protocol::message::{Acks, Facts, NoRecord, RunFact};
use spool::{Ledger, LedgerError, Shelf, Stored};
use std::collections::VecDeque;
use store::Medium;

/// Messages in one frame of facts (`FACTS_PER_FRAME_MAX`; small, so that there are many).
const FACTS_PER_FRAME_MAX: usize = 8;
/// How often a settled log is read that cannot be read now, and the pause between, milliseconds.
const RECALLS_MAX: u32 = 5;
const RECALL_AGAIN_MS: Ms = 1_000;
/// Runs that are moved by one errand.
const SETTLES_MAX: usize = 256;

/// Runs that are over and wait to be moved to the settled ones.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    due: VecDeque<RunId>,
    is_busy: bool,
}

/// What was found in a live run's directory.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    ledger: Ledger,
    holder: Option<u32>,
    job: Option<u32>,
}

impl World {
    pub(crate) fn np_is_woken(&mut self, host: usize, run: RunId) {
        self.np_read(host, run);
    }

    /// Reads the run's log soon; what comes while it is being read is not missed.
    pub(crate) fn np_read(&mut self, host: usize, run: RunId) {
        let Some(known) = self.np_run(host, run) else { return };
        if known.is_reading || matches!(known.keeper, Keeper::Preparing | Keeper::Quarantined) {
            known.is_dirty = true;
            return;
        }
        (known.is_reading, known.is_dirty) = (true, false);
        let durable_seq = if known.is_recorded { u64::MAX } else { known.last_seq };
        self.errand(host, Errand::Read(run, durable_seq));
    }

    pub(crate) fn np_does_read(&mut self, host: usize, run: RunId, durable_seq: u64) {
        if self.hosts[host].locks.get(&run) == Some(&Holder::NetworkProcessor) {
            return self.errand(host, Errand::Read(run, durable_seq)); // readers and the recorder of this process exclude each other
        }
        match self.look(host, run) {
            Err(()) => self.on_read(host, run, Err(())),
            // The writer of something new may be amid its sync. What is told has to be durable, so we sync too.
            Ok(Some(seen))
                if seen.ledger.messages.len() > 1
                    && seen.ledger.last_seq() > durable_seq
                    && self.mutation != Some(Mutation::TellBeforeSync) =>
            {
                let disk = self.disk(host);
                let synced = Disk::open_log(&disk, Name::Live(run)).and_then(|mut log| log.sync());
                if synced.is_err() && !self.hosts[host].locks.contains_key(&run) {
                    let _ = log::take(&disk, run); // in the place of its writer, who is dead: it is written again
                }
                let at_ms = self.done_at_ms(host);
                self.errand_at(host, at_ms, Errand::Seen(run, synced.ok().map(|()| Box::new(seen))));
            }
            Ok(seen) => self.np_saw(host, run, seen),
        }
    }

    pub(crate) fn np_saw(&mut self, host: usize, run: RunId, seen: Option<Seen>) {
        self.on_read(host, run, Ok(seen));
        self.pump(host);
        self.np_settles(host, false);
    }

    /// `Ok(None)`: not now. `Err`: it is damaged.
    fn look(&mut self, host: usize, run: RunId) -> Result<Option<Seen>, ()> {
        let disk = self.disk(host);
        let holder = match self.hosts[host].locks.get(&run) {
            Some(Holder::JobProcessor(jp)) => Some(*jp),
            Some(Holder::Monitor | Holder::NetworkProcessor) => return Ok(None),
            None => None,
        };
        let ledger = match log::read(&disk, Name::Live(run), run) {
            Ok(ledger) => ledger,
            Err(LedgerError::Io(_)) => return Ok(None),
            Err(LedgerError::Damaged(_)) if holder.is_some() => return Ok(None),
            Err(LedgerError::Damaged(_)) => {
                return match log::take(&disk, run) {
                    Err(LedgerError::Damaged(_)) => Err(()),
                    Ok(_) | Err(LedgerError::Io(_)) => Ok(None),
                };
            }
        };
        let same_boot = ledger.started_boot().is_some_and(|boot| boot.0 == self.hosts[host].boot_id);
        let pid = ledger.started.as_ref().and_then(|started| started.pid);
        let wanted = same_boot && ledger.ended.is_none();
        let job = pid.filter(|pid| wanted && self.hosts[host].exists(*pid));
        Ok(Some(Seen { ledger, holder, job }))
    }

    fn on_read(&mut self, host: usize, run: RunId, seen: Result<Option<Seen>, ()>) {
        let Some(known) = self.np_run(host, run) else { return };
        known.is_reading = false;
        let first = std::mem::take(&mut known.is_awaited);
        if first && let Some(np) = self.np(host) {
            np.unread = np.unread.saturating_sub(1);
        }
        let Some(known) = self.np_run(host, run) else { return };
        match seen {
            Err(()) => self.np_quarantines(host, run),
            Ok(None) => {
                known.is_dirty = true; // the tick tries again
                return;
            }
            Ok(Some(seen)) => {
                known.take(&seen.ledger);
                known.job = if known.ended.is_none() { seen.job.or(known.job) } else { None };
                let last_seq = known.last_seq;
                if let Some(np) = self.np(host) {
                    np.outbox.on_stored(run, last_seq);
                }
                self.keep(host, run, seen.holder);
                if self.np_run(host, run).is_some_and(|known| known.is_dirty) {
                    self.np_read(host, run);
                }
                self.settle_if_over(host, run);
            }
        }
        if first && self.np(host).is_some_and(|np| np.unread == 0) {
            self.greet_early(host);
        }
    }

    /// Sends what is stored and not sent, as far as the window allows.
    pub(crate) fn pump(&mut self, host: usize) {
        loop {
            let Some(np) = self.np(host).filter(|np| np.active.is_some()) else { return };
            let ranges = np.outbox.next(FACTS_PER_FRAME_MAX);
            if ranges.is_empty() {
                return;
            }
            let mut facts = Vec::new();
            for (run, first, last) in ranges {
                let Some(known) = np.runs.get(&run) else { continue };
                let wanted = known.messages.iter().filter(|message| (first..=last).contains(&message.seq));
                facts.extend(wanted.map(|message| run_fact(run, message)));
            }
            self.say(host, Facts { facts }.into());
        }
    }

    pub(crate) fn np_recalls(&mut self, host: usize, run: RunId, tries: u32) {
        let disk = self.disk(host);
        let read = log::read(&disk, Name::Settled(run), run);
        let is_on = |shelf| disk.borrow().exists(Name::on(shelf, run));
        if self.np_run(host, run).is_some() {
            return; // it came while its record was looked for
        }
        match read {
            Ok(ledger) => {
                let facts = ledger.messages.iter().map(|message| run_fact(run, message)).collect();
                self.say(host, Facts { facts }.into());
            }
            Err(LedgerError::Damaged(_)) => self.report_damaged(host, run),
            Err(LedgerError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound && !is_on(Shelf::Settled) => {
                if is_on(Shelf::Quarantined) {
                    self.report_damaged(host, run);
                } else if is_on(Shelf::Live) {
                    if let Some(np) = self.np(host) {
                        np.runs.insert(run, Run::new(Keeper::Nobody));
                    }
                    self.np_read(host, run);
                } else {
                    self.say(host, NoRecord { run_id: convert::run_id_field(run) }.into());
                }
            }
            Err(LedgerError::Io(_)) if tries < RECALLS_MAX => {
                let at_ms = self.queue.now_ms() + RECALL_AGAIN_MS;
                self.errand_at(host, at_ms, Errand::Recall(run, tries + 1));
            }
            Err(LedgerError::Io(_)) => self.report_damaged(host, run),
        }
    }

    pub(crate) fn on_acks(&mut self, host: usize, acks: Acks) {
        if !acks.notice.is_empty() {
            let name = self.hosts[host].name.clone();
            self.oracle.on_trouble(&name, &acks.notice);
        }
        for ack in &acks.acks {
            let (Ok(run), Some(seq)) = (convert::run_id("RunPosition", &ack.run_id), ack.seq) else {
                return self.oracle.fail("an acknowledgement without a run or a number".to_owned());
            };
            self.oracle.on_acked(run, seq, &self.database);
            if let Some(np) = self.np(host) {
                np.outbox.on_acked(run, seq);
            }
            self.settle_if_over(host, run);
        }
        self.np_acked(host, acks.position.as_ref());
        self.np_settles(host, false);
    }

    /// Has a run moved to the settled ones when its outcome and all else is acknowledged and nobody works in its directory.
    pub(crate) fn settle_if_over(&mut self, host: usize, run: RunId) {
        let early = self.mutation == Some(Mutation::SettleBeforeAck);
        let Some(np) = self.np(host) else { return };
        let acked = np.outbox.acked(run).unwrap_or(0);
        let Some(known) = np.runs.get_mut(&run) else { return };
        let over = matches!(known.keeper, Keeper::Over) && known.ended.is_some();
        let acknowledged = acked == known.last_seq && acked > 0;
        if over && (acknowledged || early) && !known.is_moving && !known.is_reading {
            known.is_moving = true;
            np.settling.due.push_back(run);
        }
    }

    pub(crate) fn np_settles(&mut self, host: usize, urgent: bool) {
        let Some(np) = self.np(host) else { return };
        let Settling { due, is_busy } = &mut np.settling;
        if due.is_empty() || *is_busy || (!urgent && np.outbox.has_unsent()) {
            return;
        }
        *is_busy = true;
        let runs: Vec<RunId> = due.drain(..due.len().min(SETTLES_MAX)).collect();
        self.errand(host, Errand::Settle(runs));
    }

    pub(crate) fn np_moves(&mut self, host: usize, runs: Vec<RunId>) {
        let disk = self.disk(host);
        for run in runs {
            let moved = disk.borrow_mut().rename(Name::Live(run), Name::Settled(run), false);
            if moved.is_ok() {
                let ledger = log::read(&disk, Name::Settled(run), run);
                self.oracle.on_settled(run, ledger.ok().as_ref(), &self.database);
            }
            self.on_moved(host, run, moved);
        }
        if let Some(np) = self.np(host) {
            np.settling.is_busy = false;
        }
    }

    pub(crate) fn np_quarantines(&mut self, host: usize, run: RunId) {
        self.oracle.on_damaged(run);
        if let Some(known) = self.np_run(host, run) {
            (known.keeper, known.is_moving) = (Keeper::Quarantined, true);
            self.errand(host, Errand::Quarantine(run));
        }
    }

    pub(crate) fn np_sets_aside(&mut self, host: usize, run: RunId) {
        let moved = self.disk(host).borrow_mut().rename(Name::Live(run), Name::Quarantined(run), false);
        self.on_moved(host, run, moved);
    }

    fn on_moved(&mut self, host: usize, run: RunId, moved: std::io::Result<()>) {
        match moved {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                if let Some(known) = self.np_run(host, run) {
                    known.is_moving = false; // the tick tries again
                }
            }
            Ok(()) | Err(_) => {
                let Some(np) = self.np(host) else { return };
                let quarantined =
                    np.runs.remove(&run).is_some_and(|known| matches!(known.keeper, Keeper::Quarantined));
                np.outbox.forget(run);
                if quarantined {
                    self.report_damaged(host, run);
                }
            }
        }
    }

    /// Tries again what could not be done.
    pub(crate) fn np_retries_moves_and_reads(&mut self, host: usize) {
        let Some(np) = self.np(host) else { return };
        let all: Vec<RunId> = np.runs.keys().copied().collect();
        for run in all {
            let Some(known) = self.np_run(host, run) else { continue };
            let unstarted = matches!(known.keeper, Keeper::JobProcessor(_)) && known.started.is_none();
            if known.is_dirty || unstarted || matches!(known.keeper, Keeper::Nobody | Keeper::Unread) {
                self.np_read(host, run);
            } else if matches!(known.keeper, Keeper::Quarantined) && !known.is_moving {
                self.np_quarantines(host, run);
            } else {
                self.settle_if_over(host, run);
            }
        }
    }
}

fn run_fact(run: RunId, message: &Stored) -> RunFact {
    RunFact { run_id: convert::run_id_field(run), seq: Some(message.seq), fact: message.bytes.clone() }
}

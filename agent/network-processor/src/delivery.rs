//! Reading logs and sending what is in them, until the server has it; then settling.

use crate::agent::Agent;
use crate::disk::Seen;
use crate::event::Event;
use crate::run::{Capture, Keeper, Run};
use job::RunId;
use protocol::message::{Acks, Facts, RunFact};
use protocol::{Frame, convert};
use spool::{LedgerError, Shelf, Stored};
use std::collections::VecDeque;

/// Messages in one frame of facts.
const FACTS_PER_FRAME_MAX: usize = 512;
/// Bytes of messages in one frame of facts, well below what a frame may have.
const FACTS_BYTES_MAX: usize = 1 << 20;

/// Runs that are moved to the settled ones by one errand to the disk.
const SETTLES_MAX: usize = 256;

/// Runs that are over and wait to be moved to the settled ones. What is not delivered goes first: where runs lie makes no difference to anybody.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    due: VecDeque<RunId>,
    /// An errand is under way.
    busy: bool,
}

/// A run's messages that are sent outside the outbox: the run is settled.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) run_id: RunId,
    pub(crate) messages: Vec<Stored>,
}

impl Agent {
    /// Reads the run's log soon; what comes while it is being read is not missed.
    pub(crate) fn read(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        if run.reading || matches!(run.keeper, Keeper::Preparing | Keeper::Quarantined) {
            run.dirty = true;
            return;
        }
        (run.reading, run.dirty) = (true, false);
        let open_job = run.job.is_none() && run.ended.is_none();
        let durable_seq = if run.is_recorded { u64::MAX } else { run.last_seq };
        self.disk.spawn(move |disk| Event::Read(run_id, Box::new(disk.read(run_id, open_job, durable_seq))));
    }

    pub(crate) fn on_read(&mut self, run_id: RunId, seen: Result<Seen, LedgerError>) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        run.reading = false;
        let first = std::mem::take(&mut run.awaited);
        if first {
            os::crash::point("recover.amid-scan");
            self.unread = self.unread.saturating_sub(1);
        }
        let seen = match seen {
            Ok(seen) => seen,
            Err(LedgerError::Damaged(what)) => return self.quarantine(run_id, &what),
            Err(LedgerError::Io(e)) => {
                run.dirty = true; // the tick tries again
                if e.kind() == std::io::ErrorKind::WouldBlock {
                    return;
                }
                return tracing::warn!(run = %run_id, "its log cannot be read now: {e}");
            }
        };
        run.take(&seen);
        if run.ended.is_none() {
            run.job = seen.job.or(run.job.take());
        } else {
            run.job = None;
        }
        self.outbox.on_stored(run_id, self.runs.get(&run_id).map_or(0, |run| run.last_seq));
        self.keep(run_id, seen.holder);
        if self.runs.get(&run_id).is_some_and(|run| run.dirty) {
            self.read(run_id);
        }
        self.settle_if_over(run_id);
        if first && self.unread == 0 {
            self.greet_early();
        }
    }

    /// Sends what is stored and not sent, as far as the window and the link's room allow.
    pub(crate) fn pump(&mut self) {
        self.say_waiting();
        while self.sessions.has_room() {
            let ranges = self.outbox.next(FACTS_PER_FRAME_MAX);
            if ranges.is_empty() {
                return;
            }
            let mut facts = Vec::new();
            for (run_id, first, last) in ranges {
                let Some(run) = self.runs.get(&run_id) else { continue };
                let wanted = run.messages.iter().filter(|m| (first..=last).contains(&m.seq));
                facts.extend(wanted.map(|message| run_fact(run_id, message)));
            }
            self.send_facts(facts);
        }
    }

    /// Sends messages that are not in the outbox.
    pub(crate) fn send_delivered(&mut self, delivered: &[Delivered]) {
        let facts = delivered
            .iter()
            .flat_map(|d| d.messages.iter().map(|message| run_fact(d.run_id, message)))
            .collect();
        self.send_facts(facts);
    }

    fn send_facts(&mut self, facts: Vec<RunFact>) {
        for batch in batches(facts) {
            self.say(Frame::Facts(batch));
            os::crash::point("ack.after-send");
        }
    }

    pub(crate) fn on_acks(&mut self, session: u64, acks: Acks) {
        if !acks.notice.is_empty() {
            tracing::warn!("the server says: {}", acks.notice);
        }
        os::crash::point("ack.on-receipt");
        for ack in &acks.acks {
            let (Ok(run_id), Some(seq)) = (convert::run_id("RunPosition", &ack.run_id), ack.seq) else {
                return self.sessions.complain(session, "an acknowledgement without a run or a number");
            };
            self.outbox.on_acked(run_id, seq);
            self.settle_if_over(run_id);
            if let Some(catching_up) = &mut self.catching_up {
                catching_up.on_acked(session, run_id, seq);
            }
        }
        self.catch_up();
        if let Some(position) = &acks.position
            && let Ok(acked) = protocol::reconcile::read_position(position)
            && self.catching_up.is_none()
        {
            self.identity.acked = acked;
            self.identity.dirty = true;
        }
    }

    /// Moves a run to the settled ones when its outcome and all else is acknowledged and nobody works in its directory.
    pub(crate) fn settle_if_over(&mut self, run_id: RunId) {
        let acked = self.outbox.acked(run_id).unwrap_or(0);
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let cleared = run.capture == Capture::Nothing && !run.unswept;
        let over = matches!(run.keeper, Keeper::Over) && run.ended.is_some() && cleared;
        if over && acked == run.last_seq && acked > 0 && !run.moving && !run.reading {
            run.moving = true;
            self.settling.due.push_back(run_id);
        }
    }

    /// Moves runs that wait for it, many by one errand, unless messages wait to be sent and it is not `urgent`.
    pub(crate) fn settle_due(&mut self, urgent: bool) {
        let Settling { due, busy } = &mut self.settling;
        if due.is_empty() || *busy || (!urgent && self.outbox.has_unsent()) {
            return;
        }
        *busy = true;
        let runs: Vec<RunId> = due.drain(..due.len().min(SETTLES_MAX)).collect();
        let settled = self.settled.clone();
        self.disk.spawn(move |disk| {
            let settle = |run_id| {
                os::crash::point("ack.before-rename");
                let moved = disk.root.move_to(run_id, Shelf::Live, Shelf::Settled);
                if moved.is_ok() {
                    settled.add(run_id);
                }
                (run_id, moved)
            };
            Event::Settled(runs.into_iter().map(settle).collect())
        });
    }

    pub(crate) fn on_settled(&mut self, moved: Vec<(RunId, std::io::Result<()>)>) {
        self.settling.busy = false;
        for (run_id, moved) in moved {
            self.on_moved(run_id, moved);
        }
    }

    fn quarantine(&mut self, run_id: RunId, what: &str) {
        tracing::error!(run = %run_id, "set aside into quarantine: {what}");
        if let Some(run) = self.runs.get_mut(&run_id) {
            (run.keeper, run.moving) = (Keeper::Quarantined, true);
        }
        self.disk.spawn(move |disk| {
            Event::Moved(run_id, disk.root.move_to(run_id, Shelf::Live, Shelf::Quarantined))
        });
    }

    pub(crate) fn on_moved(&mut self, run_id: RunId, moved: std::io::Result<()>) {
        match moved {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(run = %run_id, "cannot be moved to its shelf now: {e}");
                if let Some(run) = self.runs.get_mut(&run_id) {
                    run.moving = false; // the tick tries again
                }
            }
            _ => {
                let quarantined =
                    self.runs.remove(&run_id).is_some_and(|run| matches!(run.keeper, Keeper::Quarantined));
                self.outbox.forget(run_id);
                if quarantined {
                    self.report_damaged(run_id);
                }
            }
        }
    }

    /// Tries again what could not be done: moves, and reads of logs that could not be read.
    pub(crate) fn retry_moves_and_reads(&mut self) {
        let all: Vec<RunId> = self.runs.keys().copied().collect();
        for run_id in all {
            let Some(run) = self.runs.get(&run_id) else { continue };
            let unstarted = matches!(run.keeper, Keeper::JobProcessor(_)) && run.started.is_none();
            if run.dirty || unstarted || matches!(run.keeper, Keeper::Nobody | Keeper::Unread) {
                self.read(run_id);
            } else if matches!(run.keeper, Keeper::Quarantined) && !run.moving {
                self.quarantine(run_id, "it could not be moved before");
            } else {
                self.settle_if_over(run_id);
            }
        }
    }
}

impl Run {
    /// Takes over what a log says.
    fn take(&mut self, seen: &Seen) {
        let ledger = &seen.ledger;
        let new = ledger.messages.iter().filter(|message| message.seq > self.last_seq);
        self.messages.extend(new.cloned());
        self.last_seq = self.last_seq.max(ledger.last_seq());
        self.accepted_boot = ledger.accepted.as_ref().and_then(|accepted| accepted.boot_id.clone());
        self.started.clone_from(&ledger.started);
        self.stop_cause = ledger.stop_cause();
        self.pauses = ledger.pauses;
        self.ended.clone_from(&ledger.ended);
        self.output_limit = ledger.spec.output_limit().unwrap_or_default();
        self.leftovers = ledger.spec.leftovers_policy();
        if self.capture == Capture::Unread {
            self.capture = if ledger.spec.capture.is_empty() { Capture::Nothing } else { Capture::Due };
        }
        (self.timeout_ms, self.grace_ms) = (ledger.spec.timeout_ms, ledger.spec.grace_ms);
    }
}

/// Facts in frames of a size that a frame may have.
pub(crate) fn batches(facts: Vec<RunFact>) -> Vec<Facts> {
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for fact in facts {
        bytes += fact.fact.len();
        batch.push(fact);
        if bytes >= FACTS_BYTES_MAX {
            batches.push(Facts { facts: std::mem::take(&mut batch) });
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(Facts { facts: batch });
    }
    batches
}

pub(crate) fn run_fact(run_id: RunId, message: &Stored) -> RunFact {
    RunFact { run_id: convert::run_id_field(run_id), seq: Some(message.seq), fact: message.bytes.clone() }
}

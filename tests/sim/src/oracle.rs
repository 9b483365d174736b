//! What really happened, and whether what is told agrees with it. The first breach ends the simulation.
//!
//! | promise                                             | looked at                                                            |
//! |-----------------------------------------------------|----------------------------------------------------------------------|
//! | a run is executed at most once                      | when the start gate opens                                            |
//! | what is told to be never executed never is          | when that is committed, and at every execution                       |
//! | an outcome is what happened                         | when it is committed                                                 |
//! | Unknown has a true reason                           | when it is committed                                                 |
//! | an outcome that was recorded is not lost            | when another one is committed                                        |
//! | what is acknowledged is in the database             | when the agent reads the acknowledgement                             |
//! | what is settled is in the database                  | when the directory is moved                                          |
//! | a final status never changes                        | at every commit                                                      |
//! | no server of an earlier epoch is obeyed             | when an agent takes a server for its own, and at every order         |
//! | in the end everything is settled                    | at the end                                                           |

use crate::database::Database;
use crate::queue::Ms;
use crate::scenario::ABSENT;
use job::{End, JobId, RunId, Status, Witness};
use protocol::message::{Fact, FactBody};
use scheduler::RunRecord;
use spool::Ledger;
use std::collections::BTreeMap;

/// The truth about one run.
#[derive(Clone, Debug, Default)]
struct Truth {
    host: String,
    executed_at_ms: Option<Ms>,
    end: Option<End>,
    /// An outcome was written, and whoever wrote it went on because it was durable.
    is_recorded: bool,
    jp_died: bool,
    power_cut: bool,
    is_damaged: bool,
    /// It was committed that it never executed.
    told_unexecuted: bool,
}

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    runs: BTreeMap<RunId, Truth>,
    epochs: BTreeMap<String, u64>,
    incarnations: BTreeMap<String, u64>,
    pub(crate) failure: Option<String>,
    pub(crate) executions: u64,
    pub(crate) unknown: u64,
    pub(crate) went_back: u64,
}

impl Oracle {
    /// A promise was broken. The first one counts.
    pub(crate) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    fn truth(&mut self, run: RunId) -> &mut Truth {
        self.runs.entry(run).or_default()
    }

    pub(crate) fn on_accepted(&mut self, run: RunId, host: &str) {
        let truth = self.truth(run);
        host.clone_into(&mut truth.host);
    }

    pub(crate) fn on_executed(&mut self, run: RunId, host: &str, now_ms: Ms) {
        self.executions += 1;
        let truth = self.truth(run);
        let before = truth.executed_at_ms.replace(now_ms);
        let told = truth.told_unexecuted;
        if let Some(before) = before {
            self.fail(format!("run {run} was executed at {before} ms, and again at {now_ms} ms on {host}"));
        }
        if told {
            self.fail(format!("run {run} was told to be never executed, and is executed on {host}"));
        }
    }

    pub(crate) fn on_job_ended(&mut self, run: RunId, end: End) {
        self.truth(run).end = Some(end);
    }

    pub(crate) fn on_jp_died(&mut self, run: RunId) {
        self.truth(run).jp_died = true;
    }

    /// A network-processor begins, after it counted its start.
    pub(crate) fn on_begun(&mut self, host: &str, incarnation: u64) {
        if let Some(before) =
            self.incarnations.insert(host.to_owned(), incarnation).filter(|before| incarnation <= *before)
        {
            self.fail(format!("{host} counts start {incarnation} after start {before}"));
        }
    }

    /// Somebody complains of an agent in good order. An account that came late, from a network-processor that is dead, is taken for that of a data
    /// root which went back in time: counted here, since it does no other harm.
    pub(crate) fn on_trouble(&mut self, agent: &str, text: &str) {
        if text.contains("went back in time (start") {
            self.went_back += 1;
            return;
        }
        self.fail(format!("{agent} is in good order and said to be in trouble: {text}"));
    }

    pub(crate) fn on_power_cut(&mut self, runs: &[RunId]) {
        for run in runs {
            self.truth(*run).power_cut = true;
        }
    }

    pub(crate) fn on_recorded(&mut self, run: RunId) {
        self.truth(run).is_recorded = true;
    }

    pub(crate) fn on_damaged(&mut self, run: RunId) {
        self.truth(run).is_damaged = true;
    }

    pub(crate) fn on_established(&mut self, host: &str, epoch: u64) {
        let highest = self.epochs.entry(host.to_owned()).or_default();
        if epoch < *highest {
            let highest = *highest;
            self.fail(format!(
                "{host} obeyed epoch {highest} and takes a server of epoch {epoch} for its own"
            ));
        } else {
            *highest = epoch;
        }
    }

    pub(crate) fn on_obeyed(&mut self, host: &str, epoch: u64) {
        let highest = self.epochs.get(host).copied().unwrap_or(0);
        if epoch < highest {
            self.fail(format!("{host} obeyed epoch {highest} and takes an order of epoch {epoch}"));
        }
    }

    pub(crate) fn on_acked(&mut self, run: RunId, seq: u64, database: &Database) {
        if !database.has_up_to(run, seq) {
            self.fail(format!(
                "messages of run {run} up to {seq} are acknowledged and not all in the database"
            ));
        }
    }

    pub(crate) fn on_settled(&mut self, run: RunId, ledger: Option<&Ledger>, database: &Database) {
        let Some(ledger) = ledger else { return };
        if ledger.ended.is_none() {
            self.fail(format!("run {run} is settled without an outcome"));
        }
        for message in &ledger.messages {
            match database.fact(run, message.seq) {
                Some(bytes) if bytes == message.bytes => {}
                Some(_) => {
                    self.fail(format!("message {} of run {run} is another one in the database", message.seq));
                }
                None => self.fail(format!(
                    "run {run} is settled, and message {} is not in the database",
                    message.seq
                )),
            }
        }
    }

    /// A run is committed.
    pub(crate) fn on_run(&mut self, before: Option<&RunRecord>, run: &RunRecord) {
        if let Some(before) = before {
            if before.status != run.status && !before.status.may_become(run.status) {
                self.fail(format!("run {} was {} and became {}", run.id, before.status, run.status));
            }
            if run.acked_seq < before.acked_seq {
                self.fail(format!(
                    "run {} went back from message {} to {}",
                    run.id, before.acked_seq, run.acked_seq
                ));
            }
        }
        if run.late.is_some() && before.is_none_or(|before| before.late.is_none()) {
            self.fail(format!(
                "run {} was {} and has a true outcome after all: {:?}",
                run.id, run.status, run.reason
            ));
        }
        if run.status.is_final() && before.is_none_or(|before| !before.status.is_final()) {
            self.on_outcome(run);
        }
    }

    fn on_outcome(&mut self, run: &RunRecord) {
        let truth = self.truth(run.id).clone();
        let reason = run.reason.clone().unwrap_or_default();
        let told = match (run.exit_code, run.signal) {
            (Some(code), _) => Some(End::Exited { code }),
            (None, Some(signal)) => Some(End::Signaled { signal, core: run.core }),
            (None, None) => None,
        };
        let wrong = match run.status {
            Status::Unknown => {
                self.unknown += 1;
                why_not_unknown(&truth, &reason)
            }
            Status::Completed | Status::Error | Status::Killed if told.is_some() => (told != truth.end
                || run.witness.is_none_or(|witness| witness == Witness::None))
            .then(|| format!("it ended {:?}", truth.end)),
            Status::Completed | Status::Killed => Some("nobody said how it ended".to_owned()),
            Status::Error | Status::Canceled => {
                self.truth(run.id).told_unexecuted = true;
                truth.executed_at_ms.map(|at_ms| format!("it was executed at {at_ms} ms"))
            }
            Status::Abandoned => Some("nobody gave it up".to_owned()),
            Status::Scheduled
            | Status::Held
            | Status::Queued
            | Status::Waiting
            | Status::Dispatched
            | Status::Running
            | Status::Suspended => None,
        };
        if let Some(wrong) = wrong {
            self.fail(format!(
                "run {} on {} is told to be {} ({told:?}, {reason:?}), but {wrong}; the truth: {truth:?}",
                run.id, run.agent, run.status
            ));
        }
    }

    /// Nothing may be left to do.
    pub(crate) fn check_end(&mut self, database: &Database, why: impl Fn(JobId) -> String) {
        for job in database.jobs.values() {
            if !job.status.is_final() {
                self.fail(format!("job {} is {} for ever: {}", job.id, job.status, why(job.id)));
            }
        }
        for (run, record) in &database.runs {
            if !record.status.is_final() {
                self.fail(format!("run {run} is {} for ever", record.status));
            }
            let bodies = database.facts.get(run).into_iter().flatten();
            let ends = bodies.filter(|(_, bytes)| {
                matches!(Fact::read(bytes).ok().and_then(|fact| fact.body), Some(FactBody::Ended(_)))
            });
            if ends.count() > 1 {
                self.fail(format!("run {run} has two outcomes"));
            }
        }
    }
}

/// What is wrong with an Unknown for that reason, if something is.
fn why_not_unknown(truth: &Truth, reason: &str) -> Option<String> {
    if truth.is_recorded && !truth.is_damaged {
        return Some("its outcome was on disk".to_owned());
    }
    let is_true = if reason.contains("host restarted") {
        truth.power_cut
    } else if reason.contains("nobody saw") {
        truth.jp_died
    } else if reason.contains("damaged") {
        truth.is_damaged
    } else {
        false
    };
    (!is_true).then(|| "that reason is not true".to_owned())
}

/// Whether a job's program is one that does not exist.
pub(crate) fn is_absent(command: &[Vec<u8>]) -> bool {
    command.first().is_some_and(|program| program == ABSENT.as_bytes())
}

//! The monitor as a witness: it holds a pidfd of every running job; when a job-processor goes without having recorded the outcome, the job is an
//! orphan, comes to the monitor as the reaper of orphans, and its end is recorded here.
//!
//! | what the orphan's end shows                              | recorded                                                   |
//! |----------------------------------------------------------|------------------------------------------------------------|
//! | our child's wait status                                  | that, witness `monitor`                                    |
//! | another's child, as a zombie: the network-processor is the nearer reaper while it lives | nothing for a moment, since the parent knows more; then what the zombie tells, witness `pidfd` |
//! | the same, and we may not ask (another user's)            | nothing; it comes to us when its parent goes               |
//! | reaped by another, and the kernel tells                  | that, witness `pidfd`                                      |
//! | reaped, and nobody tells                                 | nothing here: the network-processor has the last pidfd and decides |
//! | it executed nothing                                      | NEVER STARTED: what it ended with was no job's             |
//! | STARTED is not in the log, or is of another process      | nothing: it never executed                                 |

use job::{End, RunId, Witness};
use os::pidfd::Pidfd;
use os::wait::{self, Waited};
use spool::{DataRoot, LedgerError, RecordError, Shelf, TakeError};

/// Between two tries to record, milliseconds.
const AGAIN_MS: u64 = 50;
/// After this many tries they become rarer.
const QUICK_TRIES: u32 = 40;
/// Then this is between them, milliseconds.
const AGAIN_SLOWLY_MS: u64 = 1_000;
/// Tries that are left to the parent of a job that is not our child.
const PARENT_TRIES: u32 = 10;
/// Tries to learn how a job ended that another reaped.
const FOREIGN_TRIES_MAX: u32 = 20;

/// A job whose pidfd was handed over.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) run_id: RunId,
    pub(crate) pid: u32,
    pub(crate) pidfd: Pidfd,
}

/// A job without a job-processor.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) held: Held,
    /// Set once it ended: when to try to record, `CLOCK_BOOTTIME` milliseconds.
    pub(crate) due_ms: Option<u64>,
    tries: u32,
}

/// What became of a try to record an orphan's end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It is settled here: recorded, or nothing to record.
    Over,
    /// Try again then.
    Again(u64),
}

/// What can be seen of an orphan's end.
enum Seen {
    End(End, Witness, Option<Waited>),
    NotYet,
    Never,
}

impl Orphan {
    pub(crate) fn new(held: Held) -> Orphan {
        Orphan { held, due_ms: None, tries: 0 }
    }

    /// One that the image of the monitor before an exec held already.
    pub(crate) fn taken_over(held: Held, due_ms: Option<u64>, tries: u32) -> Orphan {
        Orphan { held, due_ms, tries }
    }

    /// How often it was tried to record its end.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// Looks at the end, records it, then reaps.
    pub(crate) fn try_record(&mut self, root: &DataRoot, now_ms: u64) -> Tried {
        self.tries += 1;
        let Held { run_id, pid, .. } = &self.held;
        let (end, witness, waited) = match self.end() {
            Seen::End(end, witness, waited) => (end, witness, waited),
            Seen::NotYet => return self.again(now_ms),
            Seen::Never => {
                tracing::warn!(run = %run_id, pid, "nobody here saw how the orphan ended; the network-processor has to decide");
                return Tried::Over;
            }
        };
        let dir = root.run(Shelf::Live, *run_id);
        os::crash::point("orphan.before-record");
        let recorded = spool::record_in_place_of(&dir, |ledger| {
            // The process that is held must be the one that was announced: an earlier job-processor's child, which never
            // executed, says nothing about the run.
            ledger.started.as_ref().filter(|started| started.pid == Some(*pid))?;
            Some(spool::witnessed(ledger, end, witness, waited.as_ref()))
        });
        match recorded {
            Ok(true) => tracing::info!(run = %run_id, pid, ?end, %witness, "recorded the end of an orphan"),
            Ok(false) => {
                tracing::info!(run = %run_id, pid, "the orphan's outcome was known already, or it never executed")
            }
            Err(RecordError::Take(TakeError::Ledger(LedgerError::Damaged(what)))) => {
                tracing::error!(run = %run_id, pid, ?end, "the orphan ended, but its log cannot take it: {what}");
            }
            // The job-processor is still on its way out, or the disk fails now.
            Err(
                e @ (RecordError::Take(TakeError::Held | TakeError::Ledger(LedgerError::Io(_)))
                | RecordError::Write(_)),
            ) => {
                if self.tries == QUICK_TRIES {
                    tracing::warn!(run = %run_id, pid, ?end, "the orphan's end is not recorded yet, trying again: {e}");
                }
                return if dir.path().exists() { self.again(now_ms) } else { Tried::Over };
            }
        }
        os::crash::point("orphan.after-record");
        let _ = wait::reap(*pid); // not our child: somebody else reaps it
        let _ = spool::wake(&dir); // a hint
        Tried::Over
    }

    fn end(&self) -> Seen {
        let Held { pid, pidfd, .. } = &self.held;
        match wait::peek(pidfd) {
            Ok(Some(waited)) => {
                return match End::from_wait_status(waited.wait_status) {
                    Some(end) => Seen::End(end, Witness::Monitor, Some(waited)),
                    None => Seen::NotYet,
                };
            }
            Ok(None) => return Seen::NotYet,
            Err(_) => {} // another's child
        }
        let reaped = pidfd.is_reaped().unwrap_or(true);
        if !reaped && self.tries <= PARENT_TRIES {
            return Seen::NotYet;
        }
        let status = pidfd.wait_status(*pid).unwrap_or(None);
        match status.and_then(End::from_wait_status) {
            Some(end) => Seen::End(end, Witness::Pidfd, None),
            None if !reaped || self.tries < FOREIGN_TRIES_MAX => Seen::NotYet,
            None => Seen::Never,
        }
    }

    fn again(&mut self, now_ms: u64) -> Tried {
        let pause = if self.tries < QUICK_TRIES { AGAIN_MS } else { AGAIN_SLOWLY_MS };
        Tried::Again(now_ms + pause)
    }
}

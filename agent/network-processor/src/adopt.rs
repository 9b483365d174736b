//! Who looks after a run: its job-processor while that lives, else we.
//!
//! | found                                      | means                          | what is done                                                        |
//! |--------------------------------------------|--------------------------------|---------------------------------------------------------------------|
//! | lock held                                  | a job-processor is at work     | watch it                                                            |
//! | lock held by the monitor                   | it records an orphan's end     | look again when it has (`Disk::read`)                                |
//! | no STARTED, lock free                      | never executed                 | another job-processor (NEVER STARTED after five, or if it is to stop) |
//! | STARTED, no ENDED, lock free, this boot    | the job-processor died         | adopt: control the job; we, the monitor, a pidfd, or nobody tells its end |
//! | STARTED, no ENDED, lock free, another boot | the host restarted             | Unknown (host restarted)                                            |
//! | ENDED, lock free                           | over                           | send; settle when acknowledged                                      |
//! | unreadable                                 | disk damage                    | quarantine; Unknown (store damaged)                                 |

use crate::agent::{Agent, LAUNCHES_MAX};
use crate::control;
use crate::event::Event;
use crate::run::{Adopted, Capture, Keeper, Run};
use job::output::Watch;
use job::supervise::{GRACE_MS_DEFAULT, State};
use job::{End, Never, Outcome, RunId, Witness};
use os::clock;
use os::pidfd::Pidfd;
use os::wait::{self, Waited};
use protocol::message::{FactBody, Note};
use spool::{Ledger, NotKept, RecordError, TakeError, Unwritten};

/// How long the witnesses have to speak after a job was seen to be gone, milliseconds: a reaper needs a moment.
const WITNESS_MS_MAX: u64 = 10_000;
/// Between two questions, milliseconds.
const ASK_AGAIN_MS: u64 = 300;
/// Between two tries to keep files, milliseconds; it doubles up to the longest.
const KEEP_AGAIN_MS_MIN: u64 = 2_000;
const KEEP_AGAIN_MS_MAX: u64 = 60_000;
/// So long files that cannot be written wait, milliseconds; then they are noted, so that the run can be settled.
const KEEP_MS_MAX: u64 = 3_600_000;

impl Agent {
    /// Decides who looks after the run, from what was just read.
    pub(crate) fn keep(&mut self, run_id: RunId, holder: Option<(u32, Pidfd)>) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        match run.keeper {
            Keeper::Nobody => {}
            Keeper::Unread => run.unswept = true, // as far as we know
            // They are told when it goes; what was read while it lives does not matter here.
            Keeper::JobProcessor(_) => {
                self.deliver_stop(run_id);
                return self.deliver_pause(run_id);
            }
            Keeper::Adopted(_) if run.ended.is_some() => {
                if let Some(pid) = run.started.as_ref().and_then(|started| started.pid) {
                    let _ = wait::reap(pid); // if it is our child; its end is on disk
                }
                return self.set_over(run_id);
            }
            Keeper::Preparing | Keeper::Adopted(_) | Keeper::Over | Keeper::Quarantined => return,
        }
        if let Some((pid, pidfd)) = holder {
            run.keeper = Keeper::JobProcessor(pid);
            self.watch(pidfd, Event::JobProcessorGone(run_id));
            self.deliver_stop(run_id);
            return self.deliver_pause(run_id);
        }
        if run.ended.is_some() {
            self.set_over(run_id);
        } else if run.started.is_none() {
            if run.is_of_another_boot(&self.disk.boot_id) && self.sessions.active_link().is_none() {
                run.keeper = Keeper::Nobody;
                return tracing::info!(run = %run_id, "was accepted in another boot: waits until the server has let this host in");
            }
            self.start_again(run_id);
        } else {
            self.adopt(run_id);
        }
    }

    /// The outcome is known and nobody of ours works on the run. What its job-processor could not do behind it is done here.
    fn set_over(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        run.keeper = Keeper::Over;
        self.keep_files(run_id);
        self.clear_up(run_id);
    }

    /// Keeps the files that the job's spec asks for if its job-processor did not. The run is not settled before.
    fn keep_files(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id).filter(|run| run.capture == Capture::Due) else { return };
        let now_ms = clock::boottime_ms();
        let since_ms = *run.keeping.since_ms.get_or_insert(now_ms);
        if now_ms < run.keeping.again_at_ms {
            return;
        }
        run.capture = Capture::Trying;
        let unwritten = if now_ms >= since_ms + KEEP_MS_MAX { Unwritten::Note } else { Unwritten::Wait };
        self.disk.spawn(move |disk| Event::FilesKept(run_id, disk.keep_files(run_id, unwritten)));
    }

    pub(crate) fn on_files_kept(&mut self, run_id: RunId, kept: Result<(), NotKept>) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        if let Err(e) = kept {
            let keeping = &mut run.keeping;
            keeping.pause_ms = (keeping.pause_ms * 2).clamp(KEEP_AGAIN_MS_MIN, KEEP_AGAIN_MS_MAX);
            keeping.again_at_ms = clock::boottime_ms() + keeping.pause_ms;
            tracing::warn!(run = %run_id, again_ms = keeping.pause_ms, "files of a job are not kept yet, trying again: {e}");
            run.capture = Capture::Due;
            return;
        }
        run.capture = Capture::Nothing;
        self.read(run_id);
    }

    /// Tries again to keep files that could not be kept.
    pub(crate) fn retry_files(&mut self) {
        let due = self
            .runs
            .iter()
            .filter(|(_, run)| matches!(run.keeper, Keeper::Over) && run.capture == Capture::Due);
        let due: Vec<RunId> = due.map(|(run_id, _)| *run_id).collect();
        due.into_iter().for_each(|run_id| self.keep_files(run_id));
    }

    /// Looks at the output of an adopted run if it has a limit and it is time.
    fn look_at_output(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let Keeper::Adopted(adopted) = &mut run.keeper else { return };
        let due = |watch: &Watch| watch.next_look_ms() <= clock::boottime_ms();
        let Some(mut watch) = adopted.output.take_if(|watch| due(watch)) else { return };
        self.disk.spawn(move |disk| {
            let dir = disk.root.run(spool::Shelf::Live, run_id);
            let found = spool::output::look(&dir, &mut watch, clock::boottime_ms());
            for text in found.notes {
                if let Err(e) = disk.note(run_id, FactBody::Note(Note { text })) {
                    tracing::warn!(run = %run_id, "a note could not be written down: {e}");
                }
            }
            Event::OutputSeen(run_id, watch, found.kill)
        });
    }

    pub(crate) fn on_output_seen(&mut self, run_id: RunId, watch: Watch, kill: Option<String>) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let grace_ms = run.grace_ms.unwrap_or(GRACE_MS_DEFAULT);
        let Keeper::Adopted(adopted) = &mut run.keeper else { return };
        adopted.output = Some(watch);
        if let Some(by) = kill {
            self.step_adopted(run_id, job::supervise::Event::Stop { by, grace_ms });
        }
    }

    /// The server has let this host in: accepted runs that waited for that are looked at again.
    pub(crate) fn start_awaited(&mut self) {
        let waits = |run: &Run| {
            matches!(run.keeper, Keeper::Nobody)
                && run.started.is_none()
                && run.ended.is_none()
                && run.is_of_another_boot(&self.disk.boot_id)
        };
        let waiting = self.runs.iter().filter(|(_, run)| waits(run)).map(|(run_id, _)| *run_id);
        let waiting: Vec<RunId> = waiting.collect();
        waiting.into_iter().for_each(|run_id| self.read(run_id));
    }

    fn start_again(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        run.keeper = Keeper::Preparing;
        if run.stop.is_some() || run.launches >= LAUNCHES_MAX {
            let reason = format!(
                "{LAUNCHES_MAX} job-processors ended before they could start it; see trace/job-processor.log on the agent"
            );
            return self.never_starts(run_id, reason);
        }
        run.launches += 1;
        self.launcher.relaunch(&self.disk, run_id);
    }

    /// Records that the run never starts: because that was asked for, else for that reason.
    pub(crate) fn never_starts(&mut self, run_id: RunId, reason: String) {
        let stop = self.runs.get(&run_id).and_then(|run| run.stop.as_ref());
        let asked = stop.map(|wanted| format!("killed by {} before it started", wanted.stop.by));
        let why = if asked.is_some() { Never::Canceled } else { Never::Failed };
        self.record(run_id, Outcome::NeverStarted { reason: asked.unwrap_or(reason), why });
    }

    fn adopt(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let Some(started) = run.started.clone() else { return };
        if started.boot_id.as_deref() != Some(&self.disk.boot_id[..]) {
            run.keeper = Keeper::Nobody;
            let reason =
                "the host restarted while the job ran (its STARTED record is of an earlier boot)".to_owned();
            return self.record(run_id, Outcome::Unknown { reason });
        }
        let state = match run.stop_cause.clone() {
            // Its job-processor died while it was ending the job.
            Some(cause) => {
                let kill_at_ms = clock::boottime_ms() + run.grace_ms.unwrap_or(GRACE_MS_DEFAULT);
                State::Stopping { cause, kill_at_ms }
            }
            None => {
                let started_ms = started.boottime_ms.unwrap_or(0);
                State::adopted(started_ms, run.timeout_ms, run.grace_ms, run.pauses)
            }
        };
        let pauses = run.pauses;
        let job = run.job.take();
        tracing::warn!(run = %run_id, pid = started.pid, alive = job.is_some(), "its job-processor died: adopted");
        os::crash::point("recover.on-adoption");
        let gone_ms = job.is_none().then(clock::boottime_ms);
        let watched = job.as_ref().and_then(|job| job.try_clone().ok());
        run.unswept = true;
        let output = run.output_limit.map(|limit| Watch::new(limit, clock::boottime_ms()));
        run.keeper = Keeper::Adopted(Adopted { job, state, output, gone_ms, monitor: None, busy: false });
        match watched {
            Some(pidfd) => {
                self.tell_monitor(run_id);
                self.watch(pidfd, Event::JobGone(run_id));
            }
            None => self.ask_witnesses(run_id),
        }
        self.stand_as_logged(run_id, &started, pauses);
        self.deliver_stop(run_id);
        self.deliver_pause(run_id);
    }

    pub(crate) fn on_job_gone(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let Keeper::Adopted(adopted) = &mut run.keeper else { return };
        adopted.gone_ms.get_or_insert_with(clock::boottime_ms);
        if adopted.busy {
            return;
        }
        // Our child since its job-processor, which was one too, died: a zombie until its end is recorded.
        let waited = adopted.job.as_ref().and_then(|job| wait::peek(job).ok().flatten());
        match waited.and_then(|waited| Some((End::from_wait_status(waited.wait_status)?, waited))) {
            Some((end, waited)) => self.record_end(run_id, end, Some(waited)),
            None => self.ask_witnesses(run_id),
        }
    }

    /// Asks the monitor whether it is going to record the end.
    pub(crate) fn ask_witnesses(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let Keeper::Adopted(adopted) = &mut run.keeper else { return };
        if adopted.busy || adopted.gone_ms.is_none() {
            return;
        }
        adopted.busy = true;
        self.disk.ask(move |disk| Event::Asked(run_id, control::ask_monitor(&disk.root, run_id)));
    }

    /// The monitor holds it: it will wake us. Otherwise the kernel may tell; and when nobody told for long enough, nobody will.
    pub(crate) fn on_asked(&mut self, run_id: RunId, answer: Option<bool>) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let Keeper::Adopted(adopted) = &mut run.keeper else { return };
        adopted.busy = false;
        if answer == Some(true) {
            return self.read(run_id); // the tick asks again
        }
        let pid = run.started.as_ref().and_then(|started| started.pid).unwrap_or(0);
        let status = adopted.job.as_ref().and_then(|job| job.wait_status(pid).ok().flatten());
        let waited_ms = clock::boottime_ms().saturating_sub(adopted.gone_ms.unwrap_or(0));
        if let Some(end) = status.and_then(End::from_wait_status) {
            self.record_end(run_id, end, None);
        } else if adopted.job.is_none() || waited_ms >= WITNESS_MS_MAX {
            let monitor =
                if answer.is_some() { "the monitor did not hold it" } else { "no monitor was there" };
            let kernel = if adopted.job.is_some() {
                "the kernel kept no exit information"
            } else {
                "it was gone before anybody could hold it"
            };
            let reason =
                format!("the job-processor died and nobody saw how the job ended: {monitor}, and {kernel}");
            self.record(run_id, Outcome::Unknown { reason });
        }
    }

    /// Records an outcome where no job-processor can.
    pub(crate) fn record(&mut self, run_id: RunId, outcome: Outcome) {
        self.record_as(run_id, move |ledger| still_true(outcome, ledger));
    }

    /// Records how the process of an adopted run ended.
    fn record_end(&mut self, run_id: RunId, end: End, waited: Option<Waited>) {
        self.record_as(run_id, move |ledger| {
            ledger.started.as_ref()?;
            Some(spool::witnessed(ledger, end, Witness::Pidfd, waited.as_ref()))
        });
    }

    fn record_as(&mut self, run_id: RunId, decide: impl FnOnce(&Ledger) -> Option<Outcome> + Send + 'static) {
        if let Some(Keeper::Adopted(adopted)) = self.runs.get_mut(&run_id).map(|run| &mut run.keeper) {
            adopted.busy = true;
        }
        self.disk.spawn(move |disk| {
            let recorded = disk.record(run_id, decide);
            Event::Recorded(
                run_id,
                match recorded {
                    Ok(_) | Err(RecordError::Take(TakeError::Held)) => Ok(()),
                    Err(e) => Err(e.to_string()),
                },
            )
        });
    }

    pub(crate) fn on_recorded(&mut self, run_id: RunId, recorded: Result<(), String>) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        match &mut run.keeper {
            Keeper::Adopted(adopted) => adopted.busy = false,
            keeper @ (Keeper::Preparing | Keeper::Nobody | Keeper::Unread) => *keeper = Keeper::Nobody,
            Keeper::JobProcessor(_) | Keeper::Over | Keeper::Quarantined => {}
        }
        if let Err(e) = recorded {
            tracing::error!(run = %run_id, "an outcome is not recorded yet, trying again: {e}");
            run.dirty = true;
        } else {
            self.read(run_id);
        }
    }

    /// The clock for adopted runs: their time-outs and kills, and their witnesses.
    pub(crate) fn tick_adopted(&mut self) {
        let adopted: Vec<_> = self.adopted().map(|(run_id, adopted)| (run_id, adopted.gone_ms)).collect();
        let now_ms = clock::boottime_ms();
        for (run_id, gone_ms) in adopted {
            match gone_ms {
                None => {
                    self.step_adopted(run_id, job::supervise::Event::Tick);
                    self.look_at_output(run_id);
                }
                Some(gone_ms) if now_ms.saturating_sub(gone_ms) >= ASK_AGAIN_MS => self.on_job_gone(run_id),
                Some(_) => {}
            }
        }
    }
}

/// The outcome as the log under its lock lets it be: nothing "never started" that a job-processor started meanwhile, nothing unknown that is not known to
/// have started.
fn still_true(outcome: Outcome, ledger: &Ledger) -> Option<Outcome> {
    let needs_start = !matches!(outcome, Outcome::NeverStarted { .. });
    (needs_start == ledger.started.is_some()).then_some(outcome)
}

//! Who looks after a run whose job-processor is gone, and how it is told to end: mirrors `agent/network-processor/src/{adopt,control}.rs`.

use crate::host::{Holder, Life, Parent};
use crate::job_processor::stopping;
use crate::log;
use crate::mutation::Mutation;
use crate::network_processor::{Errand, Verdict};
use crate::queue::Ms;
use crate::run::{Adopted, Delivery, Keeper, Run};
use crate::world::{Event, World};
use job::supervise::{Action, Event as Happened, GRACE_MS_DEFAULT, State};
use job::{End, Never, Outcome, RunId, Witness};
use protocol::message::{FactBody, Stop, Stopping};
use spool::Ledger;
use std::collections::BTreeSet;

/// Job-processors that are started for one run before it is given up (`LAUNCHES_MAX`).
const LAUNCHES_MAX: u32 = 5;
/// How long the witnesses have to speak (`WITNESS_MS_MAX`), and between two questions (`ASK_AGAIN_MS`).
const WITNESS_MS_MAX: Ms = 10_000;
const ASK_AGAIN_MS: Ms = 300;
/// Until an end that was seen is told, milliseconds.
const HEARD_MS_MAX: Ms = 5;

impl World {
    /// Decides who looks after the run, from what was just read.
    pub(crate) fn keep(&mut self, host: usize, run: RunId, holder: Option<u32>) {
        let boot_id = self.hosts[host].boot_id;
        let is_let_in = self.np(host).is_some_and(|np| np.active.is_some());
        let Some(known) = self.np_run(host, run) else { return };
        let is_of_another_boot = known.accepted_boot.as_deref().is_some_and(|accepted| accepted != boot_id);
        match &known.keeper {
            Keeper::Nobody | Keeper::Unread => {}
            Keeper::JobProcessor(_) => return self.deliver_stop(host, run),
            Keeper::Adopted(_) if known.ended.is_some() => {
                known.keeper = Keeper::Over;
                let pid = known.started.as_ref().and_then(|started| started.pid);
                return pid.into_iter().for_each(|pid| self.np_reaps(host, pid));
            }
            Keeper::Preparing | Keeper::Adopted(_) | Keeper::Over | Keeper::Quarantined => return,
        }
        if let Some(jp) = holder {
            known.keeper = Keeper::JobProcessor(jp);
            if !self.hosts[host].jps.contains_key(&jp) {
                self.np_hears_of_jp_gone(host, jp, run, false); // its descriptor says so at once
            }
            return self.deliver_stop(host, run);
        }
        if known.ended.is_some() {
            known.keeper = Keeper::Over;
        } else if known.started.is_none() {
            if is_of_another_boot && !is_let_in {
                known.keeper = Keeper::Nobody;
                return;
            }
            self.start_again(host, run);
        } else {
            self.adopt(host, run);
        }
    }

    /// The server has let this host in: accepted runs that waited for that are looked at again.
    pub(crate) fn start_awaited(&mut self, host: usize) {
        let boot_id = self.hosts[host].boot_id;
        let Some(np) = self.np(host) else { return };
        let waits = |run: &Run| {
            matches!(run.keeper, Keeper::Nobody)
                && run.started.is_none()
                && run.ended.is_none()
                && run.accepted_boot.as_deref().is_some_and(|accepted| accepted != boot_id)
        };
        let waiting: Vec<RunId> = np.runs.iter().filter(|(_, run)| waits(run)).map(|(run, _)| *run).collect();
        waiting.into_iter().for_each(|run| self.np_read(host, run));
    }

    fn start_again(&mut self, host: usize, run: RunId) {
        let Some(known) = self.np_run(host, run) else { return };
        known.keeper = Keeper::Preparing;
        if let Some((stop, _)) = &known.stop {
            let reason = format!("killed by {} before it started", stop.by);
            return self.np_records(
                host,
                run,
                Verdict::Outcome(Outcome::NeverStarted { reason, why: Never::Canceled }),
            );
        }
        if known.launches >= LAUNCHES_MAX {
            let reason = format!("{LAUNCHES_MAX} job-processors ended before they could start it");
            return self.np_records(
                host,
                run,
                Verdict::Outcome(Outcome::NeverStarted { reason, why: Never::Failed }),
            );
        }
        known.launches += 1;
        self.errand(host, Errand::Relaunch(run));
    }

    fn adopt(&mut self, host: usize, run: RunId) {
        let now_ms = self.queue.now_ms();
        let boot_id = self.hosts[host].boot_id;
        let Some(known) = self.np_run(host, run) else { return };
        let Some(started) = known.started.clone() else { return };
        if started.boot_id.as_deref() != Some(&boot_id[..]) {
            known.keeper = Keeper::Nobody;
            let reason = "the host restarted while the job ran".to_owned();
            return self.np_records(host, run, Verdict::Outcome(Outcome::Unknown { reason }));
        }
        let state = match known.stop_cause.clone() {
            Some(cause) => {
                State::Stopping { cause, kill_at_ms: now_ms + known.grace_ms.unwrap_or(GRACE_MS_DEFAULT) }
            }
            None => State::running(started.boottime_ms.unwrap_or(0), known.timeout_ms, known.grace_ms),
        };
        let job = known.job.take();
        known.keeper = Keeper::Adopted(Adopted {
            job,
            state,
            gone_ms: job.is_none().then_some(now_ms),
            monitor: None,
            is_busy: false,
        });
        match job {
            Some(pid) => {
                self.np_tells_monitor(host, run);
                if !self.is_alive(host, pid) {
                    self.np_hears_of_job_gone(host, run);
                }
            }
            None => self.ask_witnesses(host, run),
        }
        self.deliver_stop(host, run);
    }

    fn is_alive(&self, host: usize, pid: u32) -> bool {
        let process = self.hosts[host].processes.get(&pid);
        process.is_some_and(|process| matches!(process.life, Life::Gated | Life::Running))
    }

    /// A descriptor that the network-processor holds says that a process ended.
    pub(crate) fn np_hears_of_job_gone(&mut self, host: usize, run: RunId) {
        if let Some(np) = self.np(host).map(|np| np.id) {
            let delay_ms = self.rng.below(HEARD_MS_MAX);
            self.queue.after(delay_ms, Event::JobGone { host, np, run });
        }
    }

    pub(crate) fn on_job_gone(&mut self, host: usize, run: RunId) {
        let now_ms = self.queue.now_ms();
        let Some(known) = self.np_run(host, run) else { return };
        let Keeper::Adopted(adopted) = &mut known.keeper else { return };
        adopted.gone_ms.get_or_insert(now_ms);
        if adopted.is_busy {
            return;
        }
        let job = adopted.job;
        // Its child since the job-processor, which was one too, died: a zombie until its end is recorded.
        match job.and_then(|pid| self.np_peeks(host, pid)) {
            Some(end) => self.np_records(host, run, Verdict::End(end)),
            None => self.ask_witnesses(host, run),
        }
    }

    fn np_peeks(&self, host: usize, pid: u32) -> Option<End> {
        let own = &self.hosts[host];
        own.zombie_of(Parent::NetworkProcessor(own.np.as_ref()?.id), pid)
    }

    fn np_reaps(&mut self, host: usize, pid: u32) {
        if self.np_peeks(host, pid).is_some() {
            self.hosts[host].reap(pid);
        }
    }

    /// Reaps zombies that came to it and are nobody's outcome: mirrors `agent/network-processor/src/orphans.rs`.
    pub(crate) fn np_reaps_strangers(&mut self, host: usize) {
        let Some(np) = &self.hosts[host].np else { return };
        let ours = Parent::NetworkProcessor(np.id);
        let own = self.hosts[host].processes.keys().copied();
        let zombies: Vec<u32> = own.filter(|pid| self.hosts[host].zombie_of(ours, *pid).is_some()).collect();
        let open = || np.runs.iter().filter(|(_, known)| known.ended.is_none());
        let unclear: BTreeSet<RunId> =
            open().filter(|(_, known)| known.started.is_none()).map(|(run, _)| *run).collect();
        let jobs: BTreeSet<u32> =
            open().filter_map(|(_, known)| known.started.as_ref().and_then(|started| started.pid)).collect();
        let Some(np) = self.np(host) else { return };
        let (seen, unclear_then) = &mut np.strangers;
        unclear_then.retain(|run| unclear.contains(run));
        if !unclear_then.is_empty() && !zombies.is_empty() {
            return; // in a later round
        }
        let reaped: Vec<u32> = std::mem::take(seen).into_iter().filter(|pid| !jobs.contains(pid)).collect();
        *seen = zombies.into_iter().filter(|pid| !jobs.contains(pid) && !reaped.contains(pid)).collect();
        *unclear_then = if seen.is_empty() { BTreeSet::new() } else { unclear };
        reaped.into_iter().for_each(|pid| self.np_reaps(host, pid));
    }

    /// Hands adopted jobs to a monitor that does not have them.
    pub(crate) fn np_looks_for_monitor(&mut self, host: usize) {
        let monitor = self.hosts[host].monitor.as_ref().map(|monitor| monitor.id);
        let Some(np) = self.np(host).filter(|_| monitor.is_some()) else { return };
        let untold = |known: &Run| matches!(&known.keeper, Keeper::Adopted(own) if own.monitor != monitor);
        let untold: Vec<RunId> =
            np.runs.iter().filter(|(_, known)| untold(known)).map(|(run, _)| *run).collect();
        untold.into_iter().for_each(|run| self.np_tells_monitor(host, run));
    }

    fn np_tells_monitor(&mut self, host: usize, run: RunId) {
        let monitor = self.hosts[host].monitor.as_ref().map(|monitor| monitor.id);
        let Some(known) = self.np_run(host, run) else { return };
        let Keeper::Adopted(adopted) = &mut known.keeper else { return };
        let (Some(pid), Some(monitor)) = (adopted.job, monitor) else { return };
        adopted.monitor = Some(monitor);
        self.monitor_watches(host, monitor, run, pid);
    }

    pub(crate) fn np_hears_of_jp_gone(&mut self, host: usize, jp: u32, run: RunId, well: bool) {
        if let Some(np) = self.np(host).map(|np| np.id) {
            let delay_ms = self.rng.below(HEARD_MS_MAX);
            self.queue.after(delay_ms, Event::JpGone { host, np, jp, run, well });
        }
    }

    pub(crate) fn on_np_jp_gone(&mut self, host: usize, jp: u32, run: RunId, well: bool) {
        let Some(known) = self.np_run(host, run) else { return };
        if matches!(known.keeper, Keeper::JobProcessor(watched) if watched == jp) {
            (known.keeper, known.is_recorded) = (Keeper::Nobody, well);
            if let Some((_, delivery)) = &mut known.stop {
                *delivery = Delivery::Due; // it took what it was told with it
            }
            self.np_read(host, run);
        }
    }

    fn ask_witnesses(&mut self, host: usize, run: RunId) {
        let Some(known) = self.np_run(host, run) else { return };
        let Keeper::Adopted(adopted) = &mut known.keeper else { return };
        if !adopted.is_busy && adopted.gone_ms.is_some() {
            adopted.is_busy = true;
            self.errand(host, Errand::AskMonitor(run));
        }
    }

    pub(crate) fn np_asks_monitor(&mut self, host: usize, run: RunId) {
        let now_ms = self.queue.now_ms();
        let answer = self.hosts[host].monitor.as_ref().map(|monitor| monitor.is_witness(run));
        let Some(known) = self.np_run(host, run) else { return };
        let Keeper::Adopted(adopted) = &mut known.keeper else { return };
        adopted.is_busy = false;
        if answer == Some(true) {
            return self.np_read(host, run); // the tick asks again
        }
        let (job, gone_ms) = (adopted.job, adopted.gone_ms.unwrap_or(0));
        if let Some(end) = job.and_then(|pid| self.hosts[host].end_of(pid)) {
            self.np_records(host, run, Verdict::End(end));
        } else if job.is_none() || now_ms.saturating_sub(gone_ms) >= WITNESS_MS_MAX {
            let reason = "the job-processor died and nobody saw how the job ended".to_owned();
            self.np_records(host, run, Verdict::Outcome(Outcome::Unknown { reason }));
        }
    }

    /// Records an outcome where no job-processor can.
    fn np_records(&mut self, host: usize, run: RunId, verdict: Verdict) {
        if let Some(Keeper::Adopted(adopted)) = self.np_run(host, run).map(|known| &mut known.keeper) {
            adopted.is_busy = true;
        }
        self.errand(host, Errand::Record(run, verdict));
    }

    pub(crate) fn np_does_record(&mut self, host: usize, run: RunId, verdict: Verdict) {
        let now_ms = self.queue.now_ms();
        if self.hosts[host].locks.contains_key(&run) {
            return self.errand(host, Errand::Recorded(run, true)); // its holder lives, and writes what is true
        }
        let trusting = self.mutation == Some(Mutation::TrustChild);
        let disk = self.disk(host);
        let written = match log::take(&disk, run) {
            Ok((_, ledger)) if ledger.ended.is_some() => Ok(()),
            Ok((mut log, ledger)) => {
                let outcome = match verdict {
                    Verdict::Outcome(outcome) => still_true(outcome, &ledger),
                    Verdict::End(_) if ledger.started.is_none() => None,
                    Verdict::End(end) => {
                        Some(self.hosts[host].witnessed(&ledger, end, Witness::Pidfd, trusting))
                    }
                };
                let record = |outcome| log::record(&mut log, now_ms, log::ended(&outcome)).map(drop);
                outcome.map_or(Ok(()), record).map_err(|_| ())
            }
            Err(_) => Err(()),
        };
        self.hosts[host].locks.insert(run, Holder::NetworkProcessor);
        let at_ms = self.done_at_ms(host);
        self.errand_at(host, at_ms, Errand::Recorded(run, written.is_ok()));
    }

    pub(crate) fn np_recorded(&mut self, host: usize, run: RunId, well: bool) {
        self.hosts[host].unlock(run, Holder::NetworkProcessor);
        let Some(known) = self.np_run(host, run) else { return };
        match &mut known.keeper {
            Keeper::Adopted(adopted) => adopted.is_busy = false,
            keeper @ (Keeper::Preparing | Keeper::Nobody | Keeper::Unread) => *keeper = Keeper::Nobody,
            Keeper::JobProcessor(_) | Keeper::Over | Keeper::Quarantined => {}
        }
        if well {
            self.np_read(host, run);
        } else {
            known.is_dirty = true;
        }
    }

    /// The clock for adopted runs.
    pub(crate) fn np_ticks_adopted(&mut self, host: usize) {
        let now_ms = self.queue.now_ms();
        let Some(np) = self.np(host) else { return };
        let mut adopted = Vec::new();
        for (run, known) in &np.runs {
            if let Keeper::Adopted(own) = &known.keeper {
                adopted.push((*run, own.gone_ms));
            }
        }
        for (run, gone_ms) in adopted {
            match gone_ms {
                None => self.step_adopted(host, run, Happened::Tick),
                Some(gone_ms) if now_ms.saturating_sub(gone_ms) >= ASK_AGAIN_MS => {
                    self.ask_witnesses(host, run)
                }
                Some(_) => {}
            }
        }
    }

    /// Somebody wants the run to end; kept until it did.
    pub(crate) fn want_stop(&mut self, host: usize, run: RunId, stop: Stop) {
        let Some(known) = self.np_run(host, run) else { return };
        if known.ended.is_none() {
            known.stop = Some((stop, Delivery::Due));
            self.deliver_stop(host, run);
        }
    }

    /// Takes the next step towards the wanted end, if there is one.
    pub(crate) fn deliver_stop(&mut self, host: usize, run: RunId) {
        let Some(known) = self.np_run(host, run).filter(|known| known.ended.is_none()) else { return };
        let grace_default_ms = known.grace_ms.unwrap_or(GRACE_MS_DEFAULT);
        let Some((stop, delivery)) = known.stop.as_mut().filter(|(_, delivery)| *delivery == Delivery::Due)
        else {
            return;
        };
        match &known.keeper {
            Keeper::JobProcessor(_) => {
                *delivery = Delivery::Trying;
                let stop = stop.clone();
                self.errand(host, Errand::TellStop(run, stop));
            }
            Keeper::Adopted(_) => {
                *delivery = Delivery::Done;
                let grace_ms = stop.grace_ms.unwrap_or(grace_default_ms);
                let by = stop.by.clone();
                self.step_adopted(host, run, Happened::Stop { by, grace_ms });
            }
            Keeper::Preparing | Keeper::Unread | Keeper::Nobody | Keeper::Over | Keeper::Quarantined => {}
        }
    }

    pub(crate) fn np_tells_stop(&mut self, host: usize, run: RunId, stop: &Stop) {
        let jp = self.hosts[host].jps.iter().find(|(_, jp)| jp.run == run).map(|(jp, _)| *jp);
        let taken = jp.is_some_and(|jp| self.jp_takes_stop(host, jp, stop));
        let Some(known) = self.np_run(host, run) else { return };
        if let Some((_, delivery)) = known.stop.as_mut().filter(|(_, delivery)| *delivery == Delivery::Trying)
        {
            *delivery = if taken { Delivery::Done } else { Delivery::Due };
        }
    }

    pub(crate) fn np_retries_stops(&mut self, host: usize) {
        let Some(np) = self.np(host) else { return };
        let due = |stop: &Option<(Stop, Delivery)>| stop.as_ref().is_some_and(|(_, d)| *d == Delivery::Due);
        let due: Vec<RunId> =
            np.runs.iter().filter(|(_, known)| due(&known.stop)).map(|(run, _)| *run).collect();
        due.into_iter().for_each(|run| self.deliver_stop(host, run));
    }

    fn step_adopted(&mut self, host: usize, run: RunId, happened: Happened) {
        let now_ms = self.queue.now_ms();
        let Some(known) = self.np_run(host, run) else { return };
        let pid = known.started.as_ref().and_then(|started| started.pid);
        let Keeper::Adopted(adopted) = &mut known.keeper else { return };
        let (state, action) = adopted.state.clone().on(happened, now_ms);
        adopted.state = state;
        match action {
            None | Some(Action::Record | Action::Freeze { .. } | Action::Thaw { .. }) => {}
            Some(Action::SoftSignal(cause)) => self.errand(host, Errand::NoteStop(run, stopping(&cause))),
            Some(Action::KillTree | Action::KillTreeAndAlert) => {
                if let Some(pid) = pid {
                    self.signal(host, pid, true);
                }
            }
        }
    }

    /// Writes down why it is told to end, best effort, then signals it. A child behind its gate may write the next record itself.
    pub(crate) fn np_notes_stop(&mut self, host: usize, run: RunId, reason: Stopping) {
        let now_ms = self.queue.now_ms();
        let Some(pid) = self.np_run(host, run).and_then(|known| known.started.as_ref()?.pid) else { return };
        let gated = self.hosts[host].processes.get(&pid).is_some_and(|process| process.life == Life::Gated);
        let disk = self.disk(host);
        if !gated
            && !self.hosts[host].locks.contains_key(&run)
            && let Ok((mut log, ledger)) = log::take(&disk, run)
            && ledger.ended.is_none()
            && ledger.stopping.is_none()
        {
            let _ = log::record(&mut log, now_ms, FactBody::Stopping(reason));
            self.hosts[host].locks.insert(run, Holder::NetworkProcessor);
            let at_ms = self.done_at_ms(host);
            self.errand_at(host, at_ms, Errand::Recorded(run, true));
        }
        let at_ms = self.done_at_ms(host);
        self.queue.at(at_ms, Event::Signal { host, pid, kill: false });
    }
}

/// The outcome as the log under its lock lets it be (`still_true` of `agent/network-processor/src/adopt.rs`).
fn still_true(outcome: Outcome, ledger: &Ledger) -> Option<Outcome> {
    let needs_start = !matches!(outcome, Outcome::NeverStarted { .. });
    if needs_start != ledger.started.is_some() {
        return None;
    }
    Some(match outcome {
        Outcome::Ended { end, cause, witness, usage } => {
            Outcome::Ended { end, cause: cause.or_else(|| ledger.stop_cause()), witness, usage }
        }
        other @ (Outcome::CannotExecute { .. } | Outcome::NeverStarted { .. } | Outcome::Unknown { .. }) => {
            other
        }
    })
}

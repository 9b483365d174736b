//! A job-processor: mirrors `job-processor/src/supervise.rs`, one step after the other, with a crash possible between any two.
//!
//! ```text
//! Lock ▶ Fork ▶ Introduce ▶ STARTED written ▶ (synced) Open ▶ Watch ▶ ENDED written ▶ (synced) Reap ▶ gone
//! ```

use crate::disk::{File, Name};
use crate::host::{Farewell, Holder, Life, Parent, Process, Reapers};
use crate::log;
use crate::mutation::Mutation;
use crate::queue::Ms;
use crate::scenario::Behavior;
use crate::world::{Event, World};
use job::supervise::{Action, Event as Happened, GRACE_MS_DEFAULT, State};
use job::{End, Never, Outcome, RunId, StopCause, Witness};
use protocol::RunSpec;
use protocol::message::{FactBody, Note, Started, Stop, Stopping};
use spool::{SLOT_ENDED, SLOT_STARTED};
use store::{Log, WriteError};

/// After this long a job can be controlled, milliseconds (`SHORT_JOB_MS`).
const SHORT_JOB_MS: Ms = 50;
/// Between two tries to write an outcome, milliseconds (`RECORD_AGAIN_MS`).
const RECORD_AGAIN_MS: Ms = 1_000;

/// The next thing that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Lock,
    Fork,
    Introduce,
    Announce,
    Open,
    Watch,
    Record,
    Retake,
    Reap,
}

/// A job-processor.
pub(crate) struct JobProcessor {
    pub(crate) run: RunId,
    /// To whom its job falls if it dies.
    pub(crate) reapers: Reapers,
    pub(crate) child: Option<u32>,
    stage: Stage,
    /// It is at a sync, or asleep, until then.
    busy_until_ms: Ms,
    log: Option<Log<File>>,
    spec: RunSpec,
    state: State,
    outcome: Option<Outcome>,
    /// From when on it can be controlled.
    control_at_ms: Option<Ms>,
    notes: u64,
}

impl World {
    /// Starts one; its process id.
    pub(crate) fn start_jp(&mut self, host: usize, run: RunId, reapers: Reapers) -> u32 {
        let jp = self.new_pid();
        let started = JobProcessor {
            run,
            reapers,
            child: None,
            stage: Stage::Lock,
            busy_until_ms: 0,
            log: None,
            spec: RunSpec::default(),
            state: State::running(0, None, None),
            outcome: None,
            control_at_ms: None,
            notes: 0,
        };
        self.hosts[host].jps.insert(jp, started);
        let delay_ms = self.rng.range(1, 8);
        self.queue.after(delay_ms, Event::Jp { host, jp });
        jp
    }

    /// Its turn.
    pub(crate) fn on_jp(&mut self, host: usize, jp: u32) {
        let now_ms = self.queue.now_ms();
        let idle = self.hosts[host].jps.get(&jp).filter(|jp| jp.busy_until_ms <= now_ms);
        let Some(stage) = idle.map(|jp| jp.stage) else { return };
        match stage {
            Stage::Lock => self.jp_lock(host, jp),
            Stage::Fork => self.jp_fork(host, jp),
            Stage::Introduce => self.jp_introduce(host, jp),
            Stage::Announce => self.jp_announce(host, jp),
            Stage::Open => self.jp_open(host, jp),
            Stage::Watch => self.jp_watch(host, jp),
            Stage::Record => self.jp_record(host, jp),
            Stage::Retake => self.jp_retake(host, jp),
            Stage::Reap => self.jp_reap(host, jp),
        }
    }

    fn jp(&mut self, host: usize, jp: u32) -> &mut JobProcessor {
        match self.hosts[host].jps.get_mut(&jp) {
            Some(jp) => jp,
            None => unreachable!("a job-processor that is gone has no turn"),
        }
    }

    fn jp_next(&mut self, host: usize, jp: u32, stage: Stage) {
        let at_ms = self.done_at_ms(host).max(self.queue.now_ms()) + self.rng.below(3);
        self.jp_sleeps(host, jp, stage, at_ms);
    }

    fn jp_sleeps(&mut self, host: usize, jp: u32, stage: Stage, until_ms: Ms) {
        let own = self.jp(host, jp);
        (own.stage, own.busy_until_ms) = (stage, until_ms);
        self.queue.at(until_ms, Event::Jp { host, jp });
    }

    fn jp_lock(&mut self, host: usize, jp: u32) {
        let run = self.jp(host, jp).run;
        if self.hosts[host].locks.contains_key(&run) {
            return self.on_jp_gone(host, jp, false);
        }
        self.hosts[host].locks.insert(run, Holder::JobProcessor(jp));
        let disk = self.disk(host);
        match log::take(&disk, run) {
            Ok((log, ledger)) if ledger.started.is_none() && ledger.ended.is_none() => {
                let own = self.jp(host, jp);
                (own.log, own.spec) = (Some(log), ledger.spec);
                self.jp_next(host, jp, Stage::Fork);
            }
            Ok(_) | Err(_) => self.on_jp_gone(host, jp, false),
        }
    }

    fn jp_fork(&mut self, host: usize, jp: u32) {
        let now_ms = self.queue.now_ms();
        let own = self.jp(host, jp);
        let run = own.run;
        let behavior = Behavior::of(&own.spec);
        let reason = if behavior.is_absent {
            Outcome::CannotExecute { reason: "the job-processor died before it could say why".to_owned() }
        } else {
            Outcome::NeverStarted {
                reason: "the job-processor died before the start gate opened".to_owned(),
                why: Never::Failed,
            }
        };
        let words = log::encode(now_ms, log::ended(&reason));
        let prepared = own.log.as_ref().and_then(|log| {
            let (announced_at, announced) = log.slot(SLOT_STARTED);
            let (at, words) = log.prepared(SLOT_ENDED, &words, 1).ok()?;
            Some(Farewell { announced_at, announced, at, words })
        });
        let pid = self.new_pid();
        let process = Process {
            run,
            life: Life::Gated,
            parent: Some(Parent::JobProcessor(jp)),
            has_executed: false,
            farewell: prepared,
            is_polite: behavior.is_polite,
        };
        self.hosts[host].processes.insert(pid, process);
        self.jp(host, jp).child = Some(pid);
        self.jp_next(host, jp, Stage::Introduce);
    }

    fn jp_introduce(&mut self, host: usize, jp: u32) {
        self.introduce(host, jp);
        self.jp_next(host, jp, Stage::Announce);
    }

    /// Hands the child's descriptor to the monitor, if one is there. It is tried again when another one is (`job-processor/src/witness.rs`).
    pub(crate) fn introduce(&mut self, host: usize, jp: u32) {
        let Some(own) = self.hosts[host].jps.get(&jp) else { return };
        let (run, outcome) = (own.run, own.outcome.is_some());
        if let (Some(pid), false) = (own.child, outcome) {
            self.monitor_holds(host, jp, run, pid);
        }
    }

    fn jp_announce(&mut self, host: usize, jp: u32) {
        let now_ms = self.queue.now_ms();
        let boot_id = Some(self.hosts[host].boot_id.to_vec());
        let _ = self.disk(host); // its clock
        let own = self.jp(host, jp);
        let started = Started {
            pid: own.child,
            start_ticks: Some(now_ms),
            pidfd_inode: own.child.map(u64::from),
            boot_id,
            cgroup: None,
            boottime_ms: Some(now_ms),
            job_processor_pid: Some(jp),
        };
        (own.state, own.control_at_ms) =
            (State::running(now_ms, own.spec.timeout_ms, own.spec.grace_ms), None);
        let recorded = own.log.as_mut().map(|log| log::record(log, now_ms, FactBody::Started(started)));
        match recorded {
            Some(Ok(_)) if self.mutation == Some(Mutation::GateBeforeStarted) => self.jp_open(host, jp),
            Some(Ok(_)) => self.jp_next(host, jp, Stage::Open),
            // The gate stays closed, and the child says the rest.
            Some(Err(_)) | None => self.on_jp_gone(host, jp, false),
        }
    }

    fn jp_open(&mut self, host: usize, jp: u32) {
        let now_ms = self.queue.now_ms();
        let own = self.jp(host, jp);
        let (run, child, behavior) = (own.run, own.child, Behavior::of(&own.spec));
        if behavior.is_absent {
            own.outcome = Some(Outcome::CannotExecute { reason: "no such program".to_owned() });
            return self.jp_next(host, jp, Stage::Record);
        }
        let Some(pid) = child else { return };
        own.stage = Stage::Watch;
        own.control_at_ms = Some(now_ms + SHORT_JOB_MS);
        let ticks = [Some(now_ms + SHORT_JOB_MS), own.state.next_tick_ms()];
        if let Some(process) = self.hosts[host].processes.get_mut(&pid) {
            (process.life, process.has_executed) = (Life::Running, true);
        }
        let name = self.hosts[host].name.clone();
        self.oracle.on_executed(run, &name, now_ms);
        let end = End::Exited { code: behavior.code };
        self.queue.after(behavior.duration_ms, Event::JobEnds { host, pid, end });
        for at_ms in ticks.into_iter().flatten() {
            self.queue.at(at_ms, Event::Jp { host, jp });
        }
    }

    fn jp_watch(&mut self, host: usize, jp: u32) {
        let now_ms = self.queue.now_ms();
        let Some(pid) = self.jp(host, jp).child else { return };
        if let Some(Process { life: Life::Zombie(end), .. }) = self.hosts[host].processes.get(&pid) {
            let end = *end;
            self.jp_step(host, jp, Happened::Exited(end));
            let own = self.jp(host, jp);
            own.outcome = own.state.outcome(Witness::JobProcessor, None);
            return self.jp_next(host, jp, Stage::Record);
        }
        let own = self.jp(host, jp);
        if own.control_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            let run = own.run;
            let wanted = Behavior::of(&own.spec).notes;
            if own.notes < wanted {
                own.notes += 1;
                self.jp_note(host, jp);
            }
            self.np_is_woken(host, run);
        }
        self.jp_step(host, jp, Happened::Tick);
    }

    /// Something worth telling people, long enough to need room on the disk.
    fn jp_note(&mut self, host: usize, jp: u32) {
        let now_ms = self.queue.now_ms();
        let _ = self.disk(host); // its clock
        let own = self.jp(host, jp);
        let text = format!("note {} {}", own.notes, "x".repeat(1_500));
        if let Some(log) = &mut own.log {
            let _ = log::record(log, now_ms, FactBody::Note(Note { text })); // as for every note: best effort
        }
        self.queue.after(SHORT_JOB_MS, Event::Jp { host, jp });
    }

    fn jp_step(&mut self, host: usize, jp: u32, happened: Happened) {
        let now_ms = self.queue.now_ms();
        let _ = self.disk(host); // its clock
        let own = self.jp(host, jp);
        let (state, action) = own.state.clone().on(happened, now_ms);
        own.state = state;
        let (child, next) = (own.child, own.state.next_tick_ms());
        if let (Some(Action::SoftSignal(cause)), Some(log)) = (&action, &mut own.log) {
            let _ = log::record(log, now_ms, FactBody::Stopping(stopping(cause)));
        }
        let at_ms = self.done_at_ms(host);
        let Some(pid) = child else { return };
        match action {
            None | Some(Action::Record | Action::Freeze { .. } | Action::Thaw { .. }) => {}
            Some(Action::SoftSignal(_)) => self.queue.at(at_ms, Event::Signal { host, pid, kill: false }),
            Some(Action::KillTree | Action::KillTreeAndAlert) => self.signal(host, pid, true),
        }
        if let Some(at_ms) = next {
            self.queue.at(at_ms.max(now_ms + 1), Event::Jp { host, jp });
        }
    }

    /// A request on its control socket; whether it was taken.
    pub(crate) fn jp_takes_stop(&mut self, host: usize, jp: u32, stop: &Stop) -> bool {
        let now_ms = self.queue.now_ms();
        let Some(own) = self.hosts[host].jps.get(&jp) else { return false };
        let listens = own.stage == Stage::Watch && own.control_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if listens {
            let grace_ms = stop.grace_ms.or(own.spec.grace_ms).unwrap_or(GRACE_MS_DEFAULT);
            self.jp_step(host, jp, Happened::Stop { by: stop.by.clone(), grace_ms });
        }
        listens
    }

    fn jp_record(&mut self, host: usize, jp: u32) {
        let now_ms = self.queue.now_ms();
        let _ = self.disk(host); // its clock
        let own = self.jp(host, jp);
        let Some(outcome) = own.outcome.clone() else { return };
        let recorded = own.log.as_mut().map(|log| log::record(log, now_ms, log::ended(&outcome)));
        match recorded {
            Some(Ok(_) | Err(WriteError::Filled(_))) => self.jp_next(host, jp, Stage::Reap),
            // The handle is done with, and closing it drops the lock.
            Some(Err(_)) | None => {
                let own = self.jp(host, jp);
                own.log = None;
                let run = own.run;
                self.hosts[host].unlock(run, Holder::JobProcessor(jp));
                self.jp_sleeps(host, jp, Stage::Retake, now_ms + RECORD_AGAIN_MS);
            }
        }
    }

    fn jp_retake(&mut self, host: usize, jp: u32) {
        let run = self.jp(host, jp).run;
        if self.hosts[host].locks.contains_key(&run) {
            return self.jp_sleeps(host, jp, Stage::Retake, self.queue.now_ms() + RECORD_AGAIN_MS);
        }
        self.hosts[host].locks.insert(run, Holder::JobProcessor(jp));
        let disk = self.disk(host);
        match log::take(&disk, run) {
            Ok((_, ledger)) if ledger.ended.is_some() => self.jp_next(host, jp, Stage::Reap),
            Ok((log, _)) => {
                self.jp(host, jp).log = Some(log);
                self.jp_next(host, jp, Stage::Record);
            }
            Err(_) => {
                self.hosts[host].unlock(run, Holder::JobProcessor(jp));
                self.jp_sleeps(host, jp, Stage::Retake, self.queue.now_ms() + RECORD_AGAIN_MS);
            }
        }
    }

    /// The outcome is on disk, as far as this process knows.
    fn jp_reap(&mut self, host: usize, jp: u32) {
        let own = self.jp(host, jp);
        let (run, child) = (own.run, own.child);
        let disk = self.disk(host);
        if disk.borrow().exists(Name::Live(run)) {
            self.oracle.on_recorded(run);
        }
        self.monitor_lets_go(host, jp);
        if let Some(pid) = child {
            if let Some(process) = self.hosts[host].processes.get_mut(&pid)
                && process.life == Life::Gated
            {
                process.life = Life::Zombie(End::Exited { code: 125 }); // it could not execute and went when it was let go
            }
            self.hosts[host].reap(pid);
        }
        self.on_jp_gone(host, jp, true);
    }
}

pub(crate) fn stopping(cause: &StopCause) -> Stopping {
    match cause {
        StopCause::Kill { by } => Stopping { killed_by: Some(by.clone()), timed_out_after_ms: None },
        StopCause::TimedOut { timeout_ms } => {
            Stopping { killed_by: None, timed_out_after_ms: Some(*timeout_ms) }
        }
    }
}

//! One run from its prepared directory to its recorded outcome.
//!
//! ```text
//! lock the log ▶ files ▶ child behind its gate ▶ pidfd to the monitor ▶ STARTED durable ▶ gate opens
//!              ▶ poll: the job's end | control | time | monitor ▶ look at the end (WNOWAIT) ▶ ENDED durable ▶ reap ▶ leftovers
//! ```
//!
//! Every line here runs once per job, most of them in jobs of a few milliseconds: what only longer ones need (the control socket, the word that the
//! job runs) waits for [`SHORT_JOB_MS`], and the end of this process is the hint that the outcome is there.
//!
//! | killed after            | what is found                                   | by whom, and what it does                                             |
//! |-------------------------|-------------------------------------------------|-----------------------------------------------------------------------|
//! | taking the lock         | no STARTED, lock free                           | the network-processor starts another job-processor: nothing was executed |
//! | making the child        | the same; the child saw its gate close and went | the same                                                              |
//! | STARTED                 | STARTED, and NEVER STARTED written by the child | sent                                                                  |
//! | opening the gate        | STARTED, lock free, the job runs                | the network-processor controls the orphan and waits for it, or the monitor |
//! | the job's end           | STARTED, lock free, a zombie                    | the zombie went to one of the two: it records                         |
//! | ENDED                   | ENDED                                           | sent; one of the two reaps                                            |

use crate::control::ControlSocket;
use crate::launch::{self, NotReady};
use crate::sweep::{Group, Tree};
use crate::witness::Monitor;
use job::output::Watch;
use job::supervise::{Action, Event, KILLS_BEFORE_ALERT, State};
use job::users::User;
use job::{End, Outcome, StopCause, Witness};
use os::cgroup::Cgroup;
use os::child::{ChildError, Gated};
use os::pidfd::Pidfd;
use os::{clock, crash, procfs, signal, wait};
use protocol::RunSpec;
use protocol::message::{ControlBody, FactBody, Note, Resumed, Started, Stopping, Suspended};
use rustix::event::{PollFd, PollFlags, poll};
use spool::{Recorder, RunDir, TakeError, Unwritten};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use store::WriteError;

/// How a job-processor's work ended.
pub(crate) enum Done {
    /// The outcome is on disk.
    Recorded,
    /// Another process has the run, or it is over.
    NothingToDo,
}

/// A job that ends sooner is reported once, with its start and its end together, and cannot be controlled, milliseconds.
const SHORT_JOB_MS: u64 = 50;
/// A child that cannot execute goes as soon as it may; a frozen one is left to the monitor, milliseconds.
const CHILD_GOES_MS_MAX: u64 = 1_000;
/// Between two tries to write an outcome, milliseconds.
const RECORD_AGAIN_MS: u64 = 1_000;

/// Runs the run in `dir`. `line` is closed when the run is taken, or is another's.
pub(crate) fn run(
    dir: &RunDir,
    cgroup_parent: Option<&Path>,
    user: Result<Option<User>, String>,
    line: Option<OwnedFd>,
) -> Result<Done, String> {
    let _ = os::process::new_session(); // fails only if we lead one already
    signal::ignore(&[
        libc_signals::HUP,
        libc_signals::INT,
        libc_signals::TERM,
        libc_signals::PIPE,
        libc_signals::USR1,
        libc_signals::USR2,
    ]);
    let (recorder, ledger) = match Recorder::take(dir) {
        Ok(taken) => taken,
        Err(TakeError::Held) => return Ok(Done::NothingToDo),
        Err(e @ TakeError::Ledger(_)) => return Err(e.to_string()),
    };
    drop(line);
    if ledger.started.is_some() || ledger.ended.is_some() {
        return Ok(Done::NothingToDo);
    }
    crash::point("start.after-lock");
    os::process::become_subreaper().map_err(|e| format!("cannot become the reaper of orphans: {e}"))?;
    let starter = |user| Starter { dir, recorder, spec: ledger.spec, cgroup_parent, user };
    match user {
        Ok(user) => starter(user).start(),
        Err(reason) => starter(None).never_started(reason.into()),
    }
}

/// Signal numbers that are the same on every Linux that this program is for.
mod libc_signals {
    pub(super) const HUP: i32 = 1;
    pub(super) const INT: i32 = 2;
    pub(super) const USR1: i32 = 10;
    pub(super) const USR2: i32 = 12;
    pub(super) const PIPE: i32 = 13;
    pub(super) const TERM: i32 = 15;
    pub(super) const CHLD: i32 = 17;
}

/// The run before its gate opens.
struct Starter<'a> {
    dir: &'a RunDir,
    recorder: Recorder,
    spec: RunSpec,
    cgroup_parent: Option<&'a Path>,
    user: Option<User>,
}

impl Starter<'_> {
    fn start(mut self) -> Result<Done, String> {
        // Before the child exists, so that its end cannot be missed.
        let children = signal::descriptor(&[libc_signals::CHLD])
            .map_err(|e| format!("cannot watch for children: {e}"))?;
        let mut program = match launch::program(self.dir, &self.spec, self.user.as_ref()) {
            Ok(program) => program,
            Err(not_ready) => return self.never_started(not_ready),
        };
        let name = self.dir.run_id().to_string();
        let group = self.cgroup_parent.and_then(|parent| Cgroup::create(parent, &name).ok()).map(Group);
        program.cgroup = group.as_ref().and_then(|group| group.0.descriptor().ok());
        program.farewell = self.recorder.farewell().ok();
        let (gated, in_cgroup) = match Gated::spawn(&program) {
            Ok(spawned) => spawned,
            Err(e) => return self.never_started(format!("cannot make a process: {e}").into()),
        };
        crash::point("start.after-fork");
        drop(program); // its descriptors are the child's now
        let tree = Tree::new(gated.pid, group.filter(|_| in_cgroup));
        let started = self.started(&gated, tree.cgroup())?;
        let started_ms = started.boottime_ms.unwrap_or(0);
        let root = self.dir.root().ok_or("the run directory is in no data root")?;
        let monitor = Monitor::introduce(root, self.dir.run_id(), gated.pid, &gated.pidfd, started_ms);
        crash::point("start.after-handover");
        // From here on a failure leaves the gate closed: the child goes, and says so in the log if STARTED is in it.
        self.recorder
            .record(FactBody::Started(started))
            .map_err(|e| format!("STARTED was not recorded: {e}"))?;
        crash::point("start.after-started");
        let pid = gated.pid;
        match gated.open() {
            Ok(pidfd) => {
                crash::point("start.after-gate");
                let state = State::running(started_ms, self.spec.timeout_ms, self.spec.grace_ms);
                let Starter { dir, recorder, spec, user, .. } = self;
                let control = None;
                let limit = spec.output_limit().unwrap_or_default(); // checked before it came here
                let output = limit.map(|limit| Watch::new(limit, started_ms));
                Supervisor {
                    dir,
                    recorder,
                    spec,
                    user,
                    pid,
                    pidfd,
                    state,
                    tree,
                    control,
                    monitor,
                    children,
                    output,
                }
                .watch()
            }
            Err((error, pidfd)) => Ok(self.cannot_execute(error, &pidfd, pid, &monitor)),
        }
    }

    /// The error holds the child until the outcome is on disk; if we die before, the child writes it.
    fn cannot_execute(self, error: ChildError, pidfd: &Pidfd, pid: u32, monitor: &Monitor) -> Done {
        let first = self.spec.command.first().map(|word| String::from_utf8_lossy(word).into_owned());
        let what = match (&self.spec.cwd, &self.spec.script) {
            (cwd, _) if error.stage == os::child::STAGE_NAME_DIRECTORY => {
                cwd.clone().unwrap_or_else(|| self.dir.work().display().to_string())
            }
            (_, Some(_)) => "the script".to_owned(),
            (_, None) => first.unwrap_or_default(),
        };
        crash::point("start.before-cannot-execute");
        let outcome = Outcome::CannotExecute { reason: format!("{what}: cannot {error}") };
        let (done, _recorder) = record(self.recorder, self.dir, &outcome);
        monitor.done();
        let _ = spool::wake(self.dir); // a hint: this process waits for its child
        drop(error);
        let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timespec(CHILD_GOES_MS_MAX)));
        let _ = wait::reap(pid);
        done
    }

    fn started(&self, gated: &Gated, cgroup: Option<&Cgroup>) -> Result<Started, String> {
        let stat = procfs::stat(gated.pid)
            .map_err(|e| format!("/proc: {e}"))?
            .ok_or("the child is gone before its gate")?;
        Ok(Started {
            pid: Some(gated.pid),
            start_ticks: Some(stat.start_ticks),
            pidfd_inode: Some(gated.pidfd.inode().unwrap_or(0)),
            boot_id: Some(procfs::boot_id().map_err(|e| format!("boot id: {e}"))?.to_vec()),
            cgroup: cgroup.map(|group| group.path().to_string_lossy().into_owned()),
            boottime_ms: Some(clock::boottime_ms()),
            job_processor_pid: Some(std::process::id()),
        })
    }

    fn never_started(self, NotReady { reason, why }: NotReady) -> Result<Done, String> {
        Ok(record(self.recorder, self.dir, &Outcome::NeverStarted { reason, why }).0)
    }
}

/// The run while its job runs.
struct Supervisor<'a> {
    dir: &'a RunDir,
    recorder: Recorder,
    spec: RunSpec,
    user: Option<User>,
    pid: u32,
    pidfd: Pidfd,
    state: State,
    tree: Tree,
    /// Bound when the job is no short one.
    control: Option<ControlSocket>,
    monitor: Monitor,
    children: OwnedFd,
    output: Option<Watch>,
}

/// What poll found.
#[derive(Default)]
struct Ready {
    job: bool,
    control: bool,
    children: bool,
    monitor: bool,
}

impl Supervisor<'_> {
    fn watch(mut self) -> Result<Done, String> {
        let begin_ms = clock::boottime_ms();
        let mut introduce_at_ms = Some(begin_ms + SHORT_JOB_MS);
        loop {
            let ready = self.wait(introduce_at_ms).map_err(|e| format!("poll: {e}"))?;
            let now_ms = clock::boottime_ms();
            if ready.job {
                crash::point("end.before-wait");
            }
            if ready.job
                && let Some(ended) =
                    wait::peek(&self.pidfd).map_err(|e| format!("cannot wait for the job: {e}"))?
            {
                return self.on_end(ended);
            }
            if introduce_at_ms.is_some_and(|at| now_ms >= at) {
                introduce_at_ms = self.introduce(now_ms);
            }
            if ready.children {
                while let Ok(Some(_)) = signal::next(&self.children) {}
                self.tree.reap_orphans().map_err(|e| format!("cannot reap orphans: {e}"))?;
            }
            if ready.monitor {
                self.monitor.on_closed(now_ms);
            }
            self.monitor.reconnect(&self.pidfd, now_ms);
            if ready.control
                && let Some(Ok(Some(asked))) = self.control.as_ref().map(ControlSocket::next)
            {
                asked.answer(self.on_control(&asked.what, now_ms));
            }
            self.look_at_output(now_ms);
            self.step(Event::Tick, now_ms);
        }
    }

    fn look_at_output(&mut self, now_ms: u64) {
        let Some(watch) = &mut self.output else { return };
        let found = spool::output::look(self.dir, watch, now_ms);
        for text in found.notes {
            self.told(FactBody::Note(Note { text }));
        }
        if let Some(by) = found.kill {
            let grace_ms = self.spec.grace_ms.unwrap_or(job::supervise::GRACE_MS_DEFAULT);
            self.step(Event::Stop { by, grace_ms }, now_ms);
        }
    }

    /// The job is no short one: it can be controlled from now on, and whoever waits for it hears that it runs. Gives the time of the next try.
    fn introduce(&mut self, now_ms: u64) -> Option<u64> {
        let bound = ControlSocket::bind(self.dir).and_then(|control| {
            launch::give_socket(self.dir, self.user.as_ref()).map_err(io::Error::other)?;
            Ok(control)
        });
        match bound {
            Ok(control) => self.control = Some(control),
            Err(e) => {
                self.report("bind the control socket", |_| Err(e));
                return Some(now_ms + RECORD_AGAIN_MS);
            }
        }
        let _ = spool::wake(self.dir); // a hint: the network-processor also looks by itself
        None
    }

    /// Whether it was done.
    fn on_control(&mut self, what: &ControlBody, now_ms: u64) -> bool {
        match what {
            ControlBody::Stop(stop) => {
                let own_ms = self.spec.grace_ms.unwrap_or(job::supervise::GRACE_MS_DEFAULT);
                let grace_ms = stop.grace_ms.unwrap_or(own_ms);
                self.step(Event::Stop { by: stop.by.clone(), grace_ms }, now_ms)
            }
            ControlBody::Suspend(order) => self.step(Event::Suspend { by: order.by.clone() }, now_ms),
            ControlBody::Resume(order) => self.step(Event::Resume { by: order.by.clone() }, now_ms),
        }
    }

    /// Goes to the next state and does what that asks for. `false`: it could not be written down, so nothing was done and the state stays.
    fn step(&mut self, event: Event, now_ms: u64) -> bool {
        let (state, action) = self.state.clone().on(event, now_ms);
        let before = std::mem::replace(&mut self.state, state);
        let done = self.act(action, now_ms);
        if !done {
            self.state = before;
        }
        done
    }

    fn act(&mut self, action: Option<Action>, now_ms: u64) -> bool {
        match action {
            None | Some(Action::Record) => {}
            Some(Action::Freeze { by }) => {
                let suspended = FactBody::Suspended(Suspended { by, boottime_ms: Some(now_ms) });
                if !self.told(suspended) {
                    return false;
                }
                self.report("suspend the job", Tree::freeze);
            }
            Some(Action::Thaw { by }) => {
                if !self.told(FactBody::Resumed(Resumed { by, boottime_ms: Some(now_ms) })) {
                    return false;
                }
                self.report("resume the job", Tree::thaw);
            }
            Some(Action::SoftSignal(cause)) => {
                // Written first, so that whoever records the end knows why; a full disk must not keep the job alive.
                let _ = self.recorder.record(FactBody::Stopping(stopping(&cause)));
                self.report("signal the job", Tree::soft_signal);
            }
            Some(Action::KillTree) => self.report("kill the job", Tree::kill),
            Some(Action::KillTreeAndAlert) => {
                self.report("kill the job", Tree::kill);
                let text = format!(
                    "process {} does not end though SIGKILL was sent {KILLS_BEFORE_ALERT} times",
                    self.pid
                );
                self.told(FactBody::Note(Note { text }));
            }
        }
        true
    }

    /// Writes a fact and hints that it is there. `false`: it could not be written.
    fn told(&mut self, fact: FactBody) -> bool {
        let recorded = self.recorder.record(fact);
        match &recorded {
            // a hint: the network-processor also looks by itself
            Ok(_) => drop(spool::wake(self.dir)),
            Err(e) => {
                eprintln!("{} job-processor {}: not recorded: {e}", clock::wall_ms(), self.dir.run_id());
            }
        }
        recorded.is_ok()
    }

    fn on_end(mut self, ended: wait::Waited) -> Result<Done, String> {
        let end =
            End::from_wait_status(ended.wait_status).ok_or("the kernel gave a wait status that is no end")?;
        let usage = spool::usage(Some(&ended), self.tree.cgroup());
        self.step(Event::Exited(end), clock::boottime_ms());
        let outcome = self.state.outcome(Witness::JobProcessor, usage).ok_or("an end without an outcome")?;
        crash::point("end.before-ended");
        let (done, mut recorder) = record(self.recorder, self.dir, &outcome);
        crash::point("end.after-ended");
        self.monitor.done();
        let _ = wait::reap(self.pid);
        crash::point("end.after-reap");
        if !self.tree.is_empty().unwrap_or(false) || !self.spec.capture.is_empty() {
            let _ = spool::wake(self.dir); // this process stays for a while, so its end cannot be the hint
        }
        match self.tree.leftovers(self.spec.leftovers_policy()) {
            Ok(None) => {}
            Ok(Some(text)) => note(&mut recorder, self.dir, text),
            Err(e) => eprintln!(
                "{} job-processor {}: cannot look for leftovers: {e}",
                clock::wall_ms(),
                self.dir.run_id()
            ),
        }
        if let Some(watch) = &mut self.output {
            watch.look_now();
            for text in spool::output::look(self.dir, watch, clock::boottime_ms()).notes {
                note(&mut recorder, self.dir, text);
            }
        }
        if self.control.is_some() {
            let _ = std::fs::remove_file(self.dir.path().join(spool::CONTROL_SOCKET));
        }
        if let Some(recorder) = &mut recorder {
            keep_files(self.dir, &self.spec, recorder)?;
        }
        Ok(done)
    }

    fn report(&self, what: &str, act: impl FnOnce(&Tree) -> io::Result<()>) {
        if let Err(e) = act(&self.tree) {
            eprintln!("{} job-processor {}: cannot {what}: {e}", clock::wall_ms(), self.dir.run_id());
        }
    }

    fn wait(&self, introduce_at_ms: Option<u64>) -> io::Result<Ready> {
        let now_ms = clock::boottime_ms();
        let due = [
            introduce_at_ms,
            self.state.next_tick_ms(),
            self.monitor.next_tick_ms(),
            self.output.as_ref().map(Watch::next_look_ms),
        ]
        .into_iter()
        .flatten()
        .min();
        let timeout = due.map(|at_ms| timespec(at_ms.saturating_sub(now_ms)));
        let mut fds = vec![
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(self.children.as_fd(), PollFlags::IN),
        ];
        let control = self.control.as_ref().map(ControlSocket::descriptor);
        fds.extend(control.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let monitor = fds.len();
        fds.extend(self.monitor.descriptor().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(e) => return Err(e.into()),
        }
        let hot = |i: usize| fds.get(i).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            job: hot(0),
            children: hot(1),
            control: control.is_some() && hot(2),
            monitor: hot(monitor),
        })
    }
}

/// An error makes this process end as one that did not do its work: the network-processor does the rest.
fn keep_files(dir: &RunDir, spec: &RunSpec, recorder: &mut Recorder) -> Result<(), String> {
    spool::capture(dir, spec, BTreeSet::new(), recorder, Unwritten::Wait).map_err(|e| e.to_string())?;
    if !spec.capture.is_empty() {
        let _ = spool::wake(dir); // a hint
    }
    Ok(())
}

fn note(recorder: &mut Option<Recorder>, dir: &RunDir, text: String) {
    let recorded = recorder.as_mut().map(|recorder| recorder.record(FactBody::Note(Note { text })));
    if let Some(Ok(_)) = recorded {
        let _ = spool::wake(dir);
    }
}

fn timespec(ms: u64) -> rustix::time::Timespec {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    rustix::time::Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
}

fn stopping(cause: &StopCause) -> Stopping {
    match cause {
        StopCause::Kill { by } => Stopping { killed_by: Some(by.clone()), timed_out_after_ms: None },
        StopCause::TimedOut { timeout_ms } => {
            Stopping { killed_by: None, timed_out_after_ms: Some(*timeout_ms) }
        }
    }
}

/// Writes the outcome, for as long as it takes: a disk that fails now may be back in a minute, and nobody else knows what happened.
/// `None` for the recorder: somebody else wrote an outcome meanwhile.
fn record(recorder: Recorder, dir: &RunDir, outcome: &Outcome) -> (Done, Option<Recorder>) {
    let mut taken = Some(recorder);
    loop {
        let error = match taken.as_mut().map(|recorder| recorder.record_outcome(outcome)) {
            Some(Ok(_)) => {
                crash::point("end.before-wake");
                return (Done::Recorded, taken);
            }
            Some(Err(WriteError::Filled(_))) => return (Done::NothingToDo, taken),
            Some(Err(e)) => e.to_string(),
            None => "the log cannot be opened, or another process has it".into(),
        };
        eprintln!(
            "{} job-processor {}: the outcome is not recorded yet, trying again: {error}",
            clock::wall_ms(),
            dir.run_id()
        );
        // A handle that failed once is done with. It is closed first: closing it later would drop the lock of the new one.
        drop(taken.take());
        std::thread::sleep(std::time::Duration::from_millis(RECORD_AGAIN_MS));
        taken = match Recorder::take(dir) {
            Ok((_, ledger)) if ledger.ended.is_some() => return (Done::NothingToDo, None),
            Ok((anew, _)) => Some(anew),
            // Whoever has it may only note something, so what is known here is kept until an outcome is written.
            Err(TakeError::Held | TakeError::Ledger(_)) => None,
        };
    }
}

//! The agent: owner of the table of runs and of the outbox. One event at a time; everything slow happens elsewhere and comes back as an
//! event.

use crate::delivery::{Delivered, Settling};
use crate::disk::{Disk, Recalled};
use crate::event::{Event, NotPrepared};
use crate::housekeeping::Tidying;
use crate::identity::Identity;
use crate::launch::{JobProcessor, Launched, Launcher, NotLaunched};
use crate::leftovers::Leaving;
use crate::links::Links;
use crate::orphans::Orphans;
use crate::resend::CatchingUp;
use crate::retention::Settled;
use crate::run::{Delivery, Keeper, Run};
use crate::secrets::FileSecrets;
use crate::session::Sessions;
use crate::streams::Streams;
use crate::users::NotResolved;
use config::AgentConfig;
use job::RunId;
use os::pidfd::Pidfd;
use protocol::message::{Kill, NoRecord, RefusalKind, Start, Stop};
use protocol::outbox::Outbox;
use protocol::{Frame, RunSpec, convert};
use spool::PrepareError;
use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// Job-processors that are started for one run before it is given up.
pub(crate) const LAUNCHES_MAX: u32 = 5;
/// How often a settled log is read that cannot be read now, and the pause between.
const RECALLS_MAX: u32 = 5;
const RECALL_AGAIN: Duration = Duration::from_secs(1);
/// So many refused runs are remembered, the newest.
const REFUSED_MAX: usize = 10_000;
/// A stop waits so long for the disk.
const STOP_SAVE_MAX: Duration = Duration::from_secs(2);
/// Before a directory that could not be synced is tried again.
const SYNC_AGAIN: Duration = Duration::from_secs(1);

/// The agent's state.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) config: AgentConfig,
    pub(crate) disk: Disk,
    pub(crate) launcher: Launcher,
    pub(crate) identity: Identity,
    /// The configuration's file.
    pub(crate) path: PathBuf,
    pub(crate) links: Links,
    pub(crate) settled: Settled,
    pub(crate) settling: Settling,
    pub(crate) runs: HashMap<RunId, Run>,
    pub(crate) outbox: Outbox,
    pub(crate) sessions: Sessions,
    /// Output that servers read.
    pub(crate) streams: Streams,
    pub(crate) secrets: Arc<FileSecrets>,
    pub(crate) events: UnboundedSender<Event>,
    /// Why no new runs are taken; empty if they are.
    pub(crate) refusing: String,
    /// Runs that were refused in the present term. The server may take them for over: an order that comes late, over an older connection, is refused too.
    pub(crate) refused: BTreeSet<RunId>,
    /// When the last round of retention was.
    pub(crate) swept_ms: u64,
    /// What the rounds of retention and the looks at the disk have to know of each other.
    pub(crate) tidying: Tidying,
    /// When this process began, `CLOCK_BOOTTIME` milliseconds.
    pub(crate) begun_ms: u64,
    /// When the last slow round of housekeeping was, `CLOCK_BOOTTIME` milliseconds.
    pub(crate) housekept_ms: u64,
    /// Frames that wait for room on the active link.
    pub(crate) waiting: VecDeque<Frame>,
    /// The settled runs are being sent again.
    pub(crate) resending: bool,
    /// To a server that went back in time, and counts as such until it has acknowledged all of them.
    pub(crate) catching_up: Option<CatchingUp>,
    /// What jobs that are over left running.
    pub(crate) leaving: Leaving,
    /// What came to us as the reaper of orphans.
    pub(crate) orphans: Orphans,
    /// Runs of the scan at the start that were not read yet.
    pub(crate) unread: usize,
}

impl Agent {
    /// Runs until a controlled stop.
    pub(crate) async fn run(mut self, mut queue: UnboundedReceiver<Event>) -> anyhow::Result<()> {
        while let Some(event) = queue.recv().await {
            if matches!(event, Event::Stop) {
                break;
            }
            self.on(event);
            // What waits is taken together, so that one frame carries many messages.
            while let Ok(event) = queue.try_recv() {
                if matches!(event, Event::Stop) {
                    return self.stop().await;
                }
                self.on(event);
            }
            self.pump();
            self.settle_due(false);
            self.tell_readers();
        }
        self.stop().await
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        tracing::info!("controlled stop; running jobs and their job-processors go on");
        let (file, acked) = (self.identity.file.clone(), self.identity.acked);
        let saved = tokio::task::spawn_blocking(move || file.save_acked(acked));
        match tokio::time::timeout(STOP_SAVE_MAX, saved).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(e))) => tracing::warn!("the identity file could not be written: {e}"),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("the identity file is not written: the disk does not answer")
            }
        }
        self.sessions.goodbye("the agent stops", true).await;
        Ok(())
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Linked(link) => self.on_linked(*link),
            Event::Frame(session, frame) => self.on_frame(session, *frame),
            Event::Unlinked(session, reason) => self.on_unlinked(session, &reason),
            Event::Woken(run_id) => self.read(run_id),
            Event::Prepared(run_id, prepared) => self.on_prepared(run_id, prepared),
            Event::Relaunched(run_id, launched) => self.on_relaunched(run_id, launched),
            Event::Read(run_id, seen) => self.on_read(run_id, *seen),
            Event::JobProcessorGone(run_id) => self.on_job_processor_gone(run_id),
            Event::JobGone(run_id) => self.on_job_gone(run_id),
            Event::StopDelivered(run_id, delivered) => self.on_stop_delivered(run_id, delivered),
            Event::Paused(run_id, done) => self.on_paused(run_id, done),
            Event::PausedAdopted(run_id, suspended, done) => self.on_paused_adopted(run_id, suspended, done),
            Event::FilesKept(run_id, kept) => self.on_files_kept(run_id, kept),
            Event::LeftoversSeen(seen) => self.on_leftovers_seen(seen),
            Event::OutputSeen(run_id, watch, kill) => self.on_output_seen(run_id, watch, kill),
            Event::Recorded(run_id, recorded) => self.on_recorded(run_id, recorded),
            Event::Asked(run_id, answer) => self.on_asked(run_id, answer),
            Event::MonitorSeen(monitor) => self.on_monitor_seen(monitor),
            Event::MonitorTold(run_id, monitor) => self.on_monitor_told(run_id, monitor),
            Event::Moved(run_id, moved) => self.on_moved(run_id, moved),
            Event::Settled(moved) => self.on_settled(moved),
            Event::Recalled(run_id, recalled) => self.on_recalled(run_id, recalled),
            Event::Resending(session, sent) => self.on_resending(session, sent),
            Event::Resent(session, resent) => self.on_resent(session, resent),
            Event::Swept(done) => self.on_swept(done),
            Event::Room(room) => self.on_room(room),
            Event::SecretsSeen => self.on_secrets_seen(),
            Event::Saved(saved) => self.on_saved(saved),
            Event::Raised(raised) => self.on_raised(*raised),
            Event::Reloaded(config) => self.on_reloaded(config),
            Event::Tick => self.on_tick(),
            Event::Reload => self.on_reload(),
            Event::Stop => {}
        }
    }

    pub(crate) fn on_start(&mut self, session: u64, start: Start) {
        let run_id = match convert::run_id("Start", &start.run_id) {
            Ok(run_id) => run_id,
            Err(e) => return self.sessions.complain(session, &e.to_string()),
        };
        if self.is_fenced(session, start.epoch) {
            return self.refuse(
                run_id,
                RefusalKind::Fenced,
                "a server of a later epoch commands this agent".into(),
            );
        }
        if self.runs.contains_key(&run_id) {
            return; // it is accepted, or about to be: its messages are on their way
        }
        let mut spec = start.spec.map_or_else(RunSpec::default, |spec| *spec);
        if spec.output_limit.is_none() {
            let own = self.config.output.limit().unwrap_or_default(); // checked when it was read
            spec.output_limit = convert::output_limit_field(own);
        }
        if let Err(e) = spec.check() {
            return self.refuse(run_id, RefusalKind::Invalid, e.to_string());
        }
        if self.refused.contains(&run_id) {
            return self.refuse(
                run_id,
                RefusalKind::NoRoom,
                "it was refused when it was ordered before".into(),
            );
        }
        let mut run = Run::new(Keeper::Preparing);
        (run.timeout_ms, run.grace_ms, run.launches) = (spec.timeout_ms, spec.grace_ms, 1);
        self.runs.insert(run_id, run);
        self.launcher.prepare(&self.disk, run_id, spec, self.identity.file.clone(), self.refusing.clone());
    }

    pub(crate) fn on_kill(&mut self, session: u64, kill: Kill) {
        let run_id = match convert::run_id("Kill", &kill.run_id) {
            Ok(run_id) => run_id,
            Err(e) => return self.sessions.complain(session, &e.to_string()),
        };
        if self.is_fenced(session, kill.epoch) {
            return tracing::warn!(run = %run_id, "a kill of a server of an earlier epoch is not obeyed");
        }
        match self.runs.entry(run_id) {
            Entry::Occupied(_) => self.want_stop(run_id, Stop { grace_ms: kill.grace_ms, by: kill.by }),
            Entry::Vacant(vacant) => {
                vacant.insert(Run::new(Keeper::Preparing));
                self.launcher.entomb(&self.disk, run_id, kill.by);
            }
        }
    }

    /// The session's own epoch was admitted; a command that names another one is not from this server's present term.
    pub(crate) fn is_fenced(&self, session: u64, epoch: Option<u64>) -> bool {
        !self.sessions.is_active(session) || epoch != Some(self.identity.fence.epoch)
    }

    fn refuse(&mut self, run_id: RunId, kind: RefusalKind, reason: String) {
        tracing::warn!(run = %run_id, ?kind, "run refused: {reason}");
        match kind {
            RefusalKind::NoRoom | RefusalKind::Invalid | RefusalKind::Expired => {
                self.refused.insert(run_id);
                if self.refused.len() > REFUSED_MAX {
                    self.refused.pop_first(); // a run id begins with its time
                }
            }
            RefusalKind::Fenced | RefusalKind::Damaged | RefusalKind::Unspecified => {}
        }
        self.say_refused(run_id, kind, reason);
    }

    fn on_prepared(&mut self, run_id: RunId, prepared: Result<Launched, NotPrepared>) {
        let not_prepared = match prepared {
            Ok(launched) => {
                let known = !launched.messages.is_empty();
                self.take_first(run_id, launched.messages);
                self.set_job_processor(run_id, launched.job_processor);
                if !known || self.runs.get(&run_id).is_some_and(|run| run.dirty) {
                    self.read(run_id);
                }
                return;
            }
            Err(not_prepared) => not_prepared,
        };
        match &not_prepared {
            // It is accepted as far as anybody can tell after a power cut, so it stays ours.
            NotPrepared::Unsynced(e) => {
                tracing::error!(run = %run_id, "runs/ cannot be synced, trying again: {e}");
                return self.prepare_later(run_id);
            }
            NotPrepared::Present => {
                self.set_job_processor(run_id, JobProcessor::Nobody);
                return self.read(run_id);
            }
            NotPrepared::Settled
            | NotPrepared::Quarantined
            | NotPrepared::Expired
            | NotPrepared::Refusing(_)
            | NotPrepared::User(_)
            | NotPrepared::Failed(_) => {}
        }
        self.runs.remove(&run_id);
        match not_prepared {
            NotPrepared::Unsynced(_) | NotPrepared::Present => {}
            NotPrepared::Settled => self.recall(run_id),
            NotPrepared::Quarantined => self.report_damaged(run_id),
            NotPrepared::Expired => {
                let reason =
                    "the run is as old as settled runs that the agent has removed, so nobody can tell whether it ran"
                        .to_owned();
                self.refuse(run_id, RefusalKind::Expired, reason);
            }
            NotPrepared::Refusing(reason) => self.refuse(run_id, RefusalKind::NoRoom, reason),
            NotPrepared::User(NotResolved::Refused(reason)) => {
                self.refuse(run_id, RefusalKind::Invalid, reason);
            }
            NotPrepared::User(e @ NotResolved::NotNow(_)) => {
                self.refuse(run_id, RefusalKind::NoRoom, e.to_string());
            }
            NotPrepared::Failed(PrepareError::TooLong(e)) => {
                self.refuse(run_id, RefusalKind::Invalid, e.to_string())
            }
            NotPrepared::Failed(e @ PrepareError::NoRoom(_)) => {
                self.set_refusing(e.to_string());
                self.refuse(run_id, RefusalKind::NoRoom, e.to_string());
            }
            NotPrepared::Failed(e @ PrepareError::Io(_)) => {
                self.refuse(run_id, RefusalKind::NoRoom, e.to_string())
            }
        }
    }

    /// What a log was made with needs not be read from it. It is sent with what comes next, which for a short job is all the rest; if nothing comes,
    /// the next slow round reads the log.
    fn take_first(&mut self, run_id: RunId, messages: Vec<spool::Stored>) {
        let Some(run) = self.runs.get_mut(&run_id).filter(|run| run.messages.is_empty()) else { return };
        run.last_seq = messages.last().map_or(0, |message| message.seq);
        run.messages = messages;
    }

    fn on_relaunched(&mut self, run_id: RunId, launched: Result<Launched, NotLaunched>) {
        match launched {
            Ok(launched) => {
                self.set_job_processor(run_id, launched.job_processor);
                if self.runs.get(&run_id).is_some_and(|run| run.dirty) {
                    self.read(run_id); // it said something before we knew that it was there
                }
            }
            Err(NotLaunched::Refused(reason)) => self.never_starts(run_id, reason),
            Err(NotLaunched::NotNow(e)) => {
                tracing::warn!(run = %run_id, "no job-processor could be started: {e}");
                if let Some(run) = self.runs.get_mut(&run_id) {
                    run.launches = run.launches.saturating_sub(1); // none was
                }
                self.set_job_processor(run_id, JobProcessor::Nobody); // the tick looks again
            }
        }
    }

    fn set_job_processor(&mut self, run_id: RunId, job_processor: JobProcessor) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        match job_processor {
            JobProcessor::Child(pid, pidfd) => {
                run.keeper = Keeper::JobProcessor(pid);
                self.watch(pidfd, Event::JobProcessorGone(run_id));
            }
            JobProcessor::Nobody => run.keeper = Keeper::Nobody,
            // Until sudo is gone nobody else is started.
            JobProcessor::Due(user) => return self.launcher.ask_sudo(&self.disk, run_id, user),
            JobProcessor::Apart => {
                run.keeper = Keeper::Nobody;
                self.read(run_id); // who holds the log is watched from now on
            }
        }
        self.deliver_stop(run_id);
        self.deliver_pause(run_id);
    }

    /// Reports `event` when the process ends.
    pub(crate) fn watch(&self, pidfd: Pidfd, event: Event) {
        let events = self.events.clone();
        tokio::spawn(async move {
            #[expect(
                deprecated,
                reason = "a Pidfd owns its one descriptor, which is what the newer, unsafe call asks for"
            )]
            let watched = AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE);
            match watched {
                Ok(pidfd) => drop(pidfd.readable().await),
                Err(e) => tracing::error!("a process cannot be watched: {e}"), // the tick looks at it too
            }
            let _ = events.send(event);
        });
    }

    fn on_job_processor_gone(&mut self, run_id: RunId) {
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        if let Keeper::JobProcessor(pid) = run.keeper {
            let reaped = os::wait::reap(pid); // not our child if an earlier network-processor started it
            let well = matches!(reaped, Ok(Some(waited)) if waited.wait_status == 0);
            (run.keeper, run.unswept, run.is_recorded) = (Keeper::Nobody, !well, well);
            if let Some(wanted) = run.stop.as_mut() {
                wanted.delivery = Delivery::Due; // it took what it was told with it
            }
            if let Some(wanted) = run.pause.as_mut() {
                wanted.delivery = Delivery::Due;
            }
            self.read(run_id); // what is in the log now is all that it wrote
        }
    }

    /// Makes a prepared run durable a little later.
    fn prepare_later(&self, run_id: RunId) {
        let (launcher, disk) = (self.launcher.clone(), self.disk.clone());
        tokio::spawn(async move {
            tokio::time::sleep(SYNC_AGAIN).await;
            launcher.prepare_again(&disk, run_id);
        });
    }

    /// Says of a run that is not live what its log says, if it is here.
    fn recall(&self, run_id: RunId) {
        let (disk, events) = (self.disk.clone(), self.events.clone());
        tokio::spawn(async move {
            let mut tries = 0;
            let recalled = loop {
                let disk = disk.clone();
                let recalled = tokio::task::spawn_blocking(move || disk.recall(run_id)).await;
                tries += 1;
                match recalled {
                    Ok(Recalled::NotNow(_)) if tries < RECALLS_MAX => tokio::time::sleep(RECALL_AGAIN).await,
                    Ok(recalled) => break recalled,
                    Err(_) => return, // the loop is going
                }
            };
            let _ = events.send(Event::Recalled(run_id, recalled));
        });
    }

    fn on_recalled(&mut self, run_id: RunId, recalled: Recalled) {
        if self.runs.contains_key(&run_id) {
            return; // it came while its record was looked for
        }
        match recalled {
            Recalled::Settled(ledger) => {
                self.send_delivered(&[Delivered { run_id, messages: ledger.messages }]);
            }
            Recalled::Damaged => self.report_damaged(run_id),
            Recalled::NotNow(e) => {
                tracing::error!(run = %run_id, "a settled run cannot be read: {e}");
                self.report_damaged(run_id);
            }
            Recalled::Live => {
                self.runs.insert(run_id, Run { unswept: true, ..Run::new(Keeper::Nobody) });
                self.read(run_id);
            }
            Recalled::None => self.say(Frame::NoRecord(NoRecord { run_id: convert::run_id_field(run_id) })),
        }
    }

    /// Says of a run that the server misses what is known.
    pub(crate) fn account_for(&mut self, run_id: RunId) {
        if !self.runs.contains_key(&run_id) {
            self.recall(run_id);
        }
    }
}

//! The engine's state, and the one door in and out.

use crate::event;
use crate::identity::Rival;
use crate::input::{Action, Change, Input, Output, Reply};
use crate::line::Line;
use crate::place::{Key, Rank};
use crate::recovery::Recovering;
use crate::rejection::Rejection;
use crate::{
    AgentRecord, AgentView, Counts, FailedProof, JobRecord, JobSpec, QueueRecord, QueueView, RunRecord,
    Snapshot, Wait,
};
use job::{JobId, RunId, RunIds, Status};
use protocol::handshake::PROTOCOL_VERSION_MIN;
use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The memory of so many changes is used again.
const CHANGES_KEPT_MAX: usize = 65_536;

/// A queue inside the engine; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct QueueIx(pub(crate) u64);

/// An agent inside the engine; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AgentIx(pub(crate) u64);

/// What the engine has of a queue.
pub(crate) struct Queue {
    pub(crate) record: QueueRecord,
    pub(crate) agents: BTreeSet<AgentIx>,
    /// Queued jobs that may go to any attached agent.
    pub(crate) unpinned: Line,
    /// Queued jobs that may go to one agent only, by its name (it may not exist).
    pub(crate) pinned: BTreeMap<String, Line>,
    /// What [`Engine::heads`] has of this queue, by what the job needs.
    pub(crate) heads: BTreeMap<u32, Rank>,
    /// Jobs that are not over and have no run.
    pub(crate) waiting: u64,
    /// Jobs with a run that is not over.
    pub(crate) active: u64,
}

/// What the engine has of an agent.
pub(crate) struct Agent {
    pub(crate) record: AgentRecord,
    pub(crate) queues: BTreeSet<QueueIx>,
    pub(crate) session: Option<u64>,
    /// The protocol version that is spoken with it, or was last.
    pub(crate) protocol: u32,
    pub(crate) refusing: String,
    /// The latest proof that failed since it last connected.
    pub(crate) failed_proof: Option<FailedProof>,
    /// Who else claims to be this agent, until its session gave a sign of life or ended.
    pub(crate) rival: Option<Rival>,
    pub(crate) paused_until_ms: Option<i64>,
    /// The length of the last pause; 0 after a run was accepted.
    pub(crate) pause_ms: i64,
    /// Runs that are not over: each takes a slot.
    pub(crate) runs: BTreeSet<RunId>,
    /// The first job pinned to this agent of each attached queue that gives jobs away, and the same the other way round.
    pub(crate) pinned_heads: BTreeSet<(Rank, QueueIx)>,
    pub(crate) pinned_head_of: BTreeMap<QueueIx, Rank>,
}

/// What the engine has of a job.
pub(crate) struct Job {
    pub(crate) record: JobRecord,
    pub(crate) queue: QueueIx,
    pub(crate) write: Write,
    /// The protocol version that its agent has to speak.
    pub(crate) needs: u32,
    /// The status of which an event told; none of a new job.
    pub(crate) told: Option<Status>,
}

/// What the engine has of a run.
pub(crate) struct Run {
    pub(crate) record: RunRecord,
    pub(crate) write: Write,
}

/// Whether a record has to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Clean,
    Insert,
    Update,
}

/// Everything that is not over, and what is decided about it. See the crate's head.
pub struct Engine {
    pub(crate) queues: BTreeMap<QueueIx, Queue>,
    pub(crate) queue_names: BTreeMap<String, QueueIx>,
    pub(crate) agents: BTreeMap<AgentIx, Agent>,
    pub(crate) agent_names: BTreeMap<String, AgentIx>,
    // Looked up only, never walked: their order is not repeatable.
    pub(crate) jobs: HashMap<JobId, Job>,
    pub(crate) runs: HashMap<RunId, Run>,
    pub(crate) keys: HashMap<String, (JobId, Arc<JobSpec>)>,
    /// The first unpinned jobs of every queue that gives jobs away: one of each kind of what they need.
    pub(crate) heads: BTreeSet<(Rank, QueueIx, u32)>,
    /// Jobs that wait for a moment, by that moment.
    pub(crate) due: BTreeSet<(i64, JobId)>,
    /// What the clock said last.
    pub(crate) seen_ms: i64,
    /// Jobs that are over, from the database, until the next commit.
    pub(crate) recalled: HashMap<JobId, JobRecord>,
    /// Agents that rest, by the end of their rest.
    pub(crate) paused: BTreeSet<(i64, AgentIx)>,
    pub(crate) ids: RunIds,
    pub(crate) counts: Counts,
    pub(crate) last_job: u64,
    pub(crate) recovering: Option<Recovering>,
    pub(crate) last_event: u64,
    /// The clock of the latest input.
    pub(crate) now_ms: i64,
    next_ix: u64,
    pub(crate) out: Output,
    pub(crate) dirty_jobs: Vec<JobId>,
    pub(crate) dirty_runs: Vec<RunId>,
    pub(crate) passing: Passing,
}

/// What stays in memory only until it is committed.
#[derive(Clone, Debug, Default)]
pub struct Passing {
    pub(crate) jobs: Vec<JobId>,
    pub(crate) runs: Vec<RunId>,
    keys: Vec<String>,
}

/// The snapshot contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database contradicts itself: {0}; restore it from a backup")]
pub struct RestoreError(pub String);

impl Engine {
    /// Goes on from what was stored. Nobody is connected yet; `ids` makes the new run ids.
    pub fn restore(snapshot: Snapshot, ids: RunIds) -> Result<Engine, RestoreError> {
        let mut engine = Engine::empty(ids);
        if let Some(latest) = snapshot.last_run {
            engine.ids.go_on_after(latest);
        }
        engine.counts = snapshot.counts;
        engine.last_job = snapshot.last_job;
        engine.last_event = snapshot.last_event;
        engine.recovering = snapshot.recovery.map(Recovering::new);
        for record in snapshot.queues {
            engine.add_queue(record);
        }
        for record in snapshot.agents {
            engine.add_agent(record);
        }
        for (queue, agent) in snapshot.attachments {
            let ends = engine.queue_names.get(&queue).copied().zip(engine.agent_names.get(&agent).copied());
            let (queue_ix, agent_ix) = ends.ok_or_else(|| {
                RestoreError(format!(
                    "queue \"{queue}\" is attached to agent \"{agent}\", and one of them is missing"
                ))
            })?;
            engine.link(queue_ix, agent_ix);
        }
        for record in snapshot.runs {
            engine.restore_run(record)?;
        }
        for record in snapshot.jobs {
            engine.restore_job(record)?;
        }
        for queue in engine.queues.keys().copied().collect::<Vec<_>>() {
            engine.refresh_queue(queue); // now that it is known how many of its slots are taken
        }
        Ok(engine)
    }

    fn empty(ids: RunIds) -> Engine {
        Engine {
            queues: BTreeMap::new(),
            queue_names: BTreeMap::new(),
            agents: BTreeMap::new(),
            agent_names: BTreeMap::new(),
            jobs: HashMap::new(),
            runs: HashMap::new(),
            keys: HashMap::new(),
            heads: BTreeSet::new(),
            due: BTreeSet::new(),
            seen_ms: i64::MAX, // whether the clock went back since the last server is not known
            recalled: HashMap::new(),
            paused: BTreeSet::new(),
            ids,
            counts: Counts::default(),
            last_job: 0,
            recovering: None,
            last_event: 0,
            now_ms: 0,
            next_ix: 0,
            out: Output::default(),
            dirty_jobs: Vec::new(),
            dirty_runs: Vec::new(),
            passing: Passing::default(),
        }
    }

    fn restore_run(&mut self, record: RunRecord) -> Result<(), RestoreError> {
        let agent =
            self.agent_names.get(&record.agent).and_then(|ix| self.agents.get_mut(ix)).ok_or_else(|| {
                RestoreError(format!("run {} is on agent \"{}\", which is missing", record.id, record.agent))
            })?;
        agent.runs.insert(record.id);
        self.runs.insert(record.id, Run { record, write: Write::Clean });
        Ok(())
    }

    fn restore_job(&mut self, record: JobRecord) -> Result<(), RestoreError> {
        let id = record.id;
        let queue = *self.queue_names.get(&record.spec.queue).ok_or_else(|| {
            RestoreError(format!("job {id} waits in queue \"{}\", which is missing", record.spec.queue))
        })?;
        let active = is_placed(record.status);
        if active && record.run.is_none_or(|run| !self.runs.contains_key(&run)) {
            return Err(RestoreError(format!("job {id} is {}, and its run is missing", record.status)));
        }
        if let Some(key) = &record.spec.idempotency_key {
            self.keys.insert(key.clone(), (id, Arc::clone(&record.spec)));
        }
        let until_ms = record.wait.and_then(Wait::until_ms).filter(|_| record.status != Status::Held);
        let queued = record.status == Status::Queued;
        let told = Some(record.status);
        self.jobs.insert(id, Job::new(record, queue, Write::Clean, told));
        let entry = self.queue_mut(queue);
        if active {
            entry.active += 1;
        } else {
            entry.waiting += 1;
        }
        if let Some(until_ms) = until_ms {
            self.due.insert((until_ms, id));
        }
        if queued {
            self.enqueue(id);
        }
        Ok(())
    }

    /// Takes one input. What it leads to is handed out by [`Engine::take`]; a rejected command changes nothing.
    pub fn on(&mut self, input: Input, now_ms: i64) -> Result<Reply, Rejection> {
        self.now_ms = now_ms;
        match input {
            Input::Submit(specs) => return self.on_submit(specs, now_ms).map(Reply::Submitted),
            Input::KillJob { job, by, grace_ms } => self.on_kill(job, by, grace_ms, now_ms)?,
            Input::SuspendJob { job, by } => self.on_suspend_job(job, by, now_ms)?,
            Input::ResumeJob { job, by } => self.on_resume_job(job, by, now_ms)?,
            Input::CancelJob { job, by } => self.on_cancel(job, &by, now_ms)?,
            Input::HoldJob { job } => self.on_hold(job)?,
            Input::ReleaseJob { job } => self.on_release(job, now_ms)?,
            Input::RestartJob(restart) => self.on_restart(restart, now_ms)?,
            Input::AbandonJob { job, by, reason } => self.on_abandon(job, &by, &reason, now_ms)?,
            Input::CreateQueue { name } => self.on_create_queue(name, now_ms)?,
            Input::DeleteQueue { name } => self.on_delete_queue(&name)?,
            Input::HoldQueue { name, held } => self.on_hold_queue(&name, held, now_ms)?,
            Input::SetQueue { name, slots, priority } => self.on_set_queue(&name, slots, priority, now_ms)?,
            Input::Attach { queue, agent } => self.on_attach(&queue, &agent, now_ms)?,
            Input::Detach { queue, agent } => self.on_detach(&queue, &agent)?,
            Input::AddAgent(agent) => self.on_add_agent(agent, now_ms)?,
            Input::RemoveAgent { name, force, by } => self.on_remove_agent(&name, force, &by, now_ms)?,
            Input::SetSlots { name, slots } => self.on_set_slots(&name, slots, now_ms)?,
            Input::SetSecret { name, secret } => self.on_set_secret(name, secret)?,
            Input::RetireSecrets { name } => self.on_retire_secrets(name)?,
            Input::DrainAgent { name, by, reason } => self.on_drain(&name, by, reason, now_ms)?,
            Input::ResumeAgent { name } => self.on_resume(&name, now_ms)?,
            Input::AgentAnswered { agent, session } => self.on_answered(&agent, session, now_ms),
            Input::AgentConnected(connected) => self.on_connected(connected, now_ms),
            Input::AgentDisconnected { agent, session, stopping } => {
                self.on_disconnected(&agent, session, stopping, now_ms);
            }
            Input::AgentUnproven { agent, address, reason } => {
                self.on_unproven(&agent, address, reason, now_ms);
            }
            Input::AgentRefusing { agent, session, refusing } => {
                self.on_refusing(&agent, session, refusing, now_ms)
            }
            Input::Facts { agent, facts } => self.on_facts(&agent, facts, now_ms),
            Input::Refused { agent, session, run, kind, reason } => {
                self.on_refused(&agent, session, run, kind, &reason, now_ms);
            }
            Input::NoRecord { agent, session, run } => self.on_no_record(&agent, session, run, now_ms),
            Input::CaughtUp { agent, session } => self.on_caught_up(&agent, session),
            Input::Untellable { agent, session, runs } => self.on_untellable(&agent, session, &runs, now_ms),
            Input::Adopt { agent, spec, facts } => self.on_adopt(&agent, &spec, facts, now_ms)?,
            Input::Told { agent } => self.on_told(&agent, now_ms),
            Input::EndRecovery => self.on_end_recovery(now_ms),
            Input::Forget(jobs) => self.on_forget(jobs),
            Input::Tick => self.on_tick(now_ms),
        }
        Ok(Reply::Done)
    }

    /// Hands out what was decided since the last time. The changes have to be committed before anything else is done;
    /// then [`Engine::on_committed`] is called, then the actions are carried out. Meanwhile the engine may decide more, if what it is told
    /// concerns runs that are in its memory only; that is handed out when this is committed, no earlier.
    pub fn take(&mut self) -> Output {
        let dirty_jobs = std::mem::take(&mut self.dirty_jobs);
        self.tell_statuses(&dirty_jobs);
        let mut out = std::mem::take(&mut self.out);
        out.passing = std::mem::take(&mut self.passing);
        for id in dirty_jobs {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            match std::mem::replace(&mut job.write, Write::Clean) {
                Write::Insert => out.changes.push(Change::JobInserted(job.record.clone())),
                Write::Update => out.changes.push(Change::JobUpdated(job.record.clone())),
                Write::Clean => {}
            }
        }
        for id in std::mem::take(&mut self.dirty_runs) {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            match std::mem::replace(&mut run.write, Write::Clean) {
                Write::Insert => out.changes.push(Change::RunInserted(run.record.clone())),
                Write::Update => out.changes.push(Change::RunUpdated(run.record.clone())),
                Write::Clean => {}
            }
        }
        out
    }

    fn tell_statuses(&mut self, jobs: &[JobId]) {
        for id in jobs {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            if job.told.replace(job.record.status) != Some(job.record.status) {
                let event = event::of_status(&job.record);
                self.tell(event);
            }
        }
    }

    /// What was taken is committed: what is over leaves the memory, unless more was decided about it meanwhile. The room that the changes
    /// took is used again.
    pub fn on_committed(&mut self, passing: Passing, mut changes: Vec<Change>) {
        self.recalled.clear();
        for id in passing.jobs {
            match self.jobs.entry(id) {
                Entry::Occupied(job) if job.get().write != Write::Clean => self.passing.jobs.push(id),
                // Unless it was restarted since.
                Entry::Occupied(job) if job.get().record.status.is_final() => {
                    if let Some(key) = &job.remove().record.spec.idempotency_key {
                        self.keys.remove(key);
                    }
                }
                Entry::Occupied(_) | Entry::Vacant(_) => {}
            }
        }
        for id in passing.runs {
            match self.runs.entry(id) {
                Entry::Occupied(run) if run.get().write != Write::Clean => self.passing.runs.push(id),
                Entry::Occupied(run) => drop(run.remove()),
                Entry::Vacant(_) => {}
            }
        }
        for key in passing.keys {
            if self.keys.get(&key).is_some_and(|(id, _)| !self.jobs.contains_key(id)) {
                self.keys.remove(&key);
            }
        }
        if self.out.changes.is_empty() && changes.capacity() <= CHANGES_KEPT_MAX {
            changes.clear();
            self.out.changes = changes;
        }
    }

    /// Whether the engine has the run in memory. If not, the owner looks it up and tells by [`Engine::recall_run`] before it
    /// hands in facts about it.
    pub fn has_run(&self, run: RunId) -> bool {
        self.runs.contains_key(&run)
    }

    /// Up to which of its facts a run is stored; 0 if it is not in memory.
    pub fn acked_seq(&self, run: RunId) -> u64 {
        self.runs.get(&run).map_or(0, |run| run.record.acked_seq)
    }

    /// A run that is over, from the database; stays until the next commit.
    pub fn recall_run(&mut self, record: RunRecord) {
        debug_assert!(
            record.status.is_final(),
            "run {} is {} and was not in memory",
            record.id,
            record.status
        );
        self.passing.runs.push(record.id);
        self.runs.insert(record.id, Run { record, write: Write::Clean });
    }

    /// Whether the engine knows a job with this idempotency key. If not, the owner looks it up and tells by
    /// [`Engine::recall_key`] before it hands in a request with that key.
    pub fn has_key(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// A job that is over and has an idempotency key, from the database; stays until the next commit.
    pub fn recall_key(&mut self, job: &JobRecord) {
        if let Some(key) = &job.spec.idempotency_key {
            self.passing.keys.push(key.clone());
            self.keys.insert(key.clone(), (job.id, Arc::clone(&job.spec)));
        }
    }

    /// Whether the engine has the job in memory. If not, and somebody wants it restarted, the owner looks it up and tells by
    /// [`Engine::recall_job`].
    pub fn has_job(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// A job that is over, from the database; stays until the next commit, or for good if it is restarted.
    pub fn recall_job(&mut self, record: JobRecord) {
        debug_assert!(record.status.is_final(), "job {} is {} and not in memory", record.id, record.status);
        self.recalled.insert(record.id, record);
    }

    /// A job that is not over.
    pub fn job(&self, job: JobId) -> Option<&JobRecord> {
        self.jobs.get(&job).map(|job| &job.record).filter(|record| !record.status.is_final())
    }

    /// All jobs by status.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Every queue, by name.
    pub fn queues(&self) -> Vec<QueueView> {
        self.queue_names.keys().filter_map(|name| self.queue(name)).collect()
    }

    /// One queue.
    pub fn queue(&self, name: &str) -> Option<QueueView> {
        let queue = self.queues.get(self.queue_names.get(name)?)?;
        let mut agents: Vec<_> = queue.agents.iter().map(|ix| self.agents[ix].record.name.clone()).collect();
        agents.sort();
        Some(QueueView { record: queue.record.clone(), agents, waiting: queue.waiting, active: queue.active })
    }

    /// Every agent, by name.
    pub fn agents(&self) -> Vec<AgentView> {
        self.agent_names.keys().filter_map(|name| self.agent(name)).collect()
    }

    /// One agent.
    pub fn agent(&self, name: &str) -> Option<AgentView> {
        let agent = self.agents.get(self.agent_names.get(name)?)?;
        let mut queues: Vec<_> = agent.queues.iter().map(|ix| self.queues[ix].record.name.clone()).collect();
        queues.sort();
        Some(AgentView {
            record: agent.record.clone(),
            queues,
            connected: agent.session.is_some(),
            used: agent.used(),
            refusing: agent.refusing.clone(),
            failed_proof: agent.failed_proof.clone(),
            paused_until_ms: agent.paused_until_ms,
        })
    }

    pub(crate) fn add_queue(&mut self, record: QueueRecord) -> QueueIx {
        let ix = QueueIx(self.new_ix());
        self.queue_names.insert(record.name.clone(), ix);
        self.queues.insert(
            ix,
            Queue {
                record,
                agents: BTreeSet::new(),
                unpinned: Line::default(),
                pinned: BTreeMap::new(),
                heads: BTreeMap::new(),
                waiting: 0,
                active: 0,
            },
        );
        ix
    }

    pub(crate) fn add_agent(&mut self, record: AgentRecord) -> AgentIx {
        let ix = AgentIx(self.new_ix());
        self.agent_names.insert(record.name.clone(), ix);
        self.agents.insert(
            ix,
            Agent {
                record,
                queues: BTreeSet::new(),
                session: None,
                protocol: PROTOCOL_VERSION_MIN,
                refusing: String::new(),
                failed_proof: None,
                rival: None,
                paused_until_ms: None,
                pause_ms: 0,
                runs: BTreeSet::new(),
                pinned_heads: BTreeSet::new(),
                pinned_head_of: BTreeMap::new(),
            },
        );
        ix
    }

    fn new_ix(&mut self) -> u64 {
        self.next_ix += 1;
        self.next_ix
    }

    pub(crate) fn new_job_id(&mut self) -> JobId {
        self.last_job += 1;
        JobId(self.last_job)
    }

    // What is looked up by an index or an id that the engine itself keeps is there: anything else is our bug.

    pub(crate) fn queue_mut(&mut self, ix: QueueIx) -> &mut Queue {
        match self.queues.get_mut(&ix) {
            Some(queue) => queue,
            None => unreachable!("queue {ix:?} is referred to and not there"),
        }
    }

    pub(crate) fn agent_mut(&mut self, ix: AgentIx) -> &mut Agent {
        match self.agents.get_mut(&ix) {
            Some(agent) => agent,
            None => unreachable!("agent {ix:?} is referred to and not there"),
        }
    }

    pub(crate) fn key_of(&self, id: JobId) -> Key {
        (Reverse(self.jobs[&id].record.spec.priority), id)
    }

    pub(crate) fn find_queue(&self, name: &str) -> Result<QueueIx, Rejection> {
        self.queue_names.get(name).copied().ok_or_else(|| Rejection::NoSuchQueue(name.to_owned()))
    }

    pub(crate) fn find_agent(&self, name: &str) -> Result<AgentIx, Rejection> {
        self.agent_names.get(name).copied().ok_or_else(|| Rejection::NoSuchAgent(name.to_owned()))
    }

    pub(crate) fn write(&mut self, change: Change) {
        self.out.changes.push(change);
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.out.actions.push(action);
    }

    pub(crate) fn warn(&mut self, text: String) {
        self.act(Action::Warn(text));
    }
}

/// With an agent: it has a run that is not over.
pub(crate) fn is_placed(status: Status) -> bool {
    matches!(status, Status::Dispatched | Status::Running | Status::Suspended)
}

impl Job {
    pub(crate) fn new(record: JobRecord, queue: QueueIx, write: Write, told: Option<Status>) -> Job {
        let needs = record.spec.needs().version;
        Job { record, queue, write, needs, told }
    }
}

impl Agent {
    /// Between the word for a try to link up and the address.
    pub(crate) fn way(&self) -> &'static str {
        if self.record.dial.is_some() { "to reach it at" } else { "from" }
    }

    pub(crate) fn used(&self) -> u32 {
        u32::try_from(self.runs.len()).unwrap_or(u32::MAX)
    }
}

/// Whether a text can be the name of a queue or an agent.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), Rejection> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.len() > NAME_BYTES_MAX || !starts || !name.chars().all(legal) {
        return Err(Rejection::BadName(what, name.to_owned()));
    }
    Ok(())
}

/// The longest name of a queue or an agent.
const NAME_BYTES_MAX: usize = 64;

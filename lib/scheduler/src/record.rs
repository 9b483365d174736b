//! The records: what the engine decides about, exactly as it is stored.

use crate::JobSpec;
use crate::recovery::Recovery;
use job::{JobId, Outcome, RunId, Status, Usage, Witness};
use protocol::message::RunSpec;
use std::sync::Arc;

/// One job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// Its number.
    pub id: JobId,
    /// What was asked for; never changes.
    pub spec: Arc<JobSpec>,
    /// When, wall clock.
    pub submitted_at_ms: i64,
    /// Where it stands.
    pub status: Status,
    /// The agent of its latest run.
    pub agent: Option<String>,
    /// How many runs it had so far.
    pub attempts: u32,
    /// Its latest run.
    pub run: Option<RunId>,
    /// Of its latest run, if that exited.
    pub exit_code: Option<u8>,
    /// Of its latest run, if a signal ended it.
    pub signal: Option<u8>,
    /// What people read beside the status.
    pub reason: Option<String>,
    /// When its latest run started, the agent's wall clock.
    pub started_at_ms: Option<i64>,
    /// When it became final: the agent's wall clock if an agent saw the end, else the server's.
    pub ended_at_ms: Option<i64>,
    /// Somebody wants it ended.
    pub kill: Option<KillWish>,
    /// How many of its attempts no agent took for want of room.
    pub refusals: u32,
    /// What it waits for beside a slot: with `Scheduled` and `Waiting`, and with `Held` if it waited when it was held.
    pub wait: Option<Wait>,
    /// How many attempts came to an outcome since it was submitted, or restarted by an operator: a retry's limit counts these.
    pub tries: u32,
    /// What the next attempt is told about those before: how the last one ended that may have executed, else `Canceled`.
    pub previous: Option<Status>,
    /// Somebody wants it to stand still, or to go on.
    pub pause: Option<PauseWish>,
}

/// A durable wish that a job stands still or goes on. It is told to the agent until that is recorded or the run is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseWish {
    /// Stand still (`true`) or go on.
    pub suspend: bool,
    /// Who wants it.
    pub by: String,
    /// Since when, the server's wall clock.
    pub at_ms: i64,
}

impl JobRecord {
    /// A job that was just submitted, to stand in its queue.
    pub(crate) fn new(id: JobId, spec: Arc<JobSpec>, submitted_at_ms: i64) -> JobRecord {
        JobRecord {
            id,
            spec,
            submitted_at_ms,
            status: Status::Queued,
            agent: None,
            attempts: 0,
            run: None,
            exit_code: None,
            signal: None,
            reason: None,
            started_at_ms: None,
            ended_at_ms: None,
            kill: None,
            refusals: 0,
            wait: None,
            tries: 0,
            previous: None,
            pause: None,
        }
    }

    /// The order for its attempt number `attempt`, at the agent where it is.
    pub(crate) fn run_spec(&self, attempt: u32) -> RunSpec {
        let agent = self.agent.as_deref().unwrap_or_default();
        let previous = self.previous.map_or("", Status::name);
        self.spec.run_spec(self.id, attempt, agent, previous, self.due_at_ms())
    }

    /// When it was due, the server's wall clock: its own start time, else its submission.
    pub fn due_at_ms(&self) -> i64 {
        let delayed = |ms: u64| self.submitted_at_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX));
        let chosen = self.spec.start_at_ms.or_else(|| self.spec.delay_ms.map(delayed));
        chosen.map_or(self.submitted_at_ms, |at_ms| at_ms.max(self.submitted_at_ms))
    }
}

/// What a job without a run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For its start time.
    Start {
        /// The server's wall clock.
        until_ms: i64,
    },
    /// For the end of the pause before its next attempt.
    Retry {
        /// The server's wall clock.
        until_ms: i64,
    },
    /// For an operator: its last attempt may have executed, and nobody can say how it ended.
    Decision,
}

impl Wait {
    /// When it is over by itself, the server's wall clock.
    pub fn until_ms(self) -> Option<i64> {
        match self {
            Wait::Start { until_ms } | Wait::Retry { until_ms } => Some(until_ms),
            Wait::Decision => None,
        }
    }
}

/// A durable wish that a job ends. It is told to the agent until the run has an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillWish {
    /// Who wants it.
    pub by: String,
    /// Between the soft signal and SIGKILL, milliseconds; the job's own if absent.
    pub grace_ms: Option<u64>,
    /// Since when, the server's wall clock.
    pub at_ms: i64,
}

/// One attempt at a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// Its job.
    pub job: JobId,
    /// 1 for the first.
    pub attempt: u32,
    /// Where it was placed.
    pub agent: String,
    /// Where it stands: `Dispatched`, `Running`, `Suspended`, or final.
    pub status: Status,
    /// When it was placed, the server's wall clock.
    pub placed_at_ms: i64,
    /// When the agent had it on disk, the agent's wall clock.
    pub accepted_at_ms: Option<i64>,
    /// When its process started, the agent's wall clock.
    pub started_at_ms: Option<i64>,
    /// When it ended: the agent's wall clock if an agent said so, else the server's.
    pub ended_at_ms: Option<i64>,
    /// If it exited.
    pub exit_code: Option<u8>,
    /// If a signal ended it.
    pub signal: Option<u8>,
    /// Whether a core file was written.
    pub core: bool,
    /// Who saw the end; absent before the end.
    pub witness: Option<Witness>,
    /// What people read beside the status.
    pub reason: Option<String>,
    /// What it used, as far as anybody could tell.
    pub usage: Usage,
    /// Every fact up to this number is stored, and may be acknowledged.
    pub acked_seq: u64,
    /// The true outcome, if it came after the run had been given up as `Unknown`.
    pub late: Option<LateOutcome>,
}

impl RunRecord {
    /// A run that was just placed.
    pub(crate) fn placed(id: RunId, job: JobId, attempt: u32, agent: String, placed_at_ms: i64) -> RunRecord {
        RunRecord {
            id,
            job,
            attempt,
            agent,
            status: Status::Dispatched,
            placed_at_ms,
            accepted_at_ms: None,
            started_at_ms: None,
            ended_at_ms: None,
            exit_code: None,
            signal: None,
            core: false,
            witness: None,
            reason: None,
            usage: Usage::default(),
            acked_seq: 0,
            late: None,
        }
    }
}

/// An outcome that came after the run was final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateOutcome {
    /// The outcome.
    pub outcome: Outcome,
    /// When the run ended, the agent's wall clock.
    pub ended_at_ms: Option<i64>,
    /// When it came, the server's wall clock.
    pub received_at_ms: i64,
    /// The fact's number in the run's log: its bytes are there.
    pub seq: u64,
}

/// One durable message of an agent, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactRecord {
    /// Which run.
    pub run: RunId,
    /// Its number in the run's log, from 1.
    pub seq: u64,
    /// When it came, the server's wall clock.
    pub received_at_ms: i64,
    /// The number of the commit that stored it; filled in by the database.
    pub commit: u64,
    /// When that commit began, the server's wall clock; filled in by the database, absent in what an older version stored.
    pub committed_at_ms: Option<i64>,
    /// The encoded `protocol::message::Fact`, unchanged.
    pub bytes: Vec<u8>,
}

/// A fact about a run that this server does not know, or not with that agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrayRecord {
    /// Who sent it.
    pub agent: String,
    /// The fact.
    pub fact: FactRecord,
}

/// A file of a job that its agent kept after its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFile {
    /// Of this run.
    pub run: RunId,
    /// Its name among the run's kept files; the job's choice.
    pub name: String,
    /// The run's job.
    pub job: JobId,
    /// The agent that has it.
    pub agent: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: Vec<u8>,
    /// When it was kept, the agent's wall clock.
    pub kept_at_ms: Option<i64>,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its name.
    pub name: String,
    /// Nothing is taken from it.
    pub held: bool,
    /// So many of its jobs may be with agents at once; no limit of its own if absent.
    pub slots: Option<u32>,
    /// Among queues that share an agent the higher goes first. 0 is usual.
    pub priority: i32,
    /// When it was created, wall clock.
    pub created_at_ms: i64,
}

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Name or address; looked up at every attempt.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// One process server: the server's side of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecord {
    /// Its name.
    pub name: String,
    /// How many runs it may have at once.
    pub slots: u32,
    /// Where the server dials it; absent if it dials the server.
    pub dial: Option<Dial>,
    /// When it was added, wall clock.
    pub added_at_ms: i64,
    /// The identity of its data root, known from its first connection.
    pub agent_id: Option<[u8; 16]>,
    /// The host's boot when it was last connected.
    pub boot_id: Option<[u8; 16]>,
    /// Counts the starts of its network-processor.
    pub incarnation: Option<u64>,
    /// Its program's version, for people.
    pub software: String,
    /// Its host, for people.
    pub platform: String,
    /// When its latest connection began, the server's wall clock.
    pub connected_at_ms: Option<i64>,
    /// When its latest connection ended; absent while it is connected or if it never was.
    pub disconnected_at_ms: Option<i64>,
    /// Its latest connection ended because it was stopped on purpose.
    pub stopped: bool,
    /// Somebody wants no new runs on it; what runs goes on.
    pub drain: Option<Drain>,
    /// What is wrong with its identity or its record, as far as it was noticed; stays until somebody says that it is in order.
    pub trouble: Option<Trouble>,
}

/// An agent gets no new runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Who wants it.
    pub by: String,
    /// Why, for people; may be empty.
    pub reason: String,
    /// Since when, the server's wall clock.
    pub at_ms: i64,
}

/// Something about an agent that its operator has to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What, for people.
    pub text: String,
    /// When it was noticed last, the server's wall clock.
    pub at_ms: i64,
    /// The boot of the other host that claims to be this agent, if that is it: it is not let in.
    pub rival_boot_id: Option<[u8; 16]>,
}

/// How many jobs there are of each status, in the order of [`Status::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub [u64; Status::ALL.len()]);

impl Counts {
    /// Of one status.
    pub fn of(&self, status: Status) -> u64 {
        self.0[status as usize]
    }

    /// One more.
    pub fn add(&mut self, status: Status) {
        self.0[status as usize] += 1;
    }

    /// One less.
    pub fn sub(&mut self, status: Status) {
        let count = &mut self.0[status as usize];
        debug_assert!(*count > 0, "fewer than no jobs are {status}");
        *count = count.saturating_sub(1);
    }

    /// Every status with its number, in the order of the stages.
    pub fn iter(&self) -> impl Iterator<Item = (Status, u64)> + '_ {
        Status::ALL.into_iter().zip(self.0)
    }
}

/// Everything the engine needs to go on after a restart.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Jobs that are not final.
    pub jobs: Vec<JobRecord>,
    /// Runs that are not final (of the jobs above).
    pub runs: Vec<RunRecord>,
    /// Every queue.
    pub queues: Vec<QueueRecord>,
    /// Every agent.
    pub agents: Vec<AgentRecord>,
    /// Which queue (first) may use which agent (second).
    pub attachments: Vec<(String, String)>,
    /// The highest job number ever given, 0 if none.
    pub last_job: u64,
    /// The youngest run of all, the final ones too; new ones get later ids, also when the clock went back.
    pub last_run: Option<RunId>,
    /// What a restore has left to do, if there is anything.
    pub recovery: Option<Recovery>,
    /// All jobs by status, the final ones too.
    pub counts: Counts,
    /// The number of the latest event, 0 if none.
    pub last_event: u64,
}

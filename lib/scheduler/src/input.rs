//! What goes into the engine, and what comes out.

use crate::engine::Passing;
use crate::record::Dial;
use crate::{
    AgentRecord, EventRecord, FactRecord, JobRecord, JobSpec, KeptFile, QueueRecord, RunRecord, StrayRecord,
};
use job::{JobId, RunId, Status};
use protocol::Malformed;
use protocol::message::{Fact, RefusalKind, RunSpec};

/// A command, a word from an agent, or the clock.
#[derive(Clone, Debug)]
pub enum Input {
    /// New jobs: all of them or none.
    Submit(Vec<JobSpec>),
    /// End a job, or see to it that it never starts.
    KillJob {
        /// Which.
        job: JobId,
        /// Who asks.
        by: String,
        /// Between the soft signal and SIGKILL, milliseconds.
        grace_ms: Option<u64>,
    },
    /// Let a running job stand still.
    SuspendJob {
        /// Which.
        job: JobId,
        /// Who asks.
        by: String,
    },
    /// Let it go on.
    ResumeJob {
        /// Which.
        job: JobId,
        /// Who asks.
        by: String,
    },
    /// Take a job back that was not given to an agent yet.
    CancelJob {
        /// Which.
        job: JobId,
        /// Who asks.
        by: String,
    },
    /// Hold a waiting job back.
    HoldJob {
        /// Which.
        job: JobId,
    },
    /// Let a held job go on.
    ReleaseJob {
        /// Which.
        job: JobId,
    },
    /// A new attempt at a job that is over, or that waits for this decision.
    RestartJob(Restart),
    /// Give up a job whose agent will never come back.
    AbandonJob {
        /// Which.
        job: JobId,
        /// Who asks.
        by: String,
        /// Why, for people.
        reason: String,
    },
    /// A new queue.
    CreateQueue {
        /// Its name.
        name: String,
    },
    /// An empty queue goes.
    DeleteQueue {
        /// Its name.
        name: String,
    },
    /// Nothing is taken from the queue any more, or things are taken again.
    HoldQueue {
        /// Its name.
        name: String,
        /// Hold or release.
        held: bool,
    },
    /// Other limits for a queue; what is absent stays.
    SetQueue {
        /// Its name.
        name: String,
        /// So many of its jobs may be with agents at once; the inner `None`: no limit of its own.
        slots: Option<Option<u32>>,
        /// Among queues that share an agent the higher goes first.
        priority: Option<i32>,
    },
    /// The queue may use the agent.
    Attach {
        /// The queue.
        queue: String,
        /// The agent.
        agent: String,
    },
    /// The queue may no longer use the agent; what runs there goes on.
    Detach {
        /// The queue.
        queue: String,
        /// The agent.
        agent: String,
    },
    /// A new process server.
    AddAgent(NewAgent),
    /// A process server goes.
    RemoveAgent {
        /// Its name.
        name: String,
        /// Also if it has runs: these become `Unknown`.
        force: bool,
        /// Who asks.
        by: String,
    },
    /// Another number of slots.
    SetSlots {
        /// The agent.
        name: String,
        /// How many.
        slots: u32,
    },
    /// A new shared secret; the one before stays valid beside it.
    SetSecret {
        /// The agent.
        name: String,
        /// The new one.
        secret: Vec<u8>,
    },
    /// Of an agent's secrets only the newest stays valid.
    RetireSecrets {
        /// The agent.
        name: String,
    },
    /// No new runs for an agent; what runs there goes on.
    DrainAgent {
        /// Its name.
        name: String,
        /// Who asks.
        by: String,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// New runs for an agent again; trouble that was noticed with it is taken for cleared up.
    ResumeAgent {
        /// Its name.
        name: String,
    },
    /// A session that was asked for a sign of life ([`Action::Probe`]) gave one.
    AgentAnswered {
        /// The agent.
        agent: String,
        /// Which of its sessions.
        session: u64,
    },
    /// An authenticated agent gave its account of itself.
    AgentConnected(Connected),
    /// A session is over.
    AgentDisconnected {
        /// The agent.
        agent: String,
        /// Which of its sessions.
        session: u64,
        /// It said that it stops on purpose.
        stopping: bool,
    },
    /// Somebody who calls itself that agent, or whom the server dialled as it, did not prove to be it.
    AgentUnproven {
        /// The agent.
        agent: String,
        /// Where it is.
        address: String,
        /// Why the proof failed, for people.
        reason: String,
    },
    /// The agent takes no new runs (and why), or takes them again (empty).
    AgentRefusing {
        /// The agent.
        agent: String,
        /// Which of its sessions.
        session: u64,
        /// Why; empty if it takes runs.
        refusing: String,
    },
    /// Durable messages, in the order of the wire.
    Facts {
        /// Who sent them.
        agent: String,
        /// The messages.
        facts: Vec<FactIn>,
    },
    /// The agent did not take a run.
    Refused {
        /// The agent.
        agent: String,
        /// Which of its sessions.
        session: u64,
        /// The run.
        run: RunId,
        /// What may be done with it.
        kind: RefusalKind,
        /// Why, for people.
        reason: String,
    },
    /// The agent knows nothing of a run.
    NoRecord {
        /// The agent.
        agent: String,
        /// Which of its sessions.
        session: u64,
        /// The run.
        run: RunId,
    },
    /// The agent has sent whatever a database that went back in time may lack.
    CaughtUp {
        /// The agent.
        agent: String,
        /// Which of its sessions.
        session: u64,
    },
    /// The agent has sent whatever it can read, but of these runs, which the database does not know, nobody can tell anything.
    Untellable {
        /// The agent.
        agent: String,
        /// Which of its sessions.
        session: u64,
        /// The runs.
        runs: Vec<RunId>,
    },
    /// A run that only its agent knows, after a restore: take it over.
    Adopt {
        /// The agent.
        agent: String,
        /// What was to be run, as the agent has it.
        spec: Box<RunSpec>,
        /// All that came of it, from its first message on.
        facts: Vec<FactIn>,
    },
    /// All that an agent sent after a restore was looked at.
    Told {
        /// The agent.
        agent: String,
    },
    /// Agents that have not told after a restore never will.
    EndRecovery,
    /// Jobs that nobody needs to know of any more. What is not over stays.
    Forget(Vec<Over>),
    /// Time passed.
    Tick,
}

/// A job that is over, as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which.
    pub job: JobId,
    /// How it ended.
    pub status: Status,
    /// All of its runs.
    pub runs: Vec<RunId>,
}

/// The wish for a new attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// At which job.
    pub job: JobId,
    /// Who asks.
    pub by: String,
    /// It is to be held first.
    pub hold: bool,
    /// Also if it must not be executed twice and may have been executed.
    pub force: bool,
    /// Why, for people; needed with `force`.
    pub reason: Option<String>,
}

/// A new process server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAgent {
    /// Its name.
    pub name: String,
    /// How many runs it may have at once.
    pub slots: u32,
    /// Where it listens; absent if it dials the server.
    pub dial: Option<Dial>,
    /// The shared secret.
    pub secret: Vec<u8>,
    /// Queues to attach it to.
    pub queues: Vec<String>,
}

/// An agent's account of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// Its name, proven by its secret.
    pub agent: String,
    /// The server's number of this session.
    pub session: u64,
    /// The identity of its data root.
    pub agent_id: [u8; 16],
    /// The host's boot.
    pub boot_id: [u8; 16],
    /// Counts the starts of its network-processor.
    pub incarnation: u64,
    /// The protocol version that is spoken with it; less than the lowest counts as that.
    pub protocol: u32,
    /// Version, for people.
    pub software: String,
    /// Host, for people.
    pub platform: String,
    /// Why it takes no new runs; empty if it takes them.
    pub refusing: String,
    /// Every run that it has and holds for unsettled.
    pub inventory: Vec<InventoryEntry>,
}

/// One run of an agent's inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InventoryEntry {
    /// Which.
    pub run: RunId,
    /// The last message in its log.
    pub last_seq: u64,
    /// Up to which message the database has it, for runs that the engine does not hold; filled in by the owner of the engine.
    pub stored_seq: Option<u64>,
}

/// One durable message of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactIn {
    /// Which run.
    pub run: RunId,
    /// Its number.
    pub seq: u64,
    /// As it came.
    pub bytes: Vec<u8>,
    /// As far as it can be read.
    pub fact: Result<Fact, Malformed>,
    /// What the database has under that number, if it was stored before; filled in by the owner of the engine.
    pub stored: Option<Vec<u8>>,
}

impl FactIn {
    /// Reads `bytes`, keeps them.
    pub fn new(run: RunId, seq: u64, bytes: Vec<u8>) -> FactIn {
        let fact = Fact::read(&bytes);
        FactIn { run, seq, bytes, fact, stored: None }
    }
}

/// What an input was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Done,
    /// The jobs, in the order of the request.
    Submitted(Vec<Submitted>),
}

/// One submitted job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its number.
    pub job: JobId,
    /// It was there already: a request with the same idempotency key made it.
    pub existing: bool,
}

/// What the engine decided since the last time.
#[derive(Debug, Default)]
pub struct Output {
    /// To be written, in one transaction.
    pub changes: Vec<Change>,
    /// To be done after that, in this order.
    pub actions: Vec<Action>,
    /// For [`Engine::on_committed`](crate::Engine::on_committed).
    pub passing: Passing,
}

/// A change of the stored record. A batch holds each job and run at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new job.
    JobInserted(JobRecord),
    /// A job moved on.
    JobUpdated(JobRecord),
    /// A new run.
    RunInserted(RunRecord),
    /// A run moved on.
    RunUpdated(RunRecord),
    /// A fact of a known run.
    FactInserted(FactRecord),
    /// A fact of a run that is not known.
    StrayInserted(StrayRecord),
    /// An agent kept a file of a job.
    FileKept(KeptFile),
    /// A job that was over is deleted, with its runs, their facts and their files.
    JobDeleted(JobId),
    /// The strays of a run, so many, are facts now.
    StraysDeleted(RunId, u64),
    /// After a restore: nobody waits for the agent's account any more.
    AgentTold(String),
    /// A new queue.
    QueueInserted(QueueRecord),
    /// A queue was held or released.
    QueueUpdated(QueueRecord),
    /// A queue is gone, with its attachments.
    QueueDeleted(String),
    /// The queue (first) may use the agent (second).
    Attached(String, String),
    /// It may no longer.
    Detached(String, String),
    /// A new agent, with its secret.
    AgentInserted(AgentRecord, Vec<u8>),
    /// An agent came, went or was changed.
    AgentUpdated(AgentRecord),
    /// An agent is gone, with its secrets and attachments.
    AgentDeleted(String),
    /// A newer secret; of the older ones only the newest stays.
    SecretAdded(String, Vec<u8>),
    /// Something happened that people or programs may follow.
    Event(EventRecord),
    /// Of an agent's secrets only the newest stays.
    SecretsRetired(String),
}

/// Something to do after the changes were committed. Losing one costs time, never a job: the next connection repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer an agent's account.
    Hello {
        /// The agent.
        agent: String,
        /// Its session.
        session: u64,
        /// What the server has of the runs in the inventory.
        known: Vec<(RunId, u64)>,
        /// Accepted runs that the inventory lacks.
        missing: Vec<RunId>,
        /// After a restore: everything that it has settled is to be sent again.
        tell_all: bool,
    },
    /// Close this session and say why.
    RefuseSession {
        /// The agent.
        agent: String,
        /// Its session.
        session: u64,
        /// Why, for people.
        reason: String,
    },
    /// Ask a session for a sign of life; if it gives one, [`Input::AgentAnswered`] says so.
    Probe {
        /// The agent.
        agent: String,
        /// Its session.
        session: u64,
    },
    /// Tell an agent something that its operator should read.
    Notice {
        /// The agent.
        agent: String,
        /// What.
        text: String,
    },
    /// The agent was removed: close its session, stop dialling it.
    AgentGone {
        /// Its name.
        agent: String,
    },
    /// Order a run.
    Start {
        /// The agent.
        agent: String,
        /// The run.
        run: RunId,
        /// What to run.
        spec: Box<RunSpec>,
    },
    /// Order the end of a run.
    Kill {
        /// The agent.
        agent: String,
        /// The run.
        run: RunId,
        /// Between the soft signal and SIGKILL, milliseconds.
        grace_ms: Option<u64>,
        /// Who asks.
        by: String,
    },
    /// Order that a run stands still, or goes on.
    Pause {
        /// The agent.
        agent: String,
        /// The run.
        run: RunId,
        /// Stand still (`true`) or go on.
        suspend: bool,
        /// Who asks.
        by: String,
    },
    /// Acknowledge the facts of a run up to this one.
    Ack {
        /// The agent.
        agent: String,
        /// The run.
        run: RunId,
        /// The number.
        seq: u64,
    },
    /// What this agent said does not fit what is known: close its session, so that both begin anew.
    Resync {
        /// The agent.
        agent: String,
        /// Why, for people.
        reason: String,
    },
    /// An agent knows a higher epoch: this server must not go on as primary. Its session ends.
    Fenced {
        /// The agent.
        agent: String,
        /// What it said.
        reason: String,
    },
    /// Something that an operator should read.
    Warn(String),
    /// A step that must not be was about to be made, and was not: our defect, to be reported.
    Defect(String),
}

//! What goes into the core's inbox, and what it hands to the sessions.

use super::access::AccessInput;
use super::handle::{CoreError, ServerStatus};
use super::order::Order;
use crate::db::FileChange;
use job::{JobId, RunId};
use protocol::message::RunSpec;
use scheduler::{AgentView, Connected, Event, Input, QueueView, RecoveryView, Reply};
use serde_json::{Map, Value};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Anything that the core can be asked.
pub(super) enum Command {
    /// A command that is answered after its commit, with the order by which it was given.
    Do { task: Task, order: Option<Arc<Order>>, reply: oneshot::Sender<Result<Reply, CoreError>> },
    /// Something that happened outside the engine.
    Happened(Event),
    /// A word of an agent: nobody waits.
    Tell(Input),
    /// An agent's account of itself, and the way to it.
    Connected { connected: Connected, port: Port },
    /// A question about what the engine has.
    Ask(Request),
    /// To be told when the job is final.
    Watch { job: JobId, reply: oneshot::Sender<()> },
    /// A run that only its agent knows, after a restore: its stored messages are taken as facts.
    Adopt { agent: String, run: RunId, spec: Box<RunSpec>, reply: oneshot::Sender<Result<Reply, CoreError>> },
    /// Delete jobs that are over.
    Forget { jobs: Vec<JobId>, reply: oneshot::Sender<Result<Reply, CoreError>> },
    /// Time passed.
    Tick,
    /// End, after what is in the inbox already.
    Stop(oneshot::Sender<()>),
}

/// What a command is for.
pub(super) enum Task {
    /// The engine.
    Engine(Input),
    /// Users and tokens.
    Access(AccessInput),
    /// Files that were kept of jobs, and what is to be told of it.
    Files(Vec<FileChange>, Vec<Event>),
    /// Nothing is to be done, only kept: what was done elsewhere, or refused before it came here.
    Note { action: String, object: String, detail: Map<String, Value>, refusal: Option<String> },
}

/// A question to the engine.
pub(super) enum Request {
    Agents(oneshot::Sender<Vec<AgentView>>),
    Agent(String, oneshot::Sender<Option<AgentView>>),
    Queues(oneshot::Sender<Vec<QueueView>>),
    Queue(String, oneshot::Sender<Option<QueueView>>),
    Why(JobId, oneshot::Sender<Result<String, CoreError>>),
    Status(oneshot::Sender<ServerStatus>),
    Recovery(oneshot::Sender<Option<RecoveryView>>),
}

/// The way to one session: bounded. A session that does not take what it gets is dropped; the next connection repeats it.
pub type Port = mpsc::Sender<ToAgent>;

/// What a session is to tell its agent.
#[derive(Clone, Debug, PartialEq)]
pub enum ToAgent {
    /// The answer to its account.
    Hello {
        /// What the server has of the inventory.
        known: Vec<(RunId, u64)>,
        /// Accepted runs that the inventory lacks.
        missing: Vec<RunId>,
        /// After a restore: everything that it has settled is to be sent again.
        tell_all: bool,
        /// The last commit.
        commit: u64,
    },
    /// Run this.
    Start {
        /// The run.
        run: RunId,
        /// What to run.
        spec: Box<RunSpec>,
    },
    /// End this.
    Kill {
        /// The run.
        run: RunId,
        /// Between the soft signal and SIGKILL, milliseconds.
        grace_ms: Option<u64>,
        /// Who asks.
        by: String,
    },
    /// Let this stand still, or go on.
    Pause {
        /// The run.
        run: RunId,
        /// Stand still (`true`) or go on.
        suspend: bool,
        /// Who asks.
        by: String,
    },
    /// Committed up to these.
    Acks {
        /// Per run, cumulative.
        acks: Vec<(RunId, u64)>,
        /// The last commit.
        commit: u64,
    },
    /// Something that the agent's operator should read.
    Notice(String),
    /// Give a sign of life.
    Probe,
    /// Close the connection and say why.
    Close {
        /// Why, for people.
        reason: String,
        /// The server stops in a controlled manner.
        stopping: bool,
    },
}

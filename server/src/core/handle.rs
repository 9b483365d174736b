//! How everybody else talks to the core.

use super::access::{AccessInput, AccessRefusal};
use super::command::{Command, Port, Request, Task};
use super::health::{Health, Shared};
use super::order::Order;
use crate::auth::Tokens;
use crate::db::{DbError, FileChange};
use job::{JobId, RunId};
use protocol::message::RunSpec;
use scheduler::{
    AgentView, Connected, Counts, Event, EventRecord, Input, JobSpec, NewAgent, QueueView, RecoveryView,
    Rejection, Reply, Restart, Submitted,
};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Why the core did not do something.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// It cannot be done; the text says what to do instead.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Users or tokens cannot be changed so.
    #[error(transparent)]
    Access(#[from] AccessRefusal),
    /// The object is not what it was when it was looked at.
    #[error("{0} was changed since it was looked at (If-Match); look at it again, and decide anew")]
    Changed(String),
    /// The same key for something else.
    #[error("idempotency key \"{0}\" belongs to another request; take a new key for each request")]
    KeyReused(String),
    /// The database could not be read.
    #[error(transparent)]
    Database(#[from] DbError),
    /// There is too little room for new jobs.
    #[error("{0}")]
    DiskFull(String),
    /// The server stops.
    #[error("the server stops; try again in a moment")]
    Stopping,
}

/// The server's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// This opening of the database.
    pub epoch: u64,
    /// Which database.
    pub database_id: [u8; 16],
    /// The last commit.
    pub commit: u64,
    /// Requests that wait for the core.
    pub inbox: usize,
    /// Stray facts.
    pub strays: u64,
    /// How far the recovery after a restore is; none if there is none.
    pub recovery: Option<RecoveryView>,
    /// When this process started, wall clock.
    pub started_at_ms: i64,
    /// All jobs by status.
    pub counts: Counts,
    /// Agents known and connected.
    pub agents: usize,
    /// Agents with a session.
    pub agents_connected: usize,
}

/// A way to the core; cheap to clone. Every method that changes something returns after the commit.
#[derive(Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    tokens: Tokens,
    feed: Feed,
}

/// Where every event goes once it is committed.
pub(super) type Feed = broadcast::Sender<Arc<EventRecord>>;

impl Handle {
    pub(super) fn new(
        inbox: mpsc::Sender<Command>,
        shared: Arc<Shared>,
        tokens: Tokens,
        feed: Feed,
    ) -> Handle {
        Handle { inbox, shared, tokens, feed }
    }

    /// Who may ask.
    pub fn tokens(&self) -> Tokens {
        self.tokens.clone()
    }

    /// Every event from now on, after its commit. Who does not take them loses the oldest, and is told so.
    pub fn follow(&self) -> broadcast::Receiver<Arc<EventRecord>> {
        self.feed.subscribe()
    }

    /// Users and tokens.
    pub async fn access(&self, input: AccessInput) -> Result<(), CoreError> {
        self.command(Task::Access(input)).await.map(|_| ())
    }

    /// Keeps in the audit what was done outside the core, or refused before it came here.
    pub async fn note(
        &self,
        action: &str,
        object: &str,
        detail: Map<String, Value>,
        refusal: Option<String>,
    ) -> Result<(), CoreError> {
        let (action, object) = (action.to_owned(), object.to_owned());
        self.command(Task::Note { action, object, detail, refusal }).await.map(|_| ())
    }

    /// Tells whoever follows of something that happened outside the engine.
    pub async fn happened(&self, event: Event) -> Result<(), CoreError> {
        self.send(Command::Happened(event)).await
    }

    /// Writes down what became of files that were kept of jobs, and tells whoever follows.
    pub(crate) async fn files(&self, changes: Vec<FileChange>, events: Vec<Event>) -> Result<(), CoreError> {
        self.command(Task::Files(changes, events)).await.map(|_| ())
    }

    /// Waits until an agent has told of a file since the last time: a hint, for one who waits.
    pub(crate) async fn file_kept(&self) {
        self.shared.file_kept().await;
    }

    /// New jobs, all or none; the answer has the order of the request.
    pub async fn submit(&self, specs: Vec<JobSpec>) -> Result<Vec<Submitted>, CoreError> {
        if let Some(trouble) = self.shared.disk_trouble() {
            return Err(CoreError::DiskFull(trouble));
        }
        match self.command(Task::Engine(Input::Submit(specs))).await? {
            Reply::Submitted(submitted) => Ok(submitted),
            Reply::Done => Ok(Vec::new()),
        }
    }

    /// Ends a job, or sees to it that it never starts. Returns when the wish is durable, not when the job has ended.
    pub async fn kill(&self, job: JobId, by: &str, grace_ms: Option<u64>) -> Result<(), CoreError> {
        self.done(Input::KillJob { job, by: by.to_owned(), grace_ms }).await
    }

    /// Lets a running job stand still (`true`) or go on. Returns when the wish is durable, not when the job stands still.
    pub async fn pause(&self, job: JobId, suspend: bool, by: &str) -> Result<(), CoreError> {
        let by = by.to_owned();
        let input = if suspend { Input::SuspendJob { job, by } } else { Input::ResumeJob { job, by } };
        self.done(input).await
    }

    /// Takes a job back that was not given to an agent yet.
    pub async fn cancel(&self, job: JobId, by: &str) -> Result<(), CoreError> {
        self.done(Input::CancelJob { job, by: by.to_owned() }).await
    }

    /// Holds a waiting job back.
    pub async fn hold(&self, job: JobId) -> Result<(), CoreError> {
        self.done(Input::HoldJob { job }).await
    }

    /// Lets a held job go on.
    pub async fn release(&self, job: JobId) -> Result<(), CoreError> {
        self.done(Input::ReleaseJob { job }).await
    }

    /// A new attempt at a job that is over, or that waits for this decision.
    pub async fn restart(&self, restart: Restart) -> Result<(), CoreError> {
        self.done(Input::RestartJob(restart)).await
    }

    /// Gives up a job whose agent will never come back.
    pub async fn abandon(&self, job: JobId, by: &str, reason: &str) -> Result<(), CoreError> {
        self.done(Input::AbandonJob { job, by: by.to_owned(), reason: reason.to_owned() }).await
    }

    /// A new queue.
    pub async fn create_queue(&self, name: &str) -> Result<(), CoreError> {
        self.done(Input::CreateQueue { name: name.to_owned() }).await
    }

    /// Removes a queue that has no job which is not over.
    pub async fn delete_queue(&self, name: &str) -> Result<(), CoreError> {
        self.done(Input::DeleteQueue { name: name.to_owned() }).await
    }

    /// Holds a queue (`true`) or releases it.
    pub async fn hold_queue(&self, name: &str, held: bool) -> Result<(), CoreError> {
        self.done(Input::HoldQueue { name: name.to_owned(), held }).await
    }

    /// Other limits for a queue; what is absent stays, and of `slots` the inner `None` takes the limit away.
    pub async fn set_queue(
        &self,
        name: &str,
        slots: Option<Option<u32>>,
        priority: Option<i32>,
    ) -> Result<(), CoreError> {
        self.done(Input::SetQueue { name: name.to_owned(), slots, priority }).await
    }

    /// The queue may use the agent.
    pub async fn attach(&self, queue: &str, agent: &str) -> Result<(), CoreError> {
        self.done(Input::Attach { queue: queue.to_owned(), agent: agent.to_owned() }).await
    }

    /// The queue may no longer use the agent.
    pub async fn detach(&self, queue: &str, agent: &str) -> Result<(), CoreError> {
        self.done(Input::Detach { queue: queue.to_owned(), agent: agent.to_owned() }).await
    }

    /// A new agent; if the server dials it, that begins at once.
    pub async fn add_agent(&self, agent: NewAgent) -> Result<(), CoreError> {
        self.done(Input::AddAgent(agent)).await
    }

    /// Removes an agent. With `force` also one that has runs: these become `Unknown`.
    pub async fn remove_agent(&self, name: &str, force: bool, by: &str) -> Result<(), CoreError> {
        self.done(Input::RemoveAgent { name: name.to_owned(), force, by: by.to_owned() }).await
    }

    /// Changes an agent's number of slots.
    pub async fn set_slots(&self, name: &str, slots: u32) -> Result<(), CoreError> {
        self.done(Input::SetSlots { name: name.to_owned(), slots }).await
    }

    /// Gives an agent a new secret; the one before stays valid beside it.
    pub async fn set_secret(&self, name: &str, secret: Vec<u8>) -> Result<(), CoreError> {
        self.done(Input::SetSecret { name: name.to_owned(), secret }).await
    }

    /// Of an agent's secrets only the newest stays valid.
    pub async fn retire_secrets(&self, name: &str) -> Result<(), CoreError> {
        self.done(Input::RetireSecrets { name: name.to_owned() }).await
    }

    /// No new runs for an agent; what runs there goes on.
    pub async fn drain_agent(&self, name: &str, by: &str, reason: &str) -> Result<(), CoreError> {
        let (name, by, reason) = (name.to_owned(), by.to_owned(), reason.to_owned());
        self.done(Input::DrainAgent { name, by, reason }).await
    }

    /// New runs for an agent again.
    pub async fn resume_agent(&self, name: &str) -> Result<(), CoreError> {
        self.done(Input::ResumeAgent { name: name.to_owned() }).await
    }

    /// Deletes jobs that are over, unless one has become something else meanwhile.
    pub(crate) async fn forget(&self, jobs: Vec<JobId>) -> Result<(), CoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Forget { jobs, reply }).await?;
        answer.await.map_err(|_| CoreError::Stopping)?.map(drop)
    }

    /// After a restore: takes a run over that only its agent knows, as far as its messages came.
    pub(crate) async fn adopt(&self, agent: &str, run: RunId, spec: RunSpec) -> Result<(), CoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Adopt { agent: agent.to_owned(), run, spec: Box::new(spec), reply }).await?;
        answer.await.map_err(|_| CoreError::Stopping)?.map(drop)
    }

    /// After a restore: all that the agent sent was looked at.
    pub(crate) async fn told(&self, agent: &str) -> Result<(), CoreError> {
        self.done(Input::Told { agent: agent.to_owned() }).await
    }

    /// After a restore: whoever has not told what it ran since the backup never will.
    pub async fn end_recovery(&self) -> Result<(), CoreError> {
        self.done(Input::EndRecovery).await
    }

    /// How far the recovery after a restore is; none if there is none.
    pub async fn recovery(&self) -> Result<Option<RecoveryView>, CoreError> {
        self.ask(Request::Recovery).await
    }

    /// Every agent, by name.
    pub async fn agents(&self) -> Result<Vec<AgentView>, CoreError> {
        self.ask(Request::Agents).await
    }

    /// One agent.
    pub async fn agent(&self, name: &str) -> Result<AgentView, CoreError> {
        let missing = || CoreError::Rejected(Rejection::NoSuchAgent(name.to_owned()));
        self.ask(|reply| Request::Agent(name.to_owned(), reply)).await?.ok_or_else(missing)
    }

    /// Every queue, by name.
    pub async fn queues(&self) -> Result<Vec<QueueView>, CoreError> {
        self.ask(Request::Queues).await
    }

    /// One queue.
    pub async fn queue(&self, name: &str) -> Result<QueueView, CoreError> {
        let missing = || CoreError::Rejected(Rejection::NoSuchQueue(name.to_owned()));
        self.ask(|reply| Request::Queue(name.to_owned(), reply)).await?.ok_or_else(missing)
    }

    /// One sentence why the job is not running, or that it is, or what became of it. If the server itself is in trouble, that is part of it.
    pub async fn why(&self, job: JobId) -> Result<String, CoreError> {
        if let Some(trouble) = self.shared.database_trouble() {
            // The core does not answer before that is over.
            return Ok(format!(
                "the server's database cannot be written, and until it can nothing is placed and nothing new is known: {trouble}"
            ));
        }
        let why = self.ask(|reply| Request::Why(job, reply)).await??;
        let problems = self.health().problems;
        Ok(if problems.is_empty() {
            why
        } else {
            format!("{why}; besides, the server is not ready: {}", problems.join("; "))
        })
    }

    /// Waits until the job is final; `false` if it was not within `limit`. A job that does not exist counts as final.
    pub async fn wait_final(&self, job: JobId, limit: Duration) -> Result<bool, CoreError> {
        let (reply, done) = oneshot::channel();
        self.send(Command::Watch { job, reply }).await?;
        match tokio::time::timeout(limit, done).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(_)) => Err(CoreError::Stopping),
            Err(_) => Ok(false),
        }
    }

    /// All jobs by status, as of the last commit.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// The server's own state.
    pub async fn status(&self) -> Result<ServerStatus, CoreError> {
        let mut status = self.ask(Request::Status).await?;
        status.inbox = self.inbox.max_capacity() - self.inbox.capacity();
        Ok(status)
    }

    /// Whether the server does its work, and what hinders it.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Whether the database cannot be written at the moment.
    pub(crate) fn has_database_trouble(&self) -> bool {
        self.shared.database_trouble().is_some()
    }

    /// There is too little room on the disk, and why; or enough (again).
    pub(crate) fn on_disk(&self, trouble: Option<String>) {
        if let Some(event) = self.shared.on_disk(trouble) {
            // While nothing can be written the inbox may be full: whoever watches the disk must not wait for that.
            let handle = self.clone();
            tokio::spawn(async move { handle.happened(event).await });
        }
    }

    /// An agent obeys another server: this one is not ready until that is cleared up.
    pub(crate) fn on_fenced(&self, agent: &str, reason: String) {
        self.shared.on_fenced(agent, reason);
    }

    pub(crate) async fn connected(&self, connected: Connected, port: Port) -> Result<(), CoreError> {
        self.send(Command::Connected { connected, port }).await
    }

    /// Hands over a word of an agent; waits only for room in the inbox.
    pub(crate) async fn tell(&self, input: Input) -> Result<(), CoreError> {
        self.send(Command::Tell(input)).await
    }

    /// The last word to the core: it commits what it has and ends.
    pub(crate) async fn stop(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Command::Stop(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    async fn done(&self, input: Input) -> Result<(), CoreError> {
        self.command(Task::Engine(input)).await.map(|_| ())
    }

    async fn command(&self, task: Task) -> Result<Reply, CoreError> {
        if let Some(trouble) = self.shared.database_trouble() {
            // What waits is written first, and that may take long: better told now than waited for.
            return Err(DbError::Retry(trouble).into());
        }
        let (reply, answer) = oneshot::channel();
        self.send(Command::Do { task, order: Order::present(), reply }).await?;
        answer.await.map_err(|_| CoreError::Stopping)?
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, CoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Ask(request(reply))).await?;
        answer.await.map_err(|_| CoreError::Stopping)
    }

    pub(super) async fn send(&self, command: Command) -> Result<(), CoreError> {
        self.inbox.send(command).await.map_err(|_| CoreError::Stopping)
    }
}

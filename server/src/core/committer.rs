//! The thread that owns the engine and writes the database.

use super::access::Access;
use super::command::{Command, Port, Request, ToAgent};
use super::handle::{CoreError, Feed, Handle, ServerStatus};
use super::health::Shared;
use super::writer::{self, Batch, Writer};
use crate::auth::Tokens;
use crate::db::{AnswerKey, AnswerRecord, Database, DbError, Entry};
use job::{JobId, RunId, RunIds};
use protocol::message::RunSpec;
use scheduler::{
    Action, AgentRecord, Change, Connected, Counts, Engine, Event, EventKind, FactIn, FactRecord, Input,
    Object, Output, Over, Passing, Rejection, Reply,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};

/// So many requests wait for the core; then those who ask wait for room.
const INBOX_MAX: usize = 8_192;
/// So many requests are decided in one step, and committed together.
const STEP_MAX: usize = 4_096;
/// With so many facts a step is full too: while it is written, the next one is decided.
const STEP_FACTS_MAX: usize = 2_048;
/// Between two looks at the clock.
const TICK: Duration = Duration::from_secs(1);

/// Who has to know which agents there are: told after the commit, before whoever asked is answered.
pub trait Roster: Send {
    /// A new agent.
    fn on_added(&self, agent: &AgentRecord, secret: &[u8]);
    /// A newer secret.
    fn on_secret(&self, agent: &str, secret: &[u8]);
    /// Only the newest secret stays valid.
    fn on_retired(&self, agent: &str);
    /// An agent is gone.
    fn on_removed(&self, agent: &str);
}

/// Starts the core on its own thread, and its clock on the present runtime.
pub fn spawn(
    database: Arc<dyn Database>,
    roster: Box<dyn Roster>,
    seed: [u8; 32],
) -> anyhow::Result<(Handle, JoinHandle<()>)> {
    let snapshot = database.load()?;
    let strays = database.strays()?;
    let mut engine = Engine::restore(snapshot, RunIds::new(seed))?;
    let (users, tokens) = (database.users()?, database.tokens()?);
    let epoch = database.identity().epoch;
    let text = format!("started, epoch {epoch}");
    let started = Event::new(EventKind::ServerStarted, Object::Server, text);
    engine.happened(started.with(serde_json::json!({"epoch": epoch})), os::clock::wall_ms());
    let shared = Arc::new(Shared::new(engine.counts()));
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let writer = Writer::spawn(Arc::clone(&database), Arc::clone(&shared))?;
    let core = Core {
        engine,
        roster,
        shared: Arc::clone(&shared),
        ports: HashMap::new(),
        unheard: HashSet::new(),
        watchers: HashMap::new(),
        access: Access::new(users.clone(), tokens.clone()),
        tokens: Tokens::new(users, tokens),
        last_audit: database.last_audit()?,
        entries: Vec::new(),
        answered: HashMap::new(),
        feed: broadcast::Sender::new(FEED_MAX),
        database,
        strays,
        ticks: 0,
        started_at_ms: os::clock::wall_ms(),
        writer,
        begun: None,
    };
    let (tokens, feed) = (core.tokens.clone(), core.feed.clone());
    let thread = std::thread::Builder::new().name("core".to_owned()).spawn(move || core.run(inbox))?;
    tokio::spawn(tick(sender.downgrade()));
    Ok((Handle::new(sender, shared, tokens, feed), thread))
}

async fn tick(inbox: mpsc::WeakSender<Command>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(inbox) = inbox.upgrade() else { return };
        if let Err(mpsc::error::TrySendError::Closed(_)) = inbox.try_send(Command::Tick) {
            return;
        }
    }
}

pub(super) struct Core {
    pub(super) engine: Engine,
    pub(super) database: Arc<dyn Database>,
    roster: Box<dyn Roster>,
    shared: Arc<Shared>,
    /// The way to each connected agent, with the number of its session.
    ports: HashMap<String, (u64, Port)>,
    /// Agents of which a message could not be taken: what they send after it is not heard until they come again.
    unheard: HashSet<String>,
    watchers: HashMap<JobId, Vec<oneshot::Sender<()>>>,
    pub(super) access: Access,
    tokens: Tokens,
    pub(super) last_audit: u64,
    /// To be written with the next batch.
    pub(super) entries: Vec<Entry>,
    /// What was answered under an idempotency key since the last commit.
    pub(super) answered: HashMap<AnswerKey, AnswerRecord>,
    feed: Feed,
    strays: u64,
    ticks: u64,
    started_at_ms: i64,
    writer: Writer,
    /// What the writer is writing.
    begun: Option<Begun>,
}

/// What is to be done when a batch is written.
struct Begun {
    actions: Vec<Action>,
    passing: Passing,
    counts: Counts,
}

/// What a command is answered with.
pub(super) type Answer = Result<Reply, CoreError>;

/// What a step owes to others once it is committed.
#[derive(Default)]
struct Step {
    taken: usize,
    facts: usize,
    /// Nothing but facts was taken.
    only_facts: bool,
    replies: Vec<(oneshot::Sender<Answer>, Answer)>,
    /// Done last, so that what came in the same step is seen.
    forgets: Vec<(Vec<JobId>, oneshot::Sender<Answer>)>,
    questions: Vec<Request>,
    watches: Vec<(JobId, oneshot::Sender<()>)>,
    arrivals: BTreeMap<u64, Port>,
    stop: Option<oneshot::Sender<()>>,
}

impl Core {
    fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        while let Some(first) = self.next(&mut inbox) {
            let mut step = Step { only_facts: true, ..Step::default() };
            self.take_in(first, &mut step);
            while step.taken < STEP_MAX && step.facts < STEP_FACTS_MAX && step.stop.is_none() {
                let Ok(next) = inbox.try_recv() else { break };
                self.take_in(next, &mut step);
            }
            self.finish();
            if step.only_facts && !inbox.is_empty() {
                self.begin();
                continue;
            }
            self.commit_and_tell(&mut step);
            if let Some(done) = step.stop {
                self.say_goodbye();
                let _ = done.send(());
                return;
            }
        }
    }

    /// `None`: nobody is left who could ask for anything.
    fn next(&mut self, inbox: &mut mpsc::Receiver<Command>) -> Option<Command> {
        if let Ok(command) = inbox.try_recv() {
            return Some(command);
        }
        self.finish();
        inbox.blocking_recv()
    }

    fn take_in(&mut self, command: Command, step: &mut Step) {
        step.taken += 1;
        if let Command::Tell(Input::Facts { facts, .. }) = &command {
            step.facts += facts.len();
        } else {
            step.only_facts = false;
            self.finish();
        }
        match command {
            Command::Do { task, order, reply } => {
                let result = self.on_order(task, order.as_deref());
                step.replies.push((reply, result));
            }
            Command::Tell(input) => self.on_word(input),
            Command::Connected { connected, port } => self.on_connected(connected, port, step),
            Command::Ask(request) => step.questions.push(request),
            Command::Watch { job, reply } => step.watches.push((job, reply)),
            Command::Happened(event) => self.engine.happened(event, os::clock::wall_ms()),
            Command::Adopt { agent, run, spec, reply } => {
                let result = self.adopt(agent, run, spec);
                step.replies.push((reply, result));
            }
            Command::Forget { jobs, reply } => step.forgets.push((jobs, reply)),
            Command::Tick => self.on_tick(),
            Command::Stop(done) => {
                self.note_used_tokens();
                step.stop = Some(done);
            }
        }
    }

    pub(super) fn decide(&mut self, input: Input) -> Answer {
        if let Input::Submit(specs) = &input {
            for key in specs.iter().filter_map(|spec| spec.idempotency_key.as_deref()) {
                self.recall_key(key)?;
            }
        }
        if let Input::RestartJob(restart) = &input
            && !self.engine.has_job(restart.job)
            && let Some(record) = self.database.job(restart.job)?
        {
            self.engine.recall_job(record);
        }
        match self.engine.on(input, os::clock::wall_ms()) {
            Ok(reply) => Ok(reply),
            Err(Rejection::NoSuchJob(job)) => match self.database.job(job)? {
                Some(record) => Err(Rejection::AlreadyFinal { job, status: record.status }.into()),
                None => Err(Rejection::NoSuchJob(job).into()),
            },
            Err(e) => Err(e.into()),
        }
    }

    /// When tokens were last used is written from time to time, not with every request.
    fn note_used_tokens(&mut self) {
        for (id, at_ms) in self.tokens.take_used() {
            self.access.on_used(&id, at_ms);
            self.entries.push(Entry::TokenUsed(id, at_ms));
        }
    }

    /// Only this thread writes, so the strays are complete.
    fn adopt(&mut self, agent: String, run: RunId, spec: Box<RunSpec>) -> Answer {
        let job = JobId(spec.job_id.unwrap_or_default());
        if !self.engine.has_job(job)
            && let Some(record) = self.database.job(job)?
        {
            self.engine.recall_job(record);
        }
        let facts = self.database.facts(run)?;
        let facts = facts.into_iter().map(|fact| FactIn::new(run, fact.seq, fact.bytes)).collect();
        Ok(self.engine.on(Input::Adopt { agent, spec, facts }, os::clock::wall_ms())?)
    }

    /// As the database has them now: somebody may have restarted one since they were chosen.
    fn forget(&mut self, jobs: &[JobId]) -> Answer {
        let mut over = Vec::with_capacity(jobs.len());
        for job in jobs {
            if let Some(record) = self.database.job(*job)? {
                let runs = self.database.runs(*job)?.into_iter().map(|run| run.id).collect();
                over.push(Over { job: *job, status: record.status, runs });
            }
        }
        Ok(self.engine.on(Input::Forget(over), os::clock::wall_ms())?)
    }

    fn recall_key(&mut self, key: &str) -> Result<(), DbError> {
        if !self.engine.has_key(key)
            && let Some(job) = self.database.job_of_key(key)?
            && let Some(record) = self.database.job(job)?
        {
            self.engine.recall_key(&record);
        }
        Ok(())
    }

    /// A word of an agent: nobody waits for an answer, so what cannot be taken is repaired by a new connection.
    fn on_word(&mut self, mut input: Input) {
        if let Input::Facts { agent, facts } = &mut input {
            metrics::counter!("lastword_facts_total").increment(facts.len() as u64);
            // What follows a message that was not taken must not be acknowledged in its place.
            if self.unheard.contains(agent) {
                return;
            }
            if facts
                .iter()
                .any(|fact| self.engine.acked_seq(fact.run) >= fact.seq || !self.engine.has_run(fact.run))
            {
                self.finish(); // the database has to be asked
            }
            if let Err(e) = self.recall_runs(facts).and_then(|()| self.recall_facts(facts)) {
                tracing::warn!(%agent, "messages were not taken, the agent will send them again: {e}");
                self.ports.remove(agent);
                self.unheard.insert(agent.clone());
                return;
            }
        }
        if let Input::AgentDisconnected { agent, session, .. } = &input
            && self.ports.get(agent).is_some_and(|(present, _)| present == session)
        {
            self.ports.remove(agent);
        }
        if let Err(e) = self.engine.on(input, os::clock::wall_ms()) {
            tracing::error!("a word of an agent was rejected: {e}");
        }
    }

    fn recall_runs(&mut self, facts: &[FactIn]) -> Result<(), DbError> {
        for fact in facts {
            if !self.engine.has_run(fact.run)
                && let Some(record) = self.database.run(fact.run)?
            {
                self.engine.recall_run(record);
            }
        }
        Ok(())
    }

    /// What comes again is compared with what was stored: it must be the same.
    fn recall_facts(&mut self, facts: &mut [FactIn]) -> Result<(), DbError> {
        let mut known: Option<(RunId, Vec<FactRecord>)> = None;
        for fact in facts {
            if self.engine.acked_seq(fact.run) < fact.seq {
                continue;
            }
            if known.as_ref().is_none_or(|(run, _)| *run != fact.run) {
                known = Some((fact.run, self.database.facts(fact.run)?));
            }
            let stored = known.iter().flat_map(|(_, facts)| facts).find(|stored| stored.seq == fact.seq);
            fact.stored = stored.map(|stored| stored.bytes.clone());
        }
        Ok(())
    }

    fn on_connected(&mut self, connected: Connected, port: Port, step: &mut Step) {
        self.unheard.remove(&connected.agent);
        step.arrivals.insert(connected.session, port);
        self.on_word(Input::AgentConnected(connected));
    }

    fn on_tick(&mut self) {
        self.on_word(Input::Tick);
        self.ticks += 1;
        if self.ticks.is_multiple_of(TOKENS_NOTED_TICKS) {
            self.note_used_tokens();
        }
        if self.ticks.is_multiple_of(WATCHERS_SWEPT_TICKS) {
            self.watchers.retain(|_, watchers| {
                watchers.retain(|watcher| !watcher.is_closed());
                !watchers.is_empty()
            });
        }
    }

    fn commit_and_tell(&mut self, step: &mut Step) {
        for (jobs, reply) in std::mem::take(&mut step.forgets) {
            let result = self.forget(&jobs);
            step.replies.push((reply, result));
        }
        let (batch, begun) = self.take();
        writer::write(&*self.database, &self.shared, &batch);
        self.answered.clear();
        self.on_batch_written(batch, begun, &mut step.arrivals);
        for (job, watcher) in step.watches.drain(..) {
            self.watch(job, watcher);
        }
        for (reply, result) in step.replies.drain(..) {
            let _ = reply.send(result);
        }
        for question in step.questions.drain(..) {
            self.answer(question);
        }
    }

    fn take(&mut self) -> (Batch, Begun) {
        let Output { changes, actions, passing } = self.engine.take();
        let batch = Batch { changes, entries: std::mem::take(&mut self.entries) };
        (batch, Begun { actions, passing, counts: self.engine.counts() })
    }

    /// Lets what was decided be written; nobody is told before [`Core::finish`].
    fn begin(&mut self) {
        let (batch, begun) = self.take();
        self.writer.begin(batch);
        self.begun = Some(begun);
    }

    /// Waits for what is being written, and tells.
    fn finish(&mut self) {
        if let Some(begun) = self.begun.take() {
            let batch = self.writer.wait();
            self.on_batch_written(batch, begun, &mut BTreeMap::new());
        }
    }

    fn on_batch_written(&mut self, batch: Batch, begun: Begun, arrivals: &mut BTreeMap<u64, Port>) {
        let Begun { actions, passing, counts } = begun;
        for entry in &batch.entries {
            self.tokens.on_written(entry);
        }
        self.shared.on_step(counts);
        for change in &batch.changes {
            self.on_written(change);
        }
        self.engine.on_committed(passing, batch.changes);
        self.carry_out(actions, arrivals);
    }

    fn on_written(&mut self, change: &Change) {
        match change {
            Change::JobInserted(job) | Change::JobUpdated(job) if job.status.is_final() => {
                for watcher in self.watchers.remove(&job.id).into_iter().flatten() {
                    let _ = watcher.send(());
                }
            }
            Change::StrayInserted(_) => self.strays += 1,
            Change::StraysDeleted(_, count) => self.strays = self.strays.saturating_sub(*count),
            Change::AgentInserted(agent, secret) => self.roster.on_added(agent, secret),
            Change::SecretAdded(agent, secret) => self.roster.on_secret(agent, secret),
            Change::SecretsRetired(agent) => self.roster.on_retired(agent),
            Change::AgentDeleted(agent) => self.roster.on_removed(agent),
            Change::FileKept(_) => self.shared.on_file_kept(),
            Change::JobInserted(_)
            | Change::JobUpdated(_)
            | Change::RunInserted(_)
            | Change::RunUpdated(_)
            | Change::FactInserted(_)
            | Change::AgentTold(_)
            | Change::JobDeleted(_)
            | Change::QueueInserted(_)
            | Change::QueueUpdated(_)
            | Change::QueueDeleted(_)
            | Change::Attached(..)
            | Change::Detached(..)
            | Change::AgentUpdated(_) => {}
            Change::Event(event) if self.feed.receiver_count() > 0 => {
                let _ = self.feed.send(Arc::new(event.clone())); // fails if the last one left meanwhile
            }
            Change::Event(_) => {}
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>, arrivals: &mut BTreeMap<u64, Port>) {
        let commit = self.database.commit_number();
        let mut acks: BTreeMap<String, BTreeMap<RunId, u64>> = BTreeMap::new();
        for action in actions {
            match action {
                Action::Hello { agent, session, known, missing, tell_all } => {
                    let Some(port) = arrivals.remove(&session) else { continue };
                    self.shared.on_obeyed(&agent);
                    self.ports.insert(agent.clone(), (session, port)); // the older one is dropped: its session ends
                    self.deliver(&agent, ToAgent::Hello { known, missing, tell_all, commit });
                }
                Action::RefuseSession { session, reason, .. } => {
                    let close = ToAgent::Close { reason, stopping: false };
                    if let Some(port) = arrivals.remove(&session) {
                        let _ = port.try_send(close); // a new port has room
                    }
                }
                Action::Probe { agent, session } => {
                    if self.ports.get(&agent).is_some_and(|(present, _)| *present == session) {
                        self.deliver(&agent, ToAgent::Probe);
                    }
                }
                Action::Notice { agent, text } => self.deliver(&agent, ToAgent::Notice(text)),
                Action::AgentGone { agent } => {
                    let reason = "this agent was removed on the server".to_owned();
                    self.end_session(&agent, reason);
                    self.shared.on_obeyed(&agent); // whoever it obeyed does not matter any more
                }
                Action::Start { agent, run, spec } => self.deliver(&agent, ToAgent::Start { run, spec }),
                Action::Kill { agent, run, grace_ms, by } => {
                    self.deliver(&agent, ToAgent::Kill { run, grace_ms, by });
                }
                Action::Pause { agent, run, suspend, by } => {
                    self.deliver(&agent, ToAgent::Pause { run, suspend, by });
                }
                Action::Ack { agent, run, seq } => {
                    let acked = acks.entry(agent).or_default().entry(run).or_default();
                    *acked = seq.max(*acked);
                }
                Action::Fenced { agent, reason } => {
                    let text = format!("agent \"{agent}\" obeys a newer server than this one: {reason}");
                    self.shared.on_fenced(&agent, text.clone());
                    self.end_session(&agent, text);
                }
                Action::Resync { agent, reason } => self.end_session(&agent, reason),
                Action::Warn(text) => tracing::warn!("{text}"),
                Action::Defect(text) => tracing::error!("a defect of this program, please report it: {text}"),
            }
        }
        for (agent, acks) in acks {
            metrics::counter!("lastword_acks_total").increment(acks.len() as u64);
            let acks: Vec<_> = acks.into_iter().collect();
            for part in acks.chunks(ACKS_MAX) {
                self.deliver(&agent, ToAgent::Acks { acks: part.to_vec(), commit });
            }
        }
    }

    /// Hands something to an agent's session. If it has none, or does not take what it gets, the next connection repeats it.
    fn deliver(&mut self, agent: &str, message: ToAgent) {
        let Some((_, port)) = self.ports.get(agent) else { return };
        match port.try_send(message) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(%agent, "the agent does not take what it is told; its connection is closed");
                self.ports.remove(agent);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.ports.remove(agent);
            }
        }
    }

    /// The agent's present session is over for us; it is to come again.
    fn end_session(&mut self, agent: &str, reason: String) {
        self.deliver(agent, ToAgent::Close { reason, stopping: false });
        self.ports.remove(agent);
    }

    fn watch(&mut self, job: JobId, watcher: oneshot::Sender<()>) {
        if self.engine.job(job).is_none() {
            let _ = watcher.send(());
            return;
        }
        let watchers = self.watchers.entry(job).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(watcher);
    }

    fn answer(&self, request: Request) {
        // Whoever asked may have gone meanwhile: nothing is lost.
        match request {
            Request::Agents(reply) => drop(reply.send(self.engine.agents())),
            Request::Agent(name, reply) => drop(reply.send(self.engine.agent(&name))),
            Request::Queues(reply) => drop(reply.send(self.engine.queues())),
            Request::Queue(name, reply) => drop(reply.send(self.engine.queue(&name))),
            Request::Why(job, reply) => drop(reply.send(self.why(job))),
            Request::Recovery(reply) => drop(reply.send(self.engine.recovery())),
            Request::Status(reply) => drop(reply.send(self.status())),
        }
    }

    fn why(&self, job: JobId) -> Result<String, CoreError> {
        if let Some(text) = self.engine.why(job, os::clock::wall_ms()) {
            return Ok(text);
        }
        let record = self.database.job(job)?.ok_or(Rejection::NoSuchJob(job))?;
        Ok(scheduler::became(&record, self.database.runs(job)?.last()))
    }

    fn status(&self) -> ServerStatus {
        let identity = self.database.identity();
        ServerStatus {
            epoch: identity.epoch,
            database_id: identity.database_id,
            commit: self.database.commit_number(),
            inbox: 0,
            strays: self.strays,
            recovery: self.engine.recovery(),
            started_at_ms: self.started_at_ms,
            counts: self.engine.counts(),
            agents: self.engine.agents().len(),
            agents_connected: self.ports.len(),
        }
    }

    fn say_goodbye(&mut self) {
        for (_, port) in self.ports.drain().map(|(_, port)| port) {
            let _ = port.try_send(ToAgent::Close { reason: "the server stops".to_owned(), stopping: true });
        }
    }
}

/// So many events wait for whoever follows; who is further behind is cut off.
const FEED_MAX: usize = 8_192;
/// When tokens were last used is written every so many ticks.
const TOKENS_NOTED_TICKS: u64 = 60;
/// So many runs are acknowledged in one frame, so that it fits.
const ACKS_MAX: usize = 50_000;
/// Watchers that nobody waits for any more are swept out after so many ticks.
const WATCHERS_SWEPT_TICKS: u64 = 60;

//! What the engine's tests share: a lab with an engine, a store that takes its changes like a database, and short words for
//! what agents say.

use job::{End, JobId, Outcome, RunId, RunIds, Status, Usage, Witness};
use prost::Message;
use protocol::handshake::PROTOCOL_VERSION;
use protocol::message::{Accepted, Ended, Fact, FactBody, RefusalKind, Started};
use scheduler::{
    Action, AgentRecord, Change, Connected, Counts, Dial, Engine, EventRecord, FactIn, Input, InventoryEntry,
    JobRecord, JobSpec, KeptFile, NewAgent, QueueRecord, Recovery, Rejection, Reply, RunRecord, Snapshot,
};
use std::collections::{BTreeMap, BTreeSet};

/// The record as a database would have it.
#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) jobs: BTreeMap<JobId, JobRecord>,
    pub(crate) runs: BTreeMap<RunId, RunRecord>,
    pub(crate) facts: BTreeSet<(RunId, u64)>,
    pub(crate) strays: BTreeSet<(RunId, u64)>,
    pub(crate) queues: BTreeMap<String, QueueRecord>,
    pub(crate) agents: BTreeMap<String, AgentRecord>,
    pub(crate) attachments: BTreeSet<(String, String)>,
    pub(crate) events: Vec<EventRecord>,
    pub(crate) files: Vec<KeptFile>,
    pub(crate) recovery: Option<Recovery>,
}

impl Store {
    /// Takes a batch and checks what must hold for every batch.
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change.clone() {
                Change::JobInserted(job) => {
                    assert!(self.jobs.insert(job.id, job).is_none(), "a job was inserted twice");
                }
                Change::JobUpdated(job) => {
                    let before = self.jobs.insert(job.id, job.clone()).expect("an updated job exists");
                    // A batch may hold several steps of one job: over and placed again, queued and canceled.
                    let again = job.attempts > before.attempts || job.status == Status::Queued;
                    let legal = before.status == job.status
                        || before.status.may_become(job.status)
                        || before.status.may_begin_again(job.status)
                        || before.status.is_final() && job.attempts > before.attempts
                        || !before.status.is_final() && (again || job.status.is_final());
                    assert!(legal, "job {} from {} to {}", job.id, before.status, job.status);
                }
                Change::RunInserted(run) => {
                    assert!(self.runs.insert(run.id, run).is_none(), "a run was inserted twice");
                }
                Change::RunUpdated(run) => {
                    let before = self.runs.insert(run.id, run.clone()).expect("an updated run exists");
                    let legal = before.status == run.status || before.status.may_become(run.status);
                    assert!(legal, "run {} from {} to {}", run.id, before.status, run.status);
                    assert!(run.acked_seq >= before.acked_seq);
                }
                Change::FactInserted(fact) => {
                    assert!(self.facts.insert((fact.run, fact.seq)), "a fact was stored twice");
                }
                Change::StrayInserted(stray) => {
                    self.strays.insert((stray.fact.run, stray.fact.seq));
                }
                Change::QueueInserted(queue) | Change::QueueUpdated(queue) => {
                    self.queues.insert(queue.name.clone(), queue);
                }
                Change::QueueDeleted(name) => {
                    self.queues.remove(&name);
                    self.attachments.retain(|(queue, _)| *queue != name);
                }
                Change::Attached(queue, agent) => {
                    self.attachments.insert((queue, agent));
                }
                Change::Detached(queue, agent) => {
                    self.attachments.remove(&(queue, agent));
                }
                Change::AgentInserted(agent, _) | Change::AgentUpdated(agent) => {
                    self.agents.insert(agent.name.clone(), agent);
                }
                Change::AgentDeleted(name) => {
                    self.agents.remove(&name);
                    self.attachments.retain(|(_, agent)| *agent != name);
                }
                Change::JobDeleted(id) => {
                    let job = self.jobs.remove(&id).expect("a deleted job exists");
                    assert!(job.status.is_final(), "job {id} was deleted as {}", job.status);
                    self.runs.retain(|_, run| run.job != id);
                    let runs = &self.runs;
                    self.facts.retain(|(run, _)| runs.contains_key(run));
                }
                Change::FileKept(file) => {
                    assert_eq!(self.runs[&file.run].job, file.job, "a file of another job");
                    self.files.push(file);
                }
                Change::StraysDeleted(run, _) => self.strays.retain(|(stray, _)| *stray != run),
                Change::AgentTold(agent) => {
                    let recovery = self.recovery.as_mut().expect("a recovery is going on");
                    assert!(recovery.untold.remove(&agent), "an agent told twice");
                }
                Change::SecretAdded(..) | Change::SecretsRetired(_) => {}
                Change::Event(event) => {
                    assert_eq!(
                        event.number,
                        self.events.last().map_or(0, |last| last.number) + 1,
                        "events have a gap"
                    );
                    self.events.push(event);
                }
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for job in self.jobs.values() {
            counts.add(job.status);
        }
        counts
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            jobs: self.jobs.values().filter(|job| !job.status.is_final()).cloned().collect(),
            runs: self.runs.values().filter(|run| !run.status.is_final()).cloned().collect(),
            queues: self.queues.values().cloned().collect(),
            agents: self.agents.values().cloned().collect(),
            attachments: self.attachments.iter().cloned().collect(),
            last_job: self.jobs.keys().last().map_or(0, |id| id.0),
            last_run: self.runs.keys().max().copied(),
            counts: self.counts(),
            recovery: self.recovery.clone().filter(|recovery| !recovery.untold.is_empty()),
            last_event: self.events.last().map_or(0, |last| last.number),
        }
    }
}

/// An engine with its store, and a clock.
pub(crate) struct Lab {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) now_ms: i64,
    pub(crate) next_session: u64,
}

impl Lab {
    /// One queue, `default`.
    pub(crate) fn new() -> Lab {
        let mut store = Store::default();
        let queue =
            QueueRecord { name: "default".into(), held: false, slots: None, priority: 0, created_at_ms: 0 };
        store.queues.insert("default".into(), queue);
        let engine = Engine::restore(store.snapshot(), RunIds::new([7; 32])).expect("restores");
        Lab { engine, store, now_ms: 1_800_000_000_000, next_session: 1 }
    }

    /// One input, committed; returns what is to be done.
    pub(crate) fn on(&mut self, input: Input) -> Result<(Reply, Vec<Action>), Rejection> {
        if let Input::Facts { facts, .. } = &input {
            for fact in facts {
                if !self.engine.has_run(fact.run)
                    && let Some(run) = self.store.runs.get(&fact.run)
                {
                    self.engine.recall_run(run.clone());
                }
            }
        }
        let mut wanted = None;
        if let Input::RestartJob(restart) = &input {
            wanted = Some(restart.job);
        }
        if let Input::Adopt { spec, .. } = &input {
            wanted = spec.job_id.map(JobId);
        }
        if let Some(id) = wanted.filter(|id| !self.engine.has_job(*id))
            && let Some(job) = self.store.jobs.get(&id)
        {
            self.engine.recall_job(job.clone());
        }
        let result = self.engine.on(input, self.now_ms);
        let out = self.engine.take();
        if result.is_err() {
            assert!(out.changes.is_empty() && out.actions.is_empty(), "a rejected command changed something");
        }
        self.store.apply(&out.changes);
        self.engine.on_committed(out.passing, out.changes);
        result.map(|reply| (reply, out.actions))
    }

    pub(crate) fn act(&mut self, input: Input) -> Vec<Action> {
        self.on(input).expect("is not rejected").1
    }

    pub(crate) fn reject(&mut self, input: Input) -> Rejection {
        self.on(input).expect_err("is rejected")
    }

    /// The server dies and comes back.
    pub(crate) fn restart(&mut self) {
        let seed = [u8::try_from(self.next_session % 251).unwrap_or(0); 32];
        self.next_session += 1;
        self.engine = Engine::restore(self.store.snapshot(), RunIds::new(seed)).expect("restores");
    }

    /// A new agent, attached to `default` and connected.
    pub(crate) fn agent(&mut self, name: &str, slots: u32) -> u64 {
        self.act(new_agent(name, slots, &["default"]));
        self.connect(name, &[]).0
    }

    /// A new session; its number, and what is to be done.
    pub(crate) fn connect(&mut self, name: &str, inventory: &[(RunId, u64)]) -> (u64, Vec<Action>) {
        self.connect_as(name, PROTOCOL_VERSION, inventory)
    }

    /// The same with an agent that speaks that version.
    pub(crate) fn connect_as(
        &mut self,
        name: &str,
        protocol: u32,
        inventory: &[(RunId, u64)],
    ) -> (u64, Vec<Action>) {
        let session = self.next_session;
        self.next_session += 1;
        let entry = |(run, last_seq): &(RunId, u64)| InventoryEntry {
            run: *run,
            last_seq: *last_seq,
            stored_seq: self.store.runs.get(run).map(|run| run.acked_seq),
        };
        let inventory = inventory.iter().map(entry).collect();
        let connected = Connected { inventory, protocol, ..account(name, session, name) };
        (session, self.act(Input::AgentConnected(connected)))
    }

    pub(crate) fn disconnect(&mut self, name: &str, session: u64) {
        self.act(Input::AgentDisconnected { agent: name.into(), session, stopping: false });
    }

    pub(crate) fn submit(&mut self, spec: JobSpec) -> (JobId, Vec<Action>) {
        let (reply, actions) = self.on(Input::Submit(vec![spec])).expect("is taken");
        let Reply::Submitted(jobs) = reply else { panic!("{reply:?}") };
        (jobs[0].job, actions)
    }

    pub(crate) fn say(&mut self, agent: &str, run: RunId, seq: u64, body: FactBody) -> Vec<Action> {
        let bytes = Fact::new(self.now_ms, body).encode_to_vec();
        self.act(Input::Facts { agent: agent.into(), facts: vec![FactIn::new(run, seq, bytes)] })
    }

    /// The agent accepts, starts and ends the run with that exit code.
    pub(crate) fn run_through(&mut self, agent: &str, run: RunId, code: u8) -> Vec<Action> {
        self.say(agent, run, 1, accepted());
        self.say(agent, run, 2, started());
        self.say(agent, run, 3, exited(code))
    }

    pub(crate) fn job(&self, id: JobId) -> &JobRecord {
        &self.store.jobs[&id]
    }

    pub(crate) fn run_of(&self, id: JobId) -> &RunRecord {
        &self.store.runs[&self.job(id).run.expect("has a run")]
    }

    pub(crate) fn why(&self, id: JobId) -> String {
        self.engine.why(id, self.now_ms).expect("is not over")
    }

    pub(crate) fn refuse(&mut self, agent: &str, session: u64, run: RunId, kind: RefusalKind) -> Vec<Action> {
        self.act(Input::Refused { agent: agent.into(), session, run, kind, reason: "disk full".into() })
    }
}

pub(crate) fn spec() -> JobSpec {
    JobSpec {
        queue: "default".into(),
        command: vec![b"/bin/true".to_vec()],
        submitted_by: "me".into(),
        ..JobSpec::default()
    }
}

pub(crate) fn new_agent(name: &str, slots: u32, queues: &[&str]) -> Input {
    Input::AddAgent(NewAgent {
        name: name.into(),
        slots,
        dial: Some(Dial { host: "h".into(), port: 1 }),
        secret: vec![1; 32],
        queues: queues.iter().map(|q| (*q).to_owned()).collect(),
    })
}

/// The account of an agent whose data root is named by `root`.
pub(crate) fn account(name: &str, session: u64, root: &str) -> Connected {
    let mut agent_id = [0; 16];
    agent_id[..root.len()].copy_from_slice(root.as_bytes());
    Connected { agent: name.into(), session, agent_id, ..Connected::default() }
}

pub(crate) fn accepted() -> FactBody {
    FactBody::Accepted(Accepted::default())
}

pub(crate) fn started() -> FactBody {
    FactBody::Started(Started::default())
}

pub(crate) fn exited(code: u8) -> FactBody {
    let usage = Some(Usage { cpu_ms: Some(5), max_rss_kib: Some(6), ..Usage::default() });
    let end = End::Exited { code };
    ended(&Outcome::Ended { end, cause: None, witness: Witness::JobProcessor, usage })
}

pub(crate) fn ended(outcome: &Outcome) -> FactBody {
    FactBody::Ended(Ended::from(outcome))
}

/// The runs that are ordered by these actions, with their agents.
pub(crate) fn starts(actions: &[Action]) -> Vec<(String, RunId)> {
    let start = |action: &Action| match action {
        Action::Start { agent, run, .. } => Some((agent.clone(), *run)),
        Action::Hello { .. }
        | Action::RefuseSession { .. }
        | Action::Probe { .. }
        | Action::Notice { .. }
        | Action::AgentGone { .. }
        | Action::Kill { .. }
        | Action::Pause { .. }
        | Action::Ack { .. }
        | Action::Fenced { .. }
        | Action::Resync { .. }
        | Action::Warn(_)
        | Action::Defect(_) => None,
    };
    actions.iter().filter_map(start).collect()
}

pub(crate) fn has_ack(actions: &[Action], run: RunId, seq: u64) -> bool {
    actions.iter().any(|a| matches!(a, Action::Ack { run: r, seq: s, .. } if *r == run && *s == seq))
}

pub(crate) fn has_any_ack(actions: &[Action]) -> bool {
    actions.iter().any(|a| matches!(a, Action::Ack { .. }))
}

pub(crate) fn kills(actions: &[Action]) -> usize {
    actions.iter().filter(|a| matches!(a, Action::Kill { .. })).count()
}

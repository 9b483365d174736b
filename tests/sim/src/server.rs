//! The central server: mirrors `server/src/core/committer.rs` (one step: take what waits, decide, commit, then tell) and
//! `server/src/agents/session.rs` (an agent's account, its messages, what it is told). The engine is the real one. Not mirrored: that facts are decided
//! while the batch before is written (`server/src/core/writer.rs`).

use crate::mutation::Mutation;
use crate::net::{Conn, Side};
use crate::world::{Event, World};
use crate::{log, queue::Ms};
use job::{JobId, RunId, RunIds};
use protocol::Frame;
use protocol::convert::{run_id, run_id_field};
use protocol::message::{
    Acks, AgentHello, Facts, InventoryItem, Kill, Position, RefusalKind, RunPosition, ServerHello, Start,
};
use scheduler::{
    Action, Change, Connected, Counts, Engine, FactIn, Input, InventoryEntry, JobSpec, NewAgent, Output,
    Passing, Rejection,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Between two looks at the clock (`TICK`), and the pause after a commit that failed (`RETRY_MIN`), milliseconds.
const TICK_MS: Ms = 1_000;
const RETRY_MS: Ms = 100;

/// What waits for the core.
#[derive(Debug)]
pub(crate) enum Command {
    Do(Input),
    Connected(Box<Connected>, Conn),
}

/// What a step owes once it is committed.
#[derive(Debug, Default)]
struct Step {
    changes: Vec<Change>,
    actions: Vec<Action>,
    passing: Passing,
    counts: Counts,
    arrivals: BTreeMap<u64, Conn>,
}

/// One connection of an agent, as the server has it.
#[derive(Debug, Default)]
struct Session {
    number: u64,
    agent: String,
    epoch: u64,
    items: Vec<InventoryItem>,
    /// Its account was complete.
    has_begun: bool,
}

/// The process.
pub(crate) struct Server {
    pub(crate) id: u64,
    engine: Engine,
    incarnation: [u8; 16],
    inbox: VecDeque<Command>,
    step: Option<Step>,
    /// The way to each connected agent, with the number of its session.
    ports: BTreeMap<String, (u64, Conn)>,
    sessions: BTreeMap<Conn, Session>,
    led: BTreeSet<String>,
}

impl World {
    pub(crate) fn on_server_start(&mut self) {
        let id = self.new_instance();
        self.database.epoch += 1;
        let seed = self.rng.bytes();
        let engine = match Engine::restore(self.database.snapshot(), RunIds::new(seed)) {
            Ok(engine) => engine,
            Err(e) => return self.oracle.fail(format!("a server cannot start from what was committed: {e}")),
        };
        let incarnation = self.rng.bytes();
        self.server = Some(Server {
            id,
            engine,
            incarnation,
            inbox: VecDeque::new(),
            step: None,
            ports: BTreeMap::new(),
            sessions: BTreeMap::new(),
            led: BTreeSet::new(),
        });
        self.queue.after(TICK_MS, Event::ServerTick { server: id });
        if self.database.jobs.is_empty() && self.database.epoch == 1 {
            for (name, slots) in self.scenario.agents.clone() {
                let queues = vec!["default".to_owned()];
                let new = NewAgent { name, slots, dial: None, secret: vec![1; 32], queues };
                self.tell(Command::Do(Input::AddAgent(new)));
            }
        }
        if self.scenario.server_dials {
            for host in 0..self.hosts.len() {
                self.queue.after(1, Event::ServerDial { server: id, host });
            }
        }
    }

    pub(crate) fn kill_server(&mut self) {
        let Some(server) = self.server.take() else { return };
        for conn in 0..self.connections.len() {
            if self.connections[conn].server == server.id {
                self.close(conn, Side::Server);
            }
        }
        let delay_ms = self.rng.range(200, 5_000);
        self.queue.after(delay_ms, Event::ServerStart);
    }

    pub(crate) fn on_server_dial(&mut self, host: usize) {
        let now_ms = self.queue.now_ms();
        let Some(server) = self.server.as_ref().map(|server| server.id) else { return };
        // It begins again when that session is over.
        let is_here =
            self.server.as_ref().is_some_and(|server| server.ports.contains_key(&self.hosts[host].name));
        if is_here {
            return;
        }
        if let Some(np) = self.np(host).filter(|np| np.has_begun).map(|np| np.id)
            && self.ways[host].cut_until_ms <= now_ms
        {
            self.connect(host, np, server);
        } else {
            self.queue.after(1_000, Event::ServerDial { server, host });
        }
    }

    pub(crate) fn on_server_tick(&mut self, server: u64) {
        self.tell(Command::Do(Input::Tick));
        self.queue.after(TICK_MS, Event::ServerTick { server });
    }

    /// Something for the core.
    pub(crate) fn tell(&mut self, command: Command) {
        let Some(server) = &mut self.server else { return };
        server.inbox.push_back(command);
        let id = server.id;
        if server.step.is_none() {
            self.queue.after(0, Event::ServerStep { server: id });
        }
    }

    /// Takes everything that waits, and decides.
    pub(crate) fn on_server_step(&mut self) {
        let now_ms = log::wall_ms(self.queue.now_ms());
        let Some(server) = self.server.as_mut().filter(|server| server.step.is_none()) else { return };
        let mut step = Step::default();
        for command in std::mem::take(&mut server.inbox) {
            let Some(server) = &mut self.server else { return };
            match command {
                Command::Do(input) => {
                    let input = server.recall(input, &self.database);
                    match server.engine.on(input, now_ms) {
                        Ok(_)
                        | Err(
                            Rejection::AlreadyFinal { .. }
                            | Rejection::NoSuchJob(_)
                            | Rejection::AlreadyPlaced { .. },
                        ) => {}
                        Err(e) => self.oracle.fail(format!("a request in good order was rejected: {e}")),
                    }
                }
                Command::Connected(connected, conn) => {
                    step.arrivals.insert(connected.session, conn);
                    if let Err(e) = server.engine.on(Input::AgentConnected(*connected), now_ms) {
                        self.oracle.fail(format!("an account was rejected: {e}"));
                    }
                }
            }
        }
        let Some(server) = &mut self.server else { return };
        let Output { changes, actions, passing } = server.engine.take();
        (step.changes, step.actions, step.passing) = (changes, actions, passing);
        step.counts = server.engine.counts();
        let id = server.id;
        server.step = Some(step);
        if self.mutation == Some(Mutation::AckBeforeCommit) {
            self.carry_out();
        }
        let delay_ms = self.rng.range(0, self.commit_ms);
        self.queue.after(delay_ms, Event::ServerCommit { server: id });
    }

    /// The batch is written, or cannot be written now.
    pub(crate) fn on_server_commit(&mut self) {
        let Some(server) = &mut self.server else { return };
        let id = server.id;
        if self.database_fails {
            return self.queue.after(RETRY_MS, Event::ServerCommit { server: id });
        }
        if let Some(step) = &server.step {
            self.database.commit(&step.changes, &mut self.oracle);
        }
        let delay_ms = self.rng.below(3);
        self.queue.after(delay_ms, Event::ServerTell { server: id });
    }

    /// What was decided is committed: now it is said.
    pub(crate) fn on_server_tell(&mut self) {
        let Some(server) = &mut self.server else { return };
        let Some(step) = &mut server.step else { return };
        let counts = step.counts;
        server.engine.on_committed(std::mem::take(&mut step.passing), std::mem::take(&mut step.changes));
        if counts != self.database.counts() {
            self.oracle.fail("engine and database count differently".to_owned());
        }
        self.carry_out();
        let Some(server) = &mut self.server else { return };
        server.step = None;
        let id = server.id;
        if !server.inbox.is_empty() {
            self.queue.after(0, Event::ServerStep { server: id });
        }
    }

    fn carry_out(&mut self) {
        let Some(step) = self.server.as_mut().and_then(|server| server.step.as_mut()) else { return };
        let (actions, mut arrivals) = (std::mem::take(&mut step.actions), std::mem::take(&mut step.arrivals));
        let mut acks: BTreeMap<String, BTreeMap<RunId, u64>> = BTreeMap::new();
        for action in actions {
            match action {
                Action::Hello { agent, session, known, missing, tell_all: _ } => {
                    if let Some(conn) = arrivals.remove(&session) {
                        self.on_greeting(agent, session, conn, known, missing);
                    }
                }
                Action::RefuseSession { session, reason, .. } => {
                    if let Some(conn) = arrivals.remove(&session) {
                        self.goodbye(conn, Side::Server, &reason, false);
                    }
                }
                Action::Start { agent, run, spec } => self.order(&agent, |epoch| {
                    Start { epoch: Some(epoch), run_id: run_id_field(run), spec: Some(spec) }.into()
                }),
                Action::Kill { agent, run, grace_ms, by } => self.order(&agent, |epoch| {
                    Kill { epoch: Some(epoch), run_id: run_id_field(run), grace_ms, by }.into()
                }),
                Action::Ack { agent, run, seq } => {
                    let acked = acks.entry(agent).or_default().entry(run).or_default();
                    *acked = seq.max(*acked);
                }
                Action::Notice { agent, text } => {
                    self.order(&agent, |_| Acks { notice: text, ..Acks::default() }.into());
                }
                Action::Fenced { agent, reason } | Action::Resync { agent, reason } => {
                    self.end_session(&agent, &reason)
                }
                Action::Defect(text) => self.oracle.fail(format!("the engine reports a defect: {text}")),
                Action::Probe { .. } | Action::AgentGone { .. } | Action::Pause { .. } | Action::Warn(_) => {}
            }
        }
        let position = Some(self.position());
        for (agent, acks) in acks {
            let position = position.clone();
            let frame = Acks { acks: positions(acks.into_iter()), position, notice: String::new() }.into();
            self.order(&agent, |_| frame);
        }
    }

    fn on_greeting(
        &mut self,
        agent: String,
        session: u64,
        conn: Conn,
        known: Vec<(RunId, u64)>,
        missing: Vec<RunId>,
    ) {
        let position = Some(self.position());
        let Some(server) = &mut self.server else { return };
        let epoch = server.sessions.get(&conn).map_or(0, |session| session.epoch);
        let before = server.ports.insert(agent, (session, conn));
        let mut known = positions(known.into_iter());
        let mut missing: Vec<_> = missing.into_iter().map(|run| run.as_bytes().to_vec()).collect();
        protocol::reconcile::fit(&mut known, &mut missing);
        let hello = ServerHello {
            epoch: Some(epoch),
            incarnation: Some(server.incarnation.to_vec()),
            position,
            known,
            missing,
            software: "simulated".to_owned(),
        };
        if let Some((_, older)) = before.filter(|(_, older)| *older != conn) {
            self.goodbye(older, Side::Server, "another connection of this agent took its place", false);
        }
        self.send(conn, Side::Server, &hello.into());
    }

    fn order(&mut self, agent: &str, frame: impl FnOnce(u64) -> Frame) {
        let Some(server) = &self.server else { return };
        let Some((_, conn)) = server.ports.get(agent) else { return };
        let epoch = server.sessions.get(conn).map_or(0, |session| session.epoch);
        self.send(*conn, Side::Server, &frame(epoch));
    }

    fn end_session(&mut self, agent: &str, reason: &str) {
        if let Some((_, conn)) = self.server.as_mut().and_then(|server| server.ports.remove(agent)) {
            self.goodbye(conn, Side::Server, reason, false);
        }
    }

    fn position(&self) -> Position {
        let (id, commit) = (self.database.id.to_vec(), self.database.commit);
        Position { database_id: Some(id), commit: Some(commit), ancestors: Vec::new() }
    }

    pub(crate) fn on_frame_at_server(&mut self, conn: Conn, frame: Frame) {
        let name = self.hosts[self.connections[conn].host].name.clone();
        let of = self.connections[conn].server;
        let Some(server) = self.server.as_mut().filter(|server| server.id == of) else { return };
        let number = u64::try_from(conn).unwrap_or(0) + 1;
        let session = server.sessions.entry(conn).or_insert_with(|| Session {
            number,
            agent: name,
            ..Session::default()
        });
        let agent = session.agent.clone();
        let input = match frame {
            Frame::AgentHello(hello) => return self.on_account(conn, hello),
            Frame::Facts(facts) => Input::Facts { agent, facts: read_facts(facts) },
            Frame::Refused(refused) => {
                let kind = refused.kind.and_then(|kind| RefusalKind::try_from(kind).ok()).unwrap_or_default();
                let Ok(run) = run_id("Refused", &refused.run_id) else { return };
                Input::Refused { agent, session: number, run, kind, reason: refused.reason }
            }
            Frame::NoRecord(none) => {
                let Ok(run) = run_id("NoRecord", &none.run_id) else { return };
                Input::NoRecord { agent, session: number, run }
            }
            Frame::AgentState(state) if state.caught_up => {
                let (name, refusing) = (agent.clone(), state.refusing);
                self.tell(Command::Do(Input::CaughtUp { agent, session: number }));
                if self.mutation == Some(Mutation::ForgetRoom) {
                    return;
                }
                Input::AgentRefusing { agent: name, session: number, refusing }
            }
            Frame::AgentState(state) => {
                Input::AgentRefusing { agent, session: number, refusing: state.refusing }
            }
            other @ (Frame::AuthHello(_)
            | Frame::AuthProof(_)
            | Frame::ServerHello(_)
            | Frame::Start(_)
            | Frame::Kill(_)
            | Frame::Suspend(_)
            | Frame::Resume(_)
            | Frame::Acks(_)
            | Frame::Query(_)
            | Frame::Answer(_)
            | Frame::StreamOpen(_)
            | Frame::StreamGrant(_)
            | Frame::StreamCancel(_)
            | Frame::StreamPiece(_)
            | Frame::StreamEnd(_)
            | Frame::StreamReceipt(_)
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Goodbye(_)
            | Frame::Unsupported(_)
            | Frame::Unknown { .. }) => {
                return self.oracle.fail(format!("an agent sent a frame {}", other.name()));
            }
        };
        self.tell(Command::Do(input));
    }

    /// A part of the account; with the last one the core is told.
    fn on_account(&mut self, conn: Conn, mut hello: AgentHello) {
        let ours = self.database.epoch;
        let Some(server) = &mut self.server else { return };
        let Some(session) = server.sessions.get_mut(&conn) else { return };
        session.items.append(&mut hello.inventory);
        if hello.more {
            return;
        }
        let (items, number, agent) =
            (std::mem::take(&mut session.items), session.number, session.agent.clone());
        let seen = hello.epoch.unwrap_or(0);
        if seen > ours || (seen == ours && !server.led.contains(&agent)) {
            return self.goodbye(conn, Side::Server, "the agent obeys another server", false);
        }
        (session.epoch, session.has_begun) = (ours, true);
        server.led.insert(agent.clone());
        let id = |field: Option<Vec<u8>>| field.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        let entry = |item: InventoryItem| {
            let run = run_id("InventoryItem", &item.run_id).ok()?;
            let stored_seq = Some(self.database.stored_seq(run));
            Some(InventoryEntry { run, last_seq: item.last_seq.unwrap_or(0), stored_seq })
        };
        let connected = Connected {
            agent,
            session: number,
            agent_id: id(hello.agent_id),
            boot_id: id(hello.boot_id),
            incarnation: hello.incarnation.unwrap_or(0),
            protocol: protocol::handshake::PROTOCOL_VERSION,
            software: hello.software,
            platform: hello.platform,
            refusing: hello.refusing,
            inventory: items.into_iter().filter_map(entry).collect(),
        };
        self.tell(Command::Connected(Box::new(connected), conn));
    }

    /// The server's end of a connection is closed.
    pub(crate) fn on_session_over(&mut self, conn: Conn, stopping: bool) {
        let (of, host) = (self.connections[conn].server, self.connections[conn].host);
        let Some(server) = self.server.as_mut().filter(|server| server.id == of) else { return };
        let id = server.id;
        if let Some(session) = server.sessions.remove(&conn) {
            let Session { agent, number, .. } = session;
            if server.ports.get(&agent).is_some_and(|(_, present)| *present == conn) {
                server.ports.remove(&agent);
            }
            self.tell(Command::Do(Input::AgentDisconnected { agent, session: number, stopping }));
        }
        if self.scenario.server_dials {
            let delay_ms = self.rng.range(50, 2_000);
            self.queue.after(delay_ms, Event::ServerDial { server: id, host });
        }
    }

    /// A user's request; a server that is not there does not get it, and the user asks again.
    pub(crate) fn on_request(&mut self, input: Input) {
        if self.server.is_some() {
            self.tell(Command::Do(input));
        } else if matches!(input, Input::Submit(_)) {
            self.queue.after(500, Event::Request(Box::new(input)));
        }
    }
}

impl Server {
    /// Why a job is not over, for whoever reads a failure.
    pub(crate) fn why(&self, job: JobId, now_ms: Ms) -> Option<String> {
        self.engine.why(job, log::wall_ms(now_ms))
    }

    /// Adds what the database has and the engine does not (`recall_runs`, `recall_facts`, `recall_key`).
    fn recall(&mut self, mut input: Input, database: &crate::database::Database) -> Input {
        if let Input::Facts { facts, .. } = &mut input {
            for fact in facts {
                if !self.engine.has_run(fact.run)
                    && let Some(record) = database.runs.get(&fact.run)
                {
                    self.engine.recall_run(record.clone());
                }
                if self.engine.acked_seq(fact.run) >= fact.seq {
                    let facts = database.facts.get(&fact.run);
                    fact.stored = facts.and_then(|facts| facts.get(&fact.seq)).cloned();
                }
            }
        }
        if let Input::Submit(specs) = &input {
            for key in specs.iter().filter_map(|spec: &JobSpec| spec.idempotency_key.as_deref()) {
                if !self.engine.has_key(key)
                    && let Some(job) = database.job_of_key(key)
                {
                    self.engine.recall_key(job);
                }
            }
        }
        input
    }
}

fn read_facts(facts: Facts) -> Vec<FactIn> {
    let read = |fact: protocol::message::RunFact| {
        Some(FactIn::new(run_id("RunFact", &fact.run_id).ok()?, fact.seq?, fact.fact))
    };
    facts.facts.into_iter().filter_map(read).collect()
}

fn positions(positions: impl Iterator<Item = (RunId, u64)>) -> Vec<RunPosition> {
    positions.map(|(run, seq)| RunPosition { run_id: run_id_field(run), seq: Some(seq) }).collect()
}

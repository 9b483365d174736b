//! A server that says what a test tells it to, however senseless.

use anyhow::{Context, Result, bail};
use job::{Outcome, RunId};
use link::{Endpoint, Link, Options, Role, Secret, Secrets, listen};
use protocol::message::{
    Acks, Fact, FactBody, Facts, Kill, Position, RefusalKind, RunPosition, RunSpec, ServerHello, Start,
};
use protocol::{Frame, convert};
use std::sync::Arc;
use std::time::Duration;
use tests::{Agent, WAIT_MAX};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// The server's side of one agent.
pub(crate) struct Commander {
    runtime: Runtime,
    links: mpsc::Receiver<Link>,
    link: Option<Link>,
}

struct Only(Secret);

impl Secrets for Only {
    fn of_peer(&self, _name: &str) -> Vec<Secret> {
        vec![self.0.clone()]
    }
}

impl Commander {
    /// Listens on a free port with the secret of the agent that `prepare` makes for that address.
    pub(crate) fn start(prepare: impl FnOnce(&str) -> Result<Agent>) -> Result<(Commander, Agent)> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let agent = prepare(&listener.local_addr()?.to_string())?;
        let secrets = Arc::new(Only(Secret::load(&agent.secret_file())?));
        let endpoint = Endpoint::new(Role::Server, "a".into(), secrets, Options::default())?;
        let (links_in, links) = mpsc::channel(16);
        runtime.spawn(listen(endpoint, listener, links_in));
        Ok((Commander { runtime, links, link: None }, agent))
    }

    /// Waits for the agent's next connection and greets it as a server that knows nothing. Returns the runs that the agent has.
    pub(crate) fn greet(&mut self, epoch: u64, incarnation: u8) -> Result<Vec<RunId>> {
        self.link = None;
        let next = async { tokio::time::timeout(WAIT_MAX, self.links.recv()).await };
        self.link = self.runtime.block_on(next).context("no agent came")?;
        let mut runs = Vec::new();
        loop {
            let frame = self.receive()?;
            let Frame::AgentHello(hello) = frame else { bail!("no account but {}", frame.name()) };
            for item in &hello.inventory {
                runs.push(convert::run_id("InventoryItem", &item.run_id)?);
            }
            if !hello.more {
                break;
            }
        }
        let position = Position { database_id: Some(vec![2; 16]), commit: Some(1), ancestors: Vec::new() };
        self.send(ServerHello {
            epoch: Some(epoch),
            incarnation: Some(vec![incarnation; 16]),
            position: Some(position),
            software: "a test".into(),
            ..ServerHello::default()
        })?;
        Ok(runs)
    }

    pub(crate) fn send(&self, frame: impl Into<Frame>) -> Result<()> {
        let link = self.link.as_ref().context("no link")?;
        Ok(self.runtime.block_on(link.sender.send(frame.into()))?)
    }

    fn receive(&mut self) -> Result<Frame> {
        let link = self.link.as_mut().context("no link")?;
        let next = async { tokio::time::timeout(WAIT_MAX, link.receiver.recv()).await };
        Ok(self.runtime.block_on(next).context("the agent says nothing")??)
    }

    /// Hangs up.
    pub(crate) fn hang_up(&mut self) {
        self.link = None;
    }

    /// Whether the agent hangs up within a moment that is long for it.
    pub(crate) fn is_hung_up_on(&mut self) -> bool {
        let Some(link) = self.link.as_mut() else { return true };
        let closed = async { tokio::time::timeout(Duration::from_secs(20), link.sender.closed()).await };
        self.runtime.block_on(closed).is_ok()
    }

    pub(crate) fn order(&self, epoch: u64, run: RunId, spec: &RunSpec) -> Result<()> {
        self.send(Start {
            epoch: Some(epoch),
            run_id: convert::run_id_field(run),
            spec: Some(Box::new(spec.clone())),
        })
    }

    pub(crate) fn order_kill(&self, epoch: u64, run: RunId) -> Result<()> {
        self.send(Kill {
            epoch: Some(epoch),
            run_id: convert::run_id_field(run),
            grace_ms: None,
            by: "a test".into(),
        })
    }

    /// Receives until the run's outcome comes; with the number of its message.
    pub(crate) fn outcome(&mut self, run: RunId) -> Result<(u64, Outcome)> {
        loop {
            let Frame::Facts(Facts { facts }) = self.receive()? else { continue };
            for fact in facts.iter().filter(|fact| fact.run_id == convert::run_id_field(run)) {
                if let Some(FactBody::Ended(ended)) = Fact::read(&fact.fact)?.body {
                    return Ok((fact.seq.context("a fact without a number")?, Outcome::try_from(&ended)?));
                }
            }
        }
    }

    /// Receives until the run is refused; why.
    pub(crate) fn refusal(&mut self, run: RunId) -> Result<RefusalKind> {
        loop {
            let Frame::Refused(refused) = self.receive()? else { continue };
            if refused.run_id == convert::run_id_field(run) {
                return Ok(refused.kind());
            }
        }
    }

    /// Receives until messages of a run come; of which.
    pub(crate) fn told(&mut self) -> Result<RunId> {
        loop {
            let Frame::Facts(Facts { facts }) = self.receive()? else { continue };
            let first = facts.first().context("a frame without facts")?;
            return Ok(convert::run_id("RunFact", &first.run_id)?);
        }
    }

    /// Receives until the agent has told everything that it had settled.
    pub(crate) fn caught_up(&mut self) -> Result<()> {
        loop {
            if matches!(self.receive()?, Frame::AgentState(state) if state.caught_up) {
                return Ok(());
            }
        }
    }

    /// Acknowledges all of a run up to that message, which is the number of the commit too.
    pub(crate) fn acknowledge(&self, run: RunId, seq: u64) -> Result<()> {
        self.acknowledge_at(run, seq, seq)
    }

    pub(crate) fn acknowledge_at(&self, run: RunId, seq: u64, commit: u64) -> Result<()> {
        let acks = vec![RunPosition { run_id: convert::run_id_field(run), seq: Some(seq) }];
        let position =
            Some(Position { database_id: Some(vec![2; 16]), commit: Some(commit), ancestors: Vec::new() });
        self.send(Acks { acks, position, notice: String::new() })
    }
}

//! A server that was away for long: how fast an agent's unacknowledged outcomes become final there.
//!
//! Nobody waits for so many real jobs: a stand-in takes the orders in the agent's place, and what the agent would have on disk after running them is
//! written by the agent's own libraries, without the syncs.

use crate::cpu::{Used, network_processor_us};
use crate::figure::Figures;
use ::tests::{Agent, Site, wait_until};
use anyhow::{Context, Result, bail};
use api::{JobSubmit, Status};
use job::{End, Outcome, RunId, Witness};
use link::{Endpoint, Link, Options, Role, Secret, Secrets};
use prost::Message;
use protocol::message::{Accepted, AgentHello, Ended, Fact, FactBody, RunSpec, Started};
use protocol::{Frame, convert};
use serde_json::json;
use spool::{DataRoot, Identity, SLOT_ENDED, SLOT_STARTED, Shelf};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Blank, Log, Medium};

/// Agents that come back, and the outcomes that wait at each: as many as an agent has slots at most.
const NAMES: [&str; 2] = ["replay-1", "replay-2"];
const OUTCOMES_EACH: usize = 50_000;
const OUTCOMES: usize = NAMES.len() * OUTCOMES_EACH;
/// Longer than any replay takes, and the pause between two looks.
const REPLAY_MAX: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Jobs in one submission.
const BATCH: usize = 1_000;
/// An agent that uses no more CPU time than this in that time has nothing to do, microseconds.
const IDLE_US: u64 = 30_000;
const IDLE_SPAN: Duration = Duration::from_millis(1_000);

pub(crate) fn measure(site: &mut Site, figures: &mut Figures) -> Result<()> {
    println!("==> {OUTCOMES} outcomes that a server missed");
    let mut agents = Vec::new();
    for name in NAMES {
        let agent = Agent::prepare(site.path(), name, Some(site.server.agents_address()))?;
        add_agent(site, &agent, OUTCOMES_EACH)?;
        let root = DataRoot::create(agent.root().path(), false, false)?;
        for (run_id, spec) in take_orders(site, &agent, &root)? {
            write_ended(&root, run_id, &spec).with_context(|| format!("cannot write the log of {run_id}"))?;
        }
        agents.push(agent);
    }
    site.server.stop()?;
    agents.iter_mut().try_for_each(Agent::start)?;
    agents.iter().try_for_each(|agent| wait_idle(site, agent))?;
    let before_us = agents.iter().map(network_processor_us).sum::<Result<u64>>()?;
    site.server.restart()?;
    NAMES.iter().try_for_each(|name| site.wait_connected(name))?;
    let (server_before, begin) = (Used::now(site, &agents[0])?, Instant::now());
    let client = site.client();
    loop {
        let (over, all) = client.progress()?;
        if over == all {
            break;
        }
        if begin.elapsed() >= REPLAY_MAX {
            bail!("{over} of {all} outcomes were committed after {} s", REPLAY_MAX.as_secs());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let [server_us, ..] = server_before.cost_until(&Used::now(site, &agents[0])?, OUTCOMES as u64);
    let after_us = agents.iter().map(network_processor_us).sum::<Result<u64>>()?;
    let completed =
        client.counts()?.0.iter().find(|(status, _)| status.0 == Status::Completed).map_or(0, |c| *c.1);
    if completed < OUTCOMES as u64 {
        bail!("only {completed} jobs completed");
    }
    figures.add("replay_per_s", OUTCOMES as f64 / seconds, "1/s", &[]);
    figures.add("cpu_us_per_replayed_server", server_us, "µs", &[]);
    let each_us = after_us.saturating_sub(before_us) as f64 / OUTCOMES as f64;
    figures.add("cpu_us_per_replayed_network_processor", each_us, "µs", &[]);
    agents.iter_mut().try_for_each(|agent| agent.stop().map(drop))
}

/// Makes an agent known that has a queue of its own.
pub(crate) fn add_agent(site: &Site, agent: &Agent, slots: usize) -> Result<()> {
    let secret = std::fs::read_to_string(agent.secret_file())?;
    let name = agent.name();
    let added =
        json!({"name": name, "dials_in": true, "secret": secret.trim(), "slots": slots, "queues": []});
    site.client().try_call("POST", "/api/v1/agents", Some(&added))?.json::<serde_json::Value>()?;
    site.client().create_queue(name, &[name]).map(drop)
}

/// Submits the jobs and takes the orders for them, as the agent would.
fn take_orders(site: &Site, agent: &Agent, root: &DataRoot) -> Result<Vec<(RunId, RunSpec)>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut fresh = [0; 16]; // two agents are never one
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut fresh)?;
    let identity = Identity::open(root.path(), job::AgentId(fresh))?;
    let mut link = runtime.block_on(stand_in(site.server.agents_address(), agent, &identity))?;
    let command = vec!["/bin/true".to_owned()];
    let jobs =
        vec![JobSubmit { command, queue: Some(agent.name().to_owned()), ..JobSubmit::default() }; BATCH];
    let mut orders = Vec::with_capacity(OUTCOMES_EACH);
    while orders.len() < OUTCOMES_EACH {
        let wanted = orders.len() + site.client().submit_batch(&jobs)?.len();
        while orders.len() < wanted {
            if let Frame::Start(start) = runtime.block_on(link.receiver.recv())? {
                orders.push((convert::run_id("Start", &start.run_id)?, *start.spec.context("no spec")?));
            }
        }
    }
    Ok(orders)
}

async fn stand_in(server: &str, agent: &Agent, identity: &Identity) -> Result<Link> {
    let secrets = Arc::new(Only(Secret::load(&agent.secret_file())?));
    let endpoint = Endpoint::new(Role::Agent, agent.name().to_owned(), secrets, Options::default())?;
    let (host, port) = link::split_address(server)?;
    let link = endpoint.dial(&host, port, None).await?;
    let hello = AgentHello {
        agent_id: Some(identity.agent_id.0.to_vec()),
        incarnation: Some(identity.incarnation),
        boot_id: Some(os::procfs::boot_id()?.to_vec()),
        epoch: Some(0),
        software: "a stand-in of the benchmark".to_owned(),
        ..AgentHello::default()
    };
    link.sender.send(hello.into()).await?;
    Ok(link)
}

struct Only(Secret);

impl Secrets for Only {
    fn of_peer(&self, _name: &str) -> Vec<Secret> {
        vec![self.0.clone()]
    }
}

/// What a run leaves that completed.
fn write_ended(root: &DataRoot, run_id: RunId, spec: &RunSpec) -> Result<()> {
    let dir = root.run(Shelf::Live, run_id);
    std::fs::create_dir(dir.path())?;
    let boot_id = Some(os::procfs::boot_id()?.to_vec());
    let wall_ms = os::clock::wall_ms();
    let bytes = |body| Fact::new(wall_ms, body).encode_to_vec();
    let accepted = bytes(FactBody::Accepted(Accepted { boot_id: boot_id.clone() }));
    let started = Started { boot_id, pid: Some(1), start_ticks: Some(1), ..Started::default() };
    let end = End::Exited { code: 0 };
    let outcome = Outcome::Ended { end, cause: None, witness: Witness::JobProcessor, usage: None };
    let mut medium = Unsynced(os::disk::create_new(&dir.log())?);
    let head = spec.encode_to_vec();
    let blank =
        Blank { owner: *run_id.as_bytes(), head: &head, slots: 2, first: &[&accepted], room_bytes: 2048 };
    store::create(&mut medium, &blank)?;
    let (mut log, _) = Log::open(medium)?;
    log.fill(SLOT_STARTED, &bytes(FactBody::Started(started)))?;
    log.fill(SLOT_ENDED, &bytes(FactBody::Ended(Ended::from(&outcome))))?;
    Ok(())
}

/// A file whose content need not survive a power cut.
struct Unsynced(File);

impl Medium for Unsynced {
    fn read_all(&mut self) -> io::Result<Vec<u8>> {
        self.0.read_all()
    }
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_at(bytes, at)
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.0.cut(length)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the network-processor has read all that is on its disk.
fn wait_idle(site: &Site, agent: &Agent) -> Result<()> {
    wait_until("the network-processor to run", || Ok(agent.network_processor()?.is_some()))?;
    wait_until("the network-processor to be idle", || {
        let before = network_processor_us(agent)?;
        std::thread::sleep(IDLE_SPAN); // a span to measure, not a hope
        Ok(network_processor_us(agent)? - before <= IDLE_US)
    })
    .with_context(|| format!("in {}", site.path().display()))
}

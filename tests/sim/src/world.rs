//! Everything that is simulated, and the loop that lets it happen: one event after the other, all of them from one seed.

use crate::database::Database;
use crate::host::Host;
use crate::identity::Identity;
use crate::mutation::Mutation;
use crate::net::{Conn, Connection, Side, Way};
use crate::network_processor::Errand;
use crate::oracle::Oracle;
use crate::queue::{Ms, Queue};
use crate::rng::Rng;
use crate::scenario::{self, END_MS, FAULTS_UNTIL_MS, Fault, Scenario};
use crate::server::Server;
use job::{End, RunId};
use scheduler::Input;
use spool::Shelf;

/// What the wall clocks say in the beginning, milliseconds since 1970.
pub(crate) const WALL_MS: i64 = 1_800_000_000_000;

/// Something that happens. What belongs to a process names its instance, and does not happen when that is gone.
#[derive(Debug)]
pub(crate) enum Event {
    ServerStart,
    ServerTick { server: u64 },
    ServerStep { server: u64 },
    ServerCommit { server: u64 },
    ServerTell { server: u64 },
    ServerDial { server: u64, host: usize },
    Request(Box<Input>),
    Segment { conn: Conn, to: Side, offset: usize, bytes: Vec<u8> },
    Fin { conn: Conn, to: Side, offset: Option<usize> },
    LinkTick { conn: Conn, side: Side },
    Connected { host: usize, np: u64, server: u64 },
    Dial { host: usize, np: u64 },
    Redial { host: usize, np: u64 },
    MonitorStart { host: usize },
    MonitorTry { host: usize, monitor: u64, run: RunId },
    MonitorDone { host: usize, monitor: u64, run: RunId, written: bool },
    MonitorClosed { host: usize, monitor: u64, jp: u32 },
    Introduce { host: usize, jp: u32 },
    NpStart { host: usize },
    NpBegin { host: usize, np: u64, runs: Vec<RunId> },
    NpTick { host: usize, np: u64 },
    Errand { host: usize, np: u64, errand: Box<Errand> },
    JobGone { host: usize, np: u64, run: RunId },
    JpGone { host: usize, np: u64, jp: u32, run: RunId, well: bool },
    Jp { host: usize, jp: u32 },
    GateClosed { host: usize, pid: u32 },
    Signal { host: usize, pid: u32, kill: bool },
    JobEnds { host: usize, pid: u32, end: End },
    PowerOn { host: usize },
    Fault(Fault),
}

/// The world.
pub(crate) struct World {
    pub(crate) queue: Queue<Event>,
    pub(crate) rng: Rng,
    pub(crate) scenario: Scenario,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) hosts: Vec<Host>,
    /// Of each host to the server.
    pub(crate) ways: Vec<Way>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) server: Option<Server>,
    pub(crate) database: Database,
    pub(crate) database_fails: bool,
    /// A commit takes up to that long.
    pub(crate) commit_ms: Ms,
    /// So often no process can be made.
    pub(crate) no_process_percent: u64,
    pub(crate) oracle: Oracle,
    instances: u64,
    pids: u32,
    pub(crate) events: u64,
    is_traced: bool,
}

impl World {
    pub(crate) fn new(seed: u64, near: Option<Mutation>, mutation: Option<Mutation>) -> World {
        let mut rng = Rng::new(seed);
        let scenario = Scenario::new(&mut rng, near);
        let hosts = scenario.agents.iter().map(|(name, _)| Host::new(name.clone(), &mut rng)).collect();
        let ways = scenario.agents.iter().map(|_| scenario::way(&mut rng)).collect();
        let database = Database::new(rng.bytes());
        let mut world = World {
            queue: Queue::new(),
            rng,
            scenario,
            mutation,
            hosts,
            ways,
            connections: Vec::new(),
            server: None,
            database,
            database_fails: false,
            commit_ms: 10,
            no_process_percent: 0,
            oracle: Oracle::default(),
            instances: 0,
            pids: 100,
            events: 0,
            is_traced: std::env::var_os("SIM_TRACE").is_some(),
        };
        for host in &world.hosts {
            if let Err(e) = Identity::open(&host.disk) {
                world.oracle.fail(format!("a first start fails: {e}"));
            }
        }
        world.plan();
        world
    }

    /// Lets everything happen. The error says which promise was broken, and when.
    pub(crate) fn run(mut self) -> Result<World, String> {
        while let Some(event) = self.queue.next() {
            let now_ms = self.queue.now_ms();
            if now_ms >= END_MS || (now_ms > FAULTS_UNTIL_MS + 15_000 && self.is_settled()) {
                break;
            }
            self.events += 1;
            if self.is_traced {
                eprintln!("{now_ms:>7} {event:?}");
            }
            self.on(event);
            if let Some(failure) = &self.oracle.failure {
                return Err(format!("at {now_ms} ms: {failure}"));
            }
        }
        let why = |job| {
            self.server.as_ref().and_then(|server| server.why(job, self.queue.now_ms())).unwrap_or_default()
        };
        self.oracle.check_end(&self.database, why);
        for host in &self.hosts {
            let left = host.disk.borrow().list(Shelf::Live);
            if !left.is_empty() {
                let known = host.np.as_ref().map(|np| np.describe(&left)).unwrap_or_default();
                self.oracle.fail(format!("on {} runs are not settled for ever: {known}", host.name));
            }
        }
        match self.oracle.failure.take() {
            Some(failure) => Err(format!("in the end: {failure}")),
            None => Ok(self),
        }
    }

    /// Nothing is left to do.
    fn is_settled(&self) -> bool {
        let jobs = self.database.jobs.values().all(|job| job.status.is_final());
        let all = self.database.jobs.len() as u64 == self.scenario.jobs;
        jobs && all && self.hosts.iter().all(|host| host.disk.borrow().list(Shelf::Live).is_empty())
    }

    pub(crate) fn new_instance(&mut self) -> u64 {
        self.instances += 1;
        self.instances
    }

    pub(crate) fn new_pid(&mut self) -> u32 {
        self.pids += 1;
        self.pids
    }

    /// Somebody dialled: the proofs are over after a while.
    pub(crate) fn connect(&mut self, host: usize, np: u64, server: u64) {
        let way = self.ways[host];
        let delay_ms = 3 * way.latency_ms + self.rng.below(way.jitter_ms + 1);
        self.queue.after(delay_ms, Event::Connected { host, np, server });
    }

    fn on_connected(&mut self, host: usize, np: u64, server: u64) {
        if !self.has_server(server) {
            return self.np_dial(host);
        }
        let conn = self.connections.len();
        let now_ms = self.queue.now_ms();
        self.connections.push(Connection::new(host, np, server, now_ms));
        self.watch_connection(conn);
        self.on_linked(host, conn);
    }

    fn has_server(&self, server: u64) -> bool {
        self.server.as_ref().is_some_and(|present| present.id == server)
    }

    fn has_np(&self, host: usize, np: u64) -> bool {
        self.hosts[host].np.as_ref().is_some_and(|present| present.id == np)
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::ServerStart => self.on_server_start(),
            Event::ServerTick { server }
            | Event::ServerStep { server }
            | Event::ServerCommit { server }
            | Event::ServerTell { server }
            | Event::ServerDial { server, .. }
                if self.has_server(server) =>
            {
                self.on_server(event);
            }
            Event::ServerTick { .. }
            | Event::ServerStep { .. }
            | Event::ServerCommit { .. }
            | Event::ServerTell { .. }
            | Event::ServerDial { .. } => {}
            Event::Request(input) => self.on_request(*input),
            Event::Segment { conn, to, offset, bytes } => self.on_segment(conn, to, offset, bytes),
            Event::Fin { conn, to, offset } => self.on_fin(conn, to, offset),
            Event::LinkTick { conn, side } => self.on_link_tick(conn, side),
            Event::Fault(fault) => self.on_fault(fault),
            Event::PowerOn { host } => self.on_power_on(host),
            Event::MonitorStart { host } => self.on_monitor_start(host),
            Event::MonitorTry { host, monitor, run } => self.on_monitor_try(host, monitor, run),
            Event::MonitorDone { host, monitor, run, written } => {
                self.on_monitor_done(host, monitor, run, written)
            }
            Event::MonitorClosed { host, monitor, jp } => self.on_monitor_closed(host, monitor, jp),
            Event::Introduce { host, jp } => self.introduce(host, jp),
            Event::Jp { host, jp } => self.on_jp(host, jp),
            Event::GateClosed { host, pid } => self.on_gate_closed(host, pid),
            Event::Signal { host, pid, kill } => self.signal(host, pid, kill),
            Event::JobEnds { host, pid, end } => self.on_job_ends(host, pid, end),
            Event::NpStart { host } => self.on_np_start(host),
            Event::Connected { host, np, .. }
            | Event::Dial { host, np }
            | Event::Redial { host, np }
            | Event::NpBegin { host, np, .. }
            | Event::NpTick { host, np }
            | Event::Errand { host, np, .. }
            | Event::JobGone { host, np, .. }
            | Event::JpGone { host, np, .. }
                if self.has_np(host, np) =>
            {
                self.on_np(event);
            }
            Event::Connected { .. }
            | Event::Dial { .. }
            | Event::Redial { .. }
            | Event::NpBegin { .. }
            | Event::NpTick { .. }
            | Event::Errand { .. }
            | Event::JobGone { .. }
            | Event::JpGone { .. } => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only events of a server come here")]
    fn on_server(&mut self, event: Event) {
        match event {
            Event::ServerTick { server } => self.on_server_tick(server),
            Event::ServerStep { .. } => self.on_server_step(),
            Event::ServerCommit { .. } => self.on_server_commit(),
            Event::ServerTell { .. } => self.on_server_tell(),
            Event::ServerDial { host, .. } => self.on_server_dial(host),
            other => unreachable!("{other:?} is not of a server"),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only events of a network-processor come here")]
    fn on_np(&mut self, event: Event) {
        match event {
            Event::Connected { host, np, server } => self.on_connected(host, np, server),
            Event::Dial { host, .. } => self.on_dial(host),
            Event::Redial { host, .. } => self.np_dial(host),
            Event::NpBegin { host, runs, .. } => self.on_np_begin(host, runs),
            Event::NpTick { host, .. } => self.on_np_tick(host),
            Event::Errand { host, errand, .. } => self.on_errand(host, *errand),
            Event::JobGone { host, run, .. } => self.on_job_gone(host, run),
            Event::JpGone { host, jp, run, well, .. } => self.on_np_jp_gone(host, jp, run, well),
            other => unreachable!("{other:?} is not of a network-processor"),
        }
    }
}

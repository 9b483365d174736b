//! The network-processor: mirrors `agent/network-processor/src/{start,agent,session}.rs`: its start, its links, and what servers order. The way
//! from a START to a job-processor is in [`crate::prepare`]; reading, sending and settling are in [`crate::delivery`], runs without a
//! job-processor in [`crate::adopt`]. What the real one does on threads for the disk are [`Errand`]s here: each step is an event, and the process
//! may die between any two.

use crate::delivery::{Seen, Settling};
use crate::host::{Holder, Parent};
use crate::identity::Identity;
use crate::mutation::Mutation;
use crate::net::{Conn, Side};
use crate::prepare::{Preparing, Step};
use crate::queue::Ms;
use crate::run::{Keeper, Run};
use crate::scenario::DISK_FULL;
use crate::world::{Event, World};
use job::{End, Outcome, RunId};
use protocol::backoff::Backoff;
use protocol::message::{
    AgentHello, AgentState, InventoryItem, Position, Refused, ServerHello, Stop, Stopping,
};
use protocol::outbox::Outbox;
use protocol::reconcile::{History, account_parts, history};
use protocol::{Frame, convert};
use spool::{Fence, Shelf};
use std::collections::{BTreeMap, BTreeSet};

/// The tick, the slow round, the longest scan (`agent/network-processor/src/housekeeping.rs`).
const TICK_MS: Ms = 250;
const SLOW_ROUND_MS: Ms = 2_000;
const SCAN_MS_MAX: Ms = 2_000;

/// Work for a thread that touches the disk or asks a local process.
#[derive(Clone, Debug)]
pub(crate) enum Errand {
    Prepare(Preparing, Step),
    PrepareAgain(RunId),
    Relaunch(RunId),
    /// Messages up to that number are known to be durable.
    Read(RunId, u64),
    /// What was read is durable; `None`: it cannot be read now.
    Seen(RunId, Option<Box<Seen>>),
    Settle(Vec<RunId>),
    Quarantine(RunId),
    Record(RunId, Verdict),
    NoteStop(RunId, Stopping),
    AskMonitor(RunId),
    TellStop(RunId, Stop),
    /// Looks for a run that is not live, after so many tries.
    Recall(RunId, u32),
    Raise(Conn, Box<ServerHello>, Fence),
    Save,
    /// A recording is durable: its lock goes, its result is told.
    Recorded(RunId, bool),
    /// The fence is durable.
    Raised(Conn, Box<ServerHello>, Fence, bool),
}

/// What is to be recorded in a job-processor's place.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Outcome(Outcome),
    /// How the process was seen to end.
    End(End),
}

/// A link.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// What came while its epoch was being written down.
    held: Option<Vec<Frame>>,
    /// Runs that are refused since it was given the account.
    pub(crate) refused: Vec<Refused>,
}

/// The network-processor.
pub(crate) struct NetworkProcessor {
    pub(crate) id: u64,
    /// The monitor that started it.
    pub(crate) under: Option<u64>,
    pub(crate) identity: Identity,
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) outbox: Outbox,
    pub(crate) settling: Settling,
    pub(crate) links: BTreeMap<Conn, Link>,
    pub(crate) active: Option<Conn>,
    early: Vec<Conn>,
    /// Runs of the start that were not read yet.
    pub(crate) unread: usize,
    pub(crate) refusing: String,
    /// Runs that were refused in the present term. The server takes them for over: they must not be accepted when an order comes late.
    pub(crate) refused: BTreeSet<RunId>,
    /// Runs that were set aside while no server was there to be told.
    pub(crate) damaged: Vec<RunId>,
    /// Zombies that came to it and are no jobs that it knew of, and the runs of which that was not known.
    pub(crate) strangers: (Vec<u32>, BTreeSet<RunId>),
    pub(crate) acked_is_dirty: bool,
    /// What it opened is durable, and it listens.
    pub(crate) has_begun: bool,
    begun_ms: Ms,
    housekept_ms: Ms,
    backoff: Backoff,
    is_dialling: bool,
}

impl World {
    pub(crate) fn np(&mut self, host: usize) -> Option<&mut NetworkProcessor> {
        self.hosts[host].np.as_mut()
    }

    pub(crate) fn np_run(&mut self, host: usize, run: RunId) -> Option<&mut Run> {
        self.np(host)?.runs.get_mut(&run)
    }

    pub(crate) fn on_np_start(&mut self, host: usize) {
        let now_ms = self.queue.now_ms();
        let Some(under) = self.hosts[host].monitor.as_ref().map(|monitor| monitor.id) else { return };
        if self.hosts[host].np.is_some() {
            return; // the monitor takes over the one that is there
        }
        let disk = self.disk(host);
        disk.borrow_mut().sweep();
        let identity =
            Identity::open(&disk).and_then(|identity| disk.borrow_mut().sync_runs().map(|()| identity));
        let identity = match identity {
            Ok(identity) => identity,
            Err(_) => return self.queue.after(1_000, Event::NpStart { host }), // it ends abnormally and is started again
        };
        let runs = disk.borrow().list(Shelf::Live);
        let id = self.new_instance();
        let at_ms = self.done_at_ms(host);
        self.hosts[host].np = Some(NetworkProcessor {
            id,
            under: Some(under),
            identity,
            runs: BTreeMap::new(),
            outbox: Outbox::new(),
            settling: Settling::default(),
            links: BTreeMap::new(),
            active: None,
            early: Vec::new(),
            unread: runs.len(),
            refusing: String::new(),
            refused: BTreeSet::new(),
            damaged: Vec::new(),
            strangers: (Vec::new(), BTreeSet::new()),
            acked_is_dirty: false,
            has_begun: false,
            begun_ms: now_ms,
            housekept_ms: now_ms,
            backoff: Backoff::new(),
            is_dialling: false,
        });
        self.queue.at(at_ms, Event::NpBegin { host, np: id, runs });
    }

    /// What it opened is durable: it looks at the runs of the last time, and dials.
    pub(crate) fn on_np_begin(&mut self, host: usize, runs: Vec<RunId>) {
        let name = self.hosts[host].name.clone();
        let Some(np) = self.np(host) else { return };
        np.has_begun = true;
        let incarnation = np.identity.incarnation;
        self.oracle.on_begun(&name, incarnation);
        for run in runs {
            if let Some(np) = self.np(host) {
                np.runs.insert(run, Run { is_awaited: true, ..Run::new(Keeper::Unread) });
            }
            self.np_read(host, run);
        }
        self.np_dial(host);
        self.np_tick_later(host);
    }

    fn np_tick_later(&mut self, host: usize) {
        if let Some(np) = self.np(host).map(|np| np.id) {
            self.queue.after(TICK_MS, Event::NpTick { host, np });
        }
    }

    /// Killed: the kernel closes its links, and its job-processors stay.
    pub(crate) fn kill_np(&mut self, host: usize) {
        let Some(np) = self.hosts[host].np.take() else { return };
        for conn in np.links.keys().chain(&np.early) {
            self.close(*conn, Side::Agent);
        }
        let locked = self.hosts[host].locks.iter().filter(|(_, holder)| **holder == Holder::NetworkProcessor);
        let locked: Vec<RunId> = locked.map(|(run, _)| *run).collect();
        locked.into_iter().for_each(|run| self.hosts[host].unlock(run, Holder::NetworkProcessor));
        // Its children go to the monitor that started it.
        let monitor = self.hosts[host].monitor.as_ref().map(|monitor| monitor.id);
        let reaper = monitor.filter(|id| Some(*id) == np.under).map(Parent::Monitor);
        let children = self.hosts[host].processes.iter();
        let children =
            children.filter(|(_, process)| process.parent == Some(Parent::NetworkProcessor(np.id)));
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        children.into_iter().for_each(|pid| self.give_to_reaper(host, pid, reaper));
        let delay_ms = self.rng.range(50, 3_000);
        self.queue.after(delay_ms, Event::NpStart { host });
    }

    /// The power went: no goodbye.
    pub(crate) fn drop_links(&mut self, host: usize) {
        for connection in self.connections.iter_mut().filter(|connection| connection.host == host) {
            connection.drop_end(Side::Agent);
        }
    }

    pub(crate) fn errand(&mut self, host: usize, errand: Errand) {
        let delay_ms = self.rng.below(4);
        self.errand_at(host, self.queue.now_ms() + delay_ms, errand);
    }

    pub(crate) fn errand_at(&mut self, host: usize, at_ms: Ms, errand: Errand) {
        if let Some(np) = self.np(host).map(|np| np.id) {
            self.queue.at(at_ms, Event::Errand { host, np, errand: Box::new(errand) });
        }
    }

    pub(crate) fn on_errand(&mut self, host: usize, errand: Errand) {
        match errand {
            Errand::Prepare(preparing, step) => self.prepare_step(host, preparing, step),
            Errand::PrepareAgain(run) => self.prepare_again(host, run),
            Errand::Relaunch(run) => self.np_launch(host, run),
            Errand::Read(run, durable_seq) => self.np_does_read(host, run, durable_seq),
            Errand::Seen(run, seen) => self.np_saw(host, run, seen.map(|seen| *seen)),
            Errand::Settle(runs) => self.np_moves(host, runs),
            Errand::Quarantine(run) => self.np_sets_aside(host, run),
            Errand::Record(run, verdict) => self.np_does_record(host, run, verdict),
            Errand::NoteStop(run, stopping) => self.np_notes_stop(host, run, stopping),
            Errand::AskMonitor(run) => self.np_asks_monitor(host, run),
            Errand::TellStop(run, stop) => self.np_tells_stop(host, run, &stop),
            Errand::Recall(run, tries) => self.np_recalls(host, run, tries),
            Errand::Raise(conn, hello, fence) => self.np_raises(host, conn, hello, fence),
            Errand::Save => self.np_saves(host),
            Errand::Recorded(run, well) => self.np_recorded(host, run, well),
            Errand::Raised(conn, hello, fence, well) => self.np_raised(host, conn, *hello, fence, well),
        }
    }

    pub(crate) fn on_np_tick(&mut self, host: usize) {
        let now_ms = self.queue.now_ms();
        let Some(np) = self.np(host) else { return };
        if now_ms >= np.begun_ms + SCAN_MS_MAX && !np.early.is_empty() {
            self.greet_early(host);
        }
        self.np_retries_stops(host);
        self.np_ticks_adopted(host);
        self.np_settles(host, true);
        let Some(np) = self.np(host) else { return };
        if now_ms >= np.housekept_ms + SLOW_ROUND_MS {
            np.housekept_ms = now_ms;
            let dirty = std::mem::take(&mut np.acked_is_dirty);
            self.np_retries_moves_and_reads(host);
            self.np_reaps_strangers(host);
            self.np_looks_for_monitor(host);
            let full = self.disk(host).borrow().faults.full;
            self.set_refusing(host, if full { DISK_FULL } else { "" });
            if dirty {
                self.errand(host, Errand::Save);
            }
        }
        self.np_tick_later(host);
    }

    fn np_saves(&mut self, host: usize) {
        let _ = self.disk(host); // its clock
        if let Some(np) = self.np(host)
            && np.identity.save().is_err()
        {
            np.acked_is_dirty = true;
        }
    }

    pub(crate) fn set_refusing(&mut self, host: usize, refusing: &str) {
        let Some(np) = self.np(host).filter(|np| np.refusing != refusing) else { return };
        refusing.clone_into(&mut np.refusing);
        let state = AgentState { refusing: refusing.to_owned(), ..AgentState::default() };
        self.say(host, state.into());
    }

    // Links.

    pub(crate) fn np_dial(&mut self, host: usize) {
        let Some(np) =
            self.np(host).filter(|np| !np.is_dialling && np.links.is_empty() && np.early.is_empty())
        else {
            return;
        };
        np.is_dialling = true;
        let np = np.id;
        let delay_ms = self.rng.range(1, 20);
        self.queue.after(delay_ms, Event::Dial { host, np });
    }

    /// Dials a server; without one, again after a pause.
    pub(crate) fn on_dial(&mut self, host: usize) {
        let now_ms = self.queue.now_ms();
        let random = self.rng.word();
        let way = self.ways[host];
        let server = self.server.as_ref().map(|server| server.id);
        let Some(np) = self.np(host) else { return };
        if let Some(server) = server.filter(|_| way.cut_until_ms <= now_ms) {
            np.is_dialling = false;
            let np = np.id;
            return self.connect(host, np, server);
        }
        let pause_ms = np.backoff.on_over(0, random);
        let np = np.id;
        self.queue.after(pause_ms, Event::Dial { host, np });
    }

    pub(crate) fn on_linked(&mut self, host: usize, conn: Conn) {
        let Some(np) = self.np(host) else { return };
        if np.unread > 0 {
            return np.early.push(conn);
        }
        np.links.insert(conn, Link::default());
        for hello in self.hellos(host) {
            self.send(conn, Side::Agent, &hello.into());
        }
    }

    pub(crate) fn greet_early(&mut self, host: usize) {
        let Some(np) = self.np(host) else { return };
        np.unread = 0;
        for conn in std::mem::take(&mut np.early) {
            self.on_linked(host, conn);
        }
    }

    fn hellos(&self, host: usize) -> Vec<AgentHello> {
        let own = &self.hosts[host];
        let Some(np) = &own.np else { return Vec::new() };
        let item = |(run, known): (&RunId, &Run)| InventoryItem {
            run_id: convert::run_id_field(*run),
            last_seq: Some(known.last_seq),
        };
        account_parts(AgentHello {
            agent_id: Some(own.agent_id.to_vec()),
            incarnation: Some(np.identity.incarnation),
            boot_id: Some(own.boot_id.to_vec()),
            epoch: Some(np.identity.fence.epoch),
            software: "simulated".to_owned(),
            platform: own.name.clone(),
            inventory: np.runs.iter().map(item).collect(),
            more: false,
            last_acked: np.last_acked(),
            refusing: np.refusing.clone(),
        })
    }

    /// The agent's end of a link is closed.
    pub(crate) fn on_link_over(&mut self, conn: Conn) {
        let (host, opened_ms) = (self.connections[conn].host, self.connections[conn].opened_ms);
        let lived_ms = self.queue.now_ms() - opened_ms;
        let random = self.rng.word();
        let owner = self.connections[conn].np;
        let Some(np) = self.np(host).filter(|np| np.id == owner) else { return };
        np.early.retain(|early| *early != conn);
        np.links.remove(&conn);
        if np.active == Some(conn) {
            np.active = None;
            np.outbox.on_disconnected();
        }
        let pause_ms = np.backoff.on_over(lived_ms, random);
        let np = np.id;
        self.queue.after(pause_ms, Event::Redial { host, np });
    }

    pub(crate) fn on_frame_at_agent(&mut self, conn: Conn, frame: Frame) {
        let (host, owner) = (self.connections[conn].host, self.connections[conn].np);
        let Some(np) = self.np(host).filter(|np| np.id == owner) else { return };
        if let Some(held) = np.links.get_mut(&conn).and_then(|link| link.held.as_mut()) {
            return held.push(frame);
        }
        match frame {
            Frame::ServerHello(hello) => self.on_server_hello(host, conn, hello),
            Frame::Start(start) => self.on_start(host, conn, start),
            Frame::Kill(kill) => self.on_kill(host, conn, kill),
            Frame::Acks(acks) => self.on_acks(host, acks),
            other @ (Frame::AuthHello(_)
            | Frame::AuthProof(_)
            | Frame::AgentHello(_)
            | Frame::Facts(_)
            | Frame::Refused(_)
            | Frame::NoRecord(_)
            | Frame::AgentState(_)
            | Frame::Suspend(_)
            | Frame::Resume(_)
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
            | Frame::Unknown { .. }) => self.oracle.fail(format!("a server sent a frame {}", other.name())),
        }
        self.pump(host);
    }

    fn on_server_hello(&mut self, host: usize, conn: Conn, hello: ServerHello) {
        let incarnation = hello.incarnation.as_deref().and_then(|i| <[u8; 16]>::try_from(i).ok());
        let (Some(epoch), Some(incarnation)) = (hello.epoch, incarnation) else {
            return self.oracle.fail("a server hello without epoch or incarnation".to_owned());
        };
        let fence = Fence { epoch, incarnation };
        let lower = self.mutation == Some(Mutation::LowerEpoch);
        let Some(np) = self.np(host) else { return };
        let before = np.identity.fence;
        if fence == before || (lower && epoch < before.epoch) {
            self.establish(host, conn, hello);
        } else if before.admits(&fence) {
            if let Some(link) = np.links.get_mut(&conn) {
                link.held = Some(Vec::new());
                self.errand(host, Errand::Raise(conn, Box::new(hello), fence));
            }
        } else {
            self.goodbye(conn, Side::Agent, "an earlier epoch is not obeyed", false);
        }
    }

    fn np_raises(&mut self, host: usize, conn: Conn, hello: Box<ServerHello>, fence: Fence) {
        let _ = self.disk(host); // its clock
        let Some(np) = self.np(host) else { return };
        let well = np.identity.fence.admits(&fence) && np.identity.raise(fence).is_ok();
        let at_ms = self.done_at_ms(host);
        self.errand_at(host, at_ms, Errand::Raised(conn, hello, fence, well));
    }

    fn np_raised(&mut self, host: usize, conn: Conn, hello: ServerHello, fence: Fence, well: bool) {
        let Some(np) = self.np(host) else { return };
        let still = np.identity.fence == fence;
        let Some(held) = np.links.get_mut(&conn).and_then(|link| link.held.take()) else { return };
        if !well || !still {
            return self.goodbye(conn, Side::Agent, "the epoch could not be written down", false);
        }
        np.refused.clear(); // what was ordered in an earlier term is fenced
        self.establish(host, conn, hello);
        for frame in held {
            self.on_frame_at_agent(conn, frame);
        }
    }

    fn establish(&mut self, host: usize, conn: Conn, hello: ServerHello) {
        let name = self.hosts[host].name.clone();
        self.oracle.on_established(&name, hello.epoch.unwrap_or(0));
        let Some(np) = self.np(host) else { return };
        if let Some(before) = np.active.replace(conn).filter(|before| *before != conn) {
            np.outbox.on_disconnected();
            self.goodbye(before, Side::Agent, "replaced by a newer connection of a server", false);
        }
        let Some(np) = self.np(host) else { return };
        let complete = match np.outbox.on_connected(&hello.known) {
            Ok(complete) => complete,
            Err(e) => return self.oracle.fail(format!("a server hello cannot be read: {e}")),
        };
        for (run, _) in complete {
            self.settle_if_over(host, run);
        }
        let link = self.np(host).and_then(|np| np.links.get_mut(&conn));
        let refused = link.map(|link| std::mem::take(&mut link.refused)).unwrap_or_default();
        refused.into_iter().for_each(|refused| self.say(host, refused.into()));
        let damaged = self.np(host).map(|np| std::mem::take(&mut np.damaged)).unwrap_or_default();
        damaged.into_iter().for_each(|run| self.report_damaged(host, run));
        for missing in &hello.missing {
            if let Ok(run) = RunId::from_bytes(missing) {
                self.account_for(host, run);
            }
        }
        self.start_awaited(host);
        self.check_history(host, hello.position.as_ref());
        self.pump(host);
    }

    fn check_history(&mut self, host: usize, position: Option<&Position>) {
        let (Some(now), Some(np)) = (position, self.np(host)) else { return };
        match history(np.last_acked().as_ref(), now) {
            Ok(History::First | History::Onward) => {}
            // A hello that was overtaken by that of a newer link: the settled records are sent again, which does no harm.
            Ok(History::WentBack { .. }) => {
                self.oracle.went_back += 1;
                let settled = self.disk(host).borrow().list(Shelf::Settled);
                settled.into_iter().for_each(|run| self.recall(host, run));
            }
            told @ (Ok(History::Restored | History::OtherDatabase) | Err(_)) => {
                self.oracle.fail(format!("a database that is always the same one is taken for {told:?}"));
            }
        }
        self.np_acked(host, position);
        let refusing = self.np(host).map(|np| np.refusing.clone()).unwrap_or_default();
        self.say(host, AgentState { refusing, caught_up: true, ..AgentState::default() }.into());
    }

    pub(crate) fn np_acked(&mut self, host: usize, position: Option<&Position>) {
        if let (Some(Ok(acked)), Some(np)) = (position.map(protocol::reconcile::read_position), self.np(host))
        {
            (np.identity.acked, np.acked_is_dirty) = (acked, true);
        }
    }

    /// Puts a frame on the active link, if there is one.
    pub(crate) fn say(&mut self, host: usize, frame: Frame) {
        if let Some(active) = self.np(host).and_then(|np| np.active) {
            self.send(active, Side::Agent, &frame);
        }
    }

    // Orders.
}

impl NetworkProcessor {
    /// What it knows of runs, for whoever reads a failure.
    pub(crate) fn describe(&self, runs: &[RunId]) -> String {
        let one = |run: &RunId| {
            format!("{run} acknowledged to {:?}: {:?}", self.outbox.acked(*run), self.runs.get(run))
        };
        runs.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn last_acked(&self) -> Option<Position> {
        let (database_id, commit) = self.identity.acked;
        (database_id != [0; 16]).then(|| Position {
            database_id: Some(database_id.to_vec()),
            commit: Some(commit),
            ancestors: Vec::new(),
        })
    }
}

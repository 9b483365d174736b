//! What a network-processor does. Each function is one step; `false`: it cannot be taken now.

use crate::bounds::Rules;
use crate::host::network_processor_dies;
use crate::state::{
    Child, Directory, Down, Fence, Hello, Link, NetworkProcessor, Outcome, Place, Position, RUNS, Run,
    SERVERS, State, Up, Words, Written,
};
use protocol::message::Position as Said;
use protocol::reconcile::{History, history};

/// Job-processors that are started for one run before it is given up (`agent::LAUNCHES_MAX`, which is 5).
pub(crate) const LAUNCHES_MAX: u8 = 2;

/// `start::run`: names are made durable, the data root is read, nobody is connected.
pub(crate) fn starts(state: &mut State, agent: usize) -> bool {
    let agent = &mut state.agents[agent];
    if agent.np.is_some() {
        return false;
    }
    for directory in agent.disk.iter_mut().filter(|directory| directory.place == Place::Unsynced) {
        directory.place = Place::Live;
    }
    agent.np = Some(agent.scan());
    for host in &mut agent.hosts {
        // The monitor of now started it, so what it starts comes to both.
        if host.launched == 0 && !host.locked && host.child == Child::None {
            (host.of_np, host.of_monitor) = (true, true);
        }
    }
    true
}

/// `kill -9`, or a stop: what it remembered is gone; what was last acknowledged is `saved` in time or not.
pub(crate) fn dies(state: &mut State, agent: usize, saved: bool) -> bool {
    for server in 0..SERVERS {
        state.unlink(agent, server);
    }
    let agent = &mut state.agents[agent];
    let Some(np) = agent.np.take() else { return false };
    if saved && np.acked == agent.acked {
        return false; // the same as not saved
    }
    if saved {
        agent.acked = np.acked;
    }
    network_processor_dies(&mut agent.hosts);
    true
}

/// `session::on_linked`: a link, and the account of what is here.
pub(crate) fn links(state: &mut State, agent: usize, server: usize) -> bool {
    let up = state.servers[server].up;
    let (host, link) = (&state.agents[agent], &mut state.links[agent][server]);
    let Some(np) = host.np.as_ref().filter(|_| up && link.is_none()) else { return false };
    let inventory = np.runs.map(|run| run.is_some());
    let hello = Up::AgentHello { seen: host.fence.epoch, inventory };
    *link = Some(Link { up: vec![hello], down: Vec::new(), raising: None });
    true
}

/// `Agent::on_frame`: the next frame of that server.
pub(crate) fn hears(state: &mut State, agent: usize, server: usize, rules: &Rules) -> bool {
    if state.agents[agent].np.is_none() {
        return false;
    }
    let Some(link) = state.links[agent][server].as_mut() else { return false };
    if link.raising.is_some() || link.down.is_empty() {
        return false;
    }
    match link.down.remove(0) {
        Down::ServerHello(hello) => on_server_hello(state, agent, server, hello, rules),
        Down::Start { run, epoch } => on_start(state, agent, server, run, epoch, rules),
        Down::Acks { run, seq, at } => on_acks(state, agent, server, run, seq, at),
    }
    true
}

/// `spool::Fence::admits`.
fn admits(own: Fence, other: Fence, rules: &Rules) -> bool {
    other.epoch > own.epoch
        || other == own
        || !rules.epoch_check
        || (other.epoch == own.epoch && !rules.incarnation_check)
}

fn on_server_hello(state: &mut State, agent: usize, server: usize, hello: Hello, rules: &Rules) {
    let own = state.agents[agent].fence;
    if hello.fence == own {
        establish(state, agent, server, hello);
    } else if admits(own, hello.fence, rules) {
        if let Some(link) = &mut state.links[agent][server] {
            link.raising = Some(hello);
        }
    } else {
        state.unlink(agent, server);
    }
}

/// `session::raise` and `on_raised`: the epoch is durable, then its server is obeyed.
pub(crate) fn raises_fence(state: &mut State, agent: usize, server: usize, rules: &Rules) -> bool {
    let raising = state.links[agent][server].as_mut().and_then(|link| link.raising.take());
    let Some(hello) = raising else { return false };
    if admits(state.agents[agent].fence, hello.fence, rules) {
        state.agents[agent].fence = hello.fence;
        establish(state, agent, server, hello);
    } else {
        state.unlink(agent, server);
    }
    true
}

fn establish(state: &mut State, agent: usize, server: usize, hello: Hello) {
    let before = state.agents[agent].np.as_ref().and_then(|np| np.active);
    if let Some(before) = before.filter(|before| *before != server) {
        state.unlink(agent, before);
    }
    let obeyed = &mut state.seen.obeyed[agent];
    if hello.fence.epoch > obeyed.epoch {
        *obeyed = hello.fence;
    }
    let disk = state.agents[agent].disk;
    let Some(np) = state.agents[agent].np.as_mut() else { return };
    np.active = Some(server);
    for (run, entry) in np.runs.iter_mut().enumerate() {
        if let Some(entry) = entry {
            let acked = stored(&disk[run], entry.preparing, true).map_or(0, Words::last_seq);
            entry.acked = acked.min(hello.known[run]);
            entry.sent = entry.acked;
        }
    }
    let known = np.runs.map(|run| run.is_some());
    let (acked, at) = (np.acked, hello.at);
    np.catching_up = went_back(acked, at, hello.ancestors).then_some(at);
    np.resent = None;
    let onward = np.catching_up.is_none();
    if onward {
        np.acked = at;
    }
    for run in (0..RUNS).filter(|run| hello.missing[*run] && !known[*run]) {
        if !recall_settled(state, agent, server, run) {
            say(state, agent, server, Up::NoRecord { run });
        }
    }
    if onward {
        say(state, agent, server, Up::CaughtUp);
    }
}

/// Whether an agent sends its settled records again: the code's own [`history`].
pub(crate) fn went_back(acked: Position, at: Position, ancestors: [u8; 2]) -> bool {
    let said = |at: Position, ancestors: Vec<Vec<u8>>| Said {
        database_id: Some(vec![at.database; 16]),
        commit: Some(u64::from(at.commit)),
        ancestors,
    };
    let ancestors = ancestors.iter().filter(|id| **id > 0).map(|id| vec![*id; 16]).collect();
    let last = (acked.database > 0).then(|| said(acked, Vec::new()));
    history(last.as_ref(), &said(at, ancestors)).is_ok_and(History::resend_settled)
}

fn on_start(state: &mut State, agent: usize, server: usize, run: usize, epoch: u8, rules: &Rules) {
    let Some(np) = state.agents[agent].np.as_mut() else { return };
    let fenced = np.active != Some(server) || epoch != state.agents[agent].fence.epoch;
    if fenced && rules.epoch_check {
        return; // REFUSED (fenced), of which the server makes nothing but a word to its operator
    }
    let told = Fence { epoch, incarnation: state.servers[server].incarnation };
    let obeyed = state.seen.obeyed[agent];
    state.seen.older_obeyed |= told.epoch < obeyed.epoch || (told.epoch == obeyed.epoch && told != obeyed);
    if np.runs[run].is_some() || recall_settled(state, agent, server, run) {
        return;
    }
    if let Some(np) = state.agents[agent].np.as_mut() {
        np.runs[run] = Some(Run { preparing: true, sent: 0, acked: 0, launches: 0, watched: false });
    }
}

/// Answers with what the log of a settled run says. `false`: there is none.
fn recall_settled(state: &mut State, agent: usize, server: usize, run: usize) -> bool {
    let directory = state.agents[agent].disk[run];
    let settled = directory.place == Place::Settled;
    if settled {
        let words = words(&directory, true);
        say(state, agent, server, Up::Facts { run, first: 1, words });
    }
    settled
}

fn on_acks(state: &mut State, agent: usize, server: usize, run: usize, seq: u8, at: Position) {
    let disk = state.agents[agent].disk;
    let Some(np) = state.agents[agent].np.as_mut().filter(|np| np.active == Some(server)) else { return };
    if let Some(entry) = &mut np.runs[run] {
        let stored = stored(&disk[run], entry.preparing, true).map_or(0, Words::last_seq);
        entry.acked = entry.acked.max(seq.min(stored));
        entry.sent = entry.sent.max(entry.acked);
    }
    if let Some(resent) = &mut np.resent {
        resent[run] &= seq < words(&disk[run], true).last_seq();
    }
    np.is_caught_up();
    if np.catching_up.is_none() {
        np.acked = at;
    }
}

impl NetworkProcessor {
    /// `Agent::is_caught_up`: everything that was sent again is acknowledged, so the server's position counts.
    fn is_caught_up(&mut self) {
        if let (Some(at), Some([false, false])) = (self.catching_up, self.resent) {
            (self.catching_up, self.resent, self.acked) = (None, None, at);
        }
    }
}

/// `spool::prepare`: the directory is whole and has its name.
pub(crate) fn prepares(state: &mut State, agent: usize, run: usize) -> bool {
    let agent = &mut state.agents[agent];
    let Some(entry) = agent.np.as_ref().and_then(|np| np.runs[run]) else { return false };
    if !entry.preparing || agent.disk[run].place != Place::Nowhere {
        return false;
    }
    agent.disk[run] = Directory { place: Place::Unsynced, ..Directory::NOTHING };
    true
}

/// `Launcher::launch`: `runs/` is synced, the run is accepted.
pub(crate) fn syncs_runs(state: &mut State, agent: usize, run: usize) -> bool {
    let agent = &mut state.agents[agent];
    let Some(entry) = agent.np.as_mut().and_then(|np| np.runs[run].as_mut()) else { return false };
    if agent.disk[run].place != Place::Unsynced {
        return false;
    }
    agent.disk[run].place = Place::Live;
    entry.preparing = false;
    true
}

/// `Launcher::start`, after the acceptance or in `adopt::start_again`.
pub(crate) fn launches(state: &mut State, agent: usize, run: usize, rules: &Rules) -> bool {
    let agent = &mut state.agents[agent];
    let (directory, host) = (agent.disk[run], &mut agent.hosts[run]);
    let Some(entry) = agent.np.as_mut().and_then(|np| np.runs[run].as_mut()) else { return false };
    let early = directory.place == Place::Unsynced && !rules.sync_before_launch;
    if (entry.preparing && !early) || !unexecuted(&directory, host.locked) || entry.watched {
        return false;
    }
    if entry.launches >= LAUNCHES_MAX {
        return false;
    }
    entry.launches += 1;
    entry.watched = true;
    host.launched += 1;
    true
}

/// The end of `adopt::start_again`: nobody could start it.
pub(crate) fn gives_up(state: &mut State, agent: usize, run: usize) -> bool {
    let agent = &mut state.agents[agent];
    let (directory, host) = (&mut agent.disk[run], agent.hosts[run]);
    let Some(entry) = agent.np.as_ref().and_then(|np| np.runs[run]) else { return false };
    let over = entry.launches >= LAUNCHES_MAX && !entry.watched && !entry.preparing;
    if !over || !unexecuted(directory, host.locked) {
        return false;
    }
    directory.record(Outcome::NeverStarted);
    true
}

/// No STARTED, lock free: never executed.
fn unexecuted(directory: &Directory, locked: bool) -> bool {
    let here = matches!(directory.place, Place::Live | Place::Unsynced);
    here && directory.started == Written::No && directory.ended.is_none() && !locked
}

/// `adopt::on_asked` and the host's restart in `adopt::adopt`: the job-processor died, the job is over, and the kernel `tells` how or nobody does.
pub(crate) fn records_in_place(state: &mut State, agent: usize, run: usize, tells: bool) -> bool {
    let agent = &mut state.agents[agent];
    let (directory, host) = (&mut agent.disk[run], agent.hosts[run]);
    let known = agent.np.as_ref().is_some_and(|np| np.runs[run].is_some());
    let over = match host.child {
        Child::Zombie | Child::Gone => true,
        Child::None => directory.earlier_boot && !tells,
        Child::Gated | Child::Running => false,
    };
    let orphaned = directory.started != Written::No && directory.ended.is_none() && !host.locked;
    if !known || !over || !orphaned {
        return false;
    }
    directory.record(if tells { Outcome::Completed } else { Outcome::Unknown });
    true
}

/// `delivery::pump`: what is stored and not sent.
pub(crate) fn sends(state: &mut State, agent: usize, run: usize, rules: &Rules) -> bool {
    let directory = state.agents[agent].disk[run];
    let Some(np) = state.agents[agent].np.as_mut() else { return false };
    let (Some(server), Some(entry)) = (np.active, np.runs[run].as_mut()) else { return false };
    let Some(words) = stored(&directory, entry.preparing, rules.synced_before_report) else { return false };
    let first = entry.sent + 1;
    if words.last_seq() < first {
        return false;
    }
    entry.sent = words.last_seq();
    say(state, agent, server, Up::Facts { run, first, words });
    true
}

/// `delivery::settle_due`: everything is acknowledged, so the directory moves.
pub(crate) fn settles(state: &mut State, agent: usize, run: usize, rules: &Rules) -> bool {
    let agent = &mut state.agents[agent];
    let (directory, host) = (&mut agent.disk[run], agent.hosts[run]);
    let Some(np) = agent.np.as_mut() else { return false };
    let Some(entry) = np.runs[run] else { return false };
    let done = if rules.ack_before_settle { entry.acked } else { entry.sent };
    let over = directory.place == Place::Live && directory.ended.is_some() && !host.locked;
    if !over || entry.preparing || done != words(directory, true).last_seq() {
        return false;
    }
    directory.place = Place::Settled;
    if !rules.settled_is_known {
        *directory = Directory::NOTHING;
    }
    np.runs[run] = None;
    true
}

/// `resend::resend_settled` and `on_resent`: all of it is on its way.
pub(crate) fn resends_settled(state: &mut State, agent: usize, rules: &Rules) -> bool {
    let Some(np) = state.agents[agent].np.as_mut().filter(|np| np.resent.is_none()) else { return false };
    let (Some(server), Some(_)) = (np.active, np.catching_up) else { return false };
    let mut resent = [false; RUNS];
    for (run, sent) in resent.iter_mut().enumerate() {
        *sent = recall_settled(state, agent, server, run) && rules.resent_is_acked;
    }
    say(state, agent, server, Up::CaughtUp);
    if let Some(np) = state.agents[agent].np.as_mut() {
        np.resent = Some(resent);
        np.is_caught_up();
    }
    true
}

fn say(state: &mut State, agent: usize, server: usize, frame: Up) {
    if let Some(link) = &mut state.links[agent][server] {
        link.up.push(frame);
    }
}

/// What a reader sees in the log of a live run. `synced`: only what is durable.
fn stored(directory: &Directory, preparing: bool, synced: bool) -> Option<Words> {
    (directory.place == Place::Live && !preparing).then(|| words(directory, synced))
}

fn words(directory: &Directory, synced: bool) -> Words {
    let started = directory.started == Written::Synced || (directory.started != Written::No && !synced);
    Words { started, ended: directory.ended }
}

/// Whether the run's outcome is here and will come to a server by itself: it is in `runs/`, or on its way, or settled and sent again because that
/// server's database went back. That a server asks for a run that it misses does not count: by then the settled ones may have been removed.
pub(crate) fn owes(state: &State, agent: usize, run: usize) -> bool {
    let directory = &state.agents[agent].disk[run];
    match directory.place {
        Place::Nowhere => false,
        Place::Live | Place::Unsynced => directory.ended.is_some(),
        Place::Settled => (0..SERVERS).any(|server| is_due(state, agent, server, run)),
    }
}

fn is_due(state: &State, agent: usize, server: usize, run: usize) -> bool {
    let (host, there) = (&state.agents[agent], &state.servers[server]);
    let acked = host.np.as_ref().map_or(host.acked, |np| np.acked);
    let database = &there.database;
    let on_its_way = state.links[agent][server].as_ref().is_some_and(|link| {
        link.up.iter().any(|frame| {
            matches!(frame, Up::Facts { run: sent, words, .. } if *sent == run && words.ended.is_some())
        })
    });
    there.exists && (on_its_way || went_back(acked, database.at, database.ancestors(agent)))
}

//! What a central server does. Each function is one step, which ends with its commit and what the commit lets go; `false`: it cannot be taken now.
//!
//! Commit and acknowledgement are one step: a server that dies between them has lost the frames on its links, and that may happen to any frame.
//! Only without the rule that the commit comes first they are two.

use crate::bounds::{Back, Rules};
use crate::state::{
    AGENTS, Database, Down, Fence, Hello, Job, Order, Outcome, RUNS, Row, Server, State, Stray, Up, Words,
};

/// How far a restore goes beyond every epoch that is known (`db::EPOCH_LEAP`, which is 2^20).
const EPOCH_LEAP: u8 = 16;

/// `Sqlite::open`: a new epoch and incarnation.
pub(crate) fn starts(state: &mut State, server: usize) -> bool {
    let starting = &mut state.servers[server];
    if !starting.exists || starting.up {
        return false;
    }
    starting.database.epoch += 1;
    bring_up(state, server);
    true
}

fn bring_up(state: &mut State, server: usize) {
    state.starts += 1;
    let starting = &mut state.servers[server];
    (starting.exists, starting.up, starting.incarnation) = (true, true, state.starts);
    (starting.led, starting.uncommitted) = ([false; AGENTS], None);
    (starting.owes_settled, starting.owes_runs) = ([false; AGENTS], [[false; RUNS]; AGENTS]);
}

/// `kill -9`.
pub(crate) fn dies(state: &mut State, server: usize) -> bool {
    if !state.servers[server].up {
        return false;
    }
    for agent in 0..AGENTS {
        state.unlink(agent, server);
    }
    let server = &mut state.servers[server];
    (server.up, server.uncommitted) = (false, None);
    true
}

/// The second server opens a copy of the first one's database, which stands still and comes back later: the next epoch.
pub(crate) fn takes_over(state: &mut State) -> bool {
    if state.servers[1].exists {
        return false;
    }
    state.servers[1].database = state.servers[0].database.clone();
    state.servers[1].exists = true;
    starts(state, 1)
}

/// The second server opened a copy of the database as it was before the first one opened it: the same epoch.
pub(crate) fn twin_starts(state: &mut State) -> bool {
    if state.servers[1].exists {
        return false;
    }
    bring_up(state, 1);
    true
}

/// `backup::make`: a copy of what is committed.
pub(crate) fn backs_up(state: &mut State) -> bool {
    let fits = state.backup.is_none() && state.servers[0].up;
    if fits {
        state.backup = Some(state.servers[0].database.clone());
    }
    fits
}

/// The database that a server finds at its next start is the backup.
pub(crate) fn goes_back(state: &mut State, how: Back) -> bool {
    if state.servers[0].up {
        return false;
    }
    let Some(mut database) = state.backup.take() else { return false };
    let seen = state.servers[0].database.epoch;
    match how {
        Back::Never => return false,
        // `db::restored::prepare`
        Back::Restored => {
            database.epoch = seen + EPOCH_LEAP;
            database.at.database += 1;
            database.restored = true;
            for (agent, untold) in database.untold.iter_mut().enumerate() {
                *untold = agent < usize::from(state.left.agents);
            }
        }
        // `Database::raise_epoch` with what a person put into `epoch_min`
        Back::ByHand => database.epoch = seen,
    }
    state.servers[0].database = database;
    true
}

/// `Engine::place`: the run is committed, then ordered.
pub(crate) fn places(state: &mut State, server: usize, agent: usize, rules: &Rules) -> bool {
    let run = usize::from(state.runs_made);
    let placing = &mut state.servers[server];
    let free = placing.up && placing.uncommitted.is_none() && placing.sessions[agent];
    let kept_back = rules.recovery_waits && placing.database.untold.contains(&true);
    if !free || placing.database.job != Job::Waiting || kept_back || run >= usize::from(state.left.runs) {
        return false;
    }
    let database = &mut placing.database;
    database.attempts += 1;
    database.job = Job::Placed(run);
    database.runs[run] = Some(Row { agent, stored: None, ended: None });
    database.at.commit += 1;
    let (attempt, epoch) = (database.attempts, database.epoch);
    state.orders[run] = Some(Order { attempt, agent: agent as u8 });
    state.runs_made += 1;
    say(state, agent, server, Down::Start { run, epoch });
    true
}

/// `session::serve` and `Core::take_in`: the next frame of that agent.
pub(crate) fn hears(state: &mut State, server: usize, agent: usize, rules: &Rules) -> bool {
    if !state.servers[server].up || state.servers[server].uncommitted.is_some() {
        return false;
    }
    let Some(link) = state.links[agent][server].as_mut() else { return false };
    if link.up.is_empty() {
        return false;
    }
    match link.up.remove(0) {
        Up::AgentHello { seen, inventory } => on_hello(state, server, agent, seen, inventory),
        Up::Facts { run, first, words } => on_facts(state, server, agent, run, (first, words), rules),
        Up::NoRecord { run } => on_no_record(state, server, agent, run, rules),
        Up::CaughtUp => state.servers[server].owes_settled[agent] = false,
    }
    true
}

/// `session::term`, then `Engine::on_connected` and `reconcile`.
fn on_hello(state: &mut State, server: usize, agent: usize, seen: u8, inventory: [bool; RUNS]) {
    let greeting = &mut state.servers[server];
    let ours = greeting.database.epoch;
    if seen > ours || (seen == ours && !greeting.led[agent]) {
        return state.unlink(agent, server); // a person has to say who is right
    }
    greeting.led[agent] = true;
    greeting.sessions[agent] = true;
    expect_account(greeting, agent, inventory);
    let database = &greeting.database;
    let there = |run: usize| inventory[run];
    let known = std::array::from_fn(|run| match (there(run), &database.runs[run], &database.strays[run]) {
        (false, ..) | (true, None, None) => 0,
        (true, Some(row), _) => row.acked(),
        (true, None, Some(stray)) => stray.words.last_seq(),
    });
    let ours = |run: usize| database.runs[run].filter(|row| row.agent == agent && row.ended.is_none());
    let missing = std::array::from_fn(|run| !there(run) && ours(run).is_some_and(|row| row.stored.is_some()));
    let untold = database.untold.contains(&true);
    let again = |run: usize| !untold && !there(run) && ours(run).is_some_and(|row| row.stored.is_none());
    let again: [bool; RUNS] = std::array::from_fn(again);
    let hello = Hello {
        fence: Fence { epoch: database.epoch, incarnation: greeting.incarnation },
        at: database.at,
        ancestors: database.ancestors(agent),
        known,
        missing,
    };
    say(state, agent, server, Down::ServerHello(hello));
    (0..RUNS).filter(|run| again[*run]).for_each(|run| order_again(state, server, agent, run));
}

/// `recovery::expect_account`.
fn expect_account(server: &mut Server, agent: usize, inventory: [bool; RUNS]) {
    let untold = server.database.untold[agent];
    let unknown = |run: usize| server.database.runs[run].is_none() && server.database.strays[run].is_none();
    let owed: [bool; RUNS] = std::array::from_fn(|run| untold && inventory[run] && unknown(run));
    server.owes_settled[agent] = untold;
    server.owes_runs[agent] = owed;
}

/// `Engine::order_again`: the agent lacks it, and nothing says that it ever had it.
fn order_again(state: &mut State, server: usize, agent: usize, run: usize) {
    state.seen.ordered_again[run] = true;
    let epoch = state.servers[server].database.epoch;
    say(state, agent, server, Down::Start { run, epoch });
}

/// `Engine::on_facts`: what is next is stored, what is known is acknowledged again if it is the same, what leaves a gap is not taken.
fn on_facts(
    state: &mut State,
    server: usize,
    agent: usize,
    run: usize,
    (first, words): (u8, Words),
    rules: &Rules,
) {
    let mut database = state.servers[server].database.clone();
    let acked = match database.runs[run].filter(|row| row.agent == agent) {
        Some(row) if first > row.acked() + 1 => return state.unlink(agent, server),
        Some(row) if words.last_seq() <= row.acked() => {
            let same = row.stored.is_none_or(|stored| stored.up_to(words.last_seq()) == words);
            if !same {
                return; // reported to the operators of both, never acknowledged
            }
            row.acked()
        }
        Some(_) => {
            let changed = &mut state.seen.final_changed;
            let end = End { runs_max: state.left.runs, final_stays: rules.final_stays, changed };
            take_words(&mut database, run, words, end);
            words.last_seq()
        }
        None => {
            state.servers[server].owes_runs[agent][run] = false;
            let stray = &mut database.strays[run];
            if stray.is_none_or(|stray| stray.words.last_seq() < words.last_seq()) {
                *stray = Some(Stray { agent, words });
                database.at.commit += 1;
            }
            words.last_seq()
        }
    };
    state.seen.acked[run] |= words.ended.is_some() && acked == words.last_seq();
    let at = database.at;
    let receiving = &mut state.servers[server];
    if rules.commit_before_ack || receiving.database == database {
        receiving.database = database;
    } else {
        receiving.uncommitted = Some(database);
    }
    say(state, agent, server, Down::Acks { run, seq: acked, at });
}

/// The commit that came too late.
pub(crate) fn commits(state: &mut State, server: usize) -> bool {
    let server = &mut state.servers[server];
    match server.uncommitted.take() {
        Some(database) => {
            server.database = database;
            true
        }
        None => false,
    }
}

/// `Engine::on_next_fact`, for all that is new.
fn take_words(database: &mut Database, run: usize, words: Words, end: End) {
    database.at.commit += 1;
    if let Some(row) = &mut database.runs[run] {
        row.stored = Some(words);
    }
    if let Some(outcome) = words.ended {
        conclude(database, run, outcome, end);
    }
}

/// What the end of a run depends on, and where it is noted that a final status changed.
struct End<'a> {
    runs_max: u8,
    final_stays: bool,
    changed: &'a mut bool,
}

/// `Engine::on_ended`. A run that never executed gives its job back to be placed again, a few times (`Engine::give_back`); else the job is over
/// (`Engine::finish`). A late true outcome is shown beside.
fn conclude(database: &mut Database, run: usize, outcome: Outcome, end: End) {
    let Some(row) = &mut database.runs[run] else { return };
    let open = row.ended.is_none();
    if open || !end.final_stays {
        *end.changed |= row.ended.is_some_and(|before| before != outcome);
        row.ended = Some(outcome);
    }
    if open && database.job == Job::Placed(run) {
        let again = outcome == Outcome::NeverStarted && database.attempts < end.runs_max;
        database.job = if again { Job::Waiting } else { Job::Over(outcome) };
    }
}

/// `Engine::on_no_record`.
fn on_no_record(state: &mut State, server: usize, agent: usize, run: usize, rules: &Rules) {
    let State { servers, seen, left, .. } = state;
    let database = &mut servers[server].database;
    let Some(row) = database.runs[run].filter(|row| row.agent == agent && row.ended.is_none()) else {
        return;
    };
    if row.stored.is_none() {
        return order_again(state, server, agent, run);
    }
    database.at.commit += 1;
    let end = End { runs_max: left.runs, final_stays: rules.final_stays, changed: &mut seen.final_changed };
    conclude(database, run, Outcome::Unknown, end);
}

/// `recover::Recoverer::look_at` and `Engine::on_adopt`: a run that the backup does not know is taken over.
pub(crate) fn adopts(state: &mut State, server: usize, run: usize, rules: &Rules) -> bool {
    let Some((stray, order)) = adoptable(state, server, run) else { return false };
    let State { servers, seen, left, .. } = state;
    let database = &mut servers[server].database;
    if let Job::Placed(before) = database.job
        && let Some(row) = &mut database.runs[before]
    {
        row.ended = Some(Outcome::Unknown); // `Engine::supersede`: there is a later attempt, so it was over
    }
    database.strays[run] = None;
    (database.attempts, database.job) = (order.attempt, Job::Placed(run));
    database.runs[run] = Some(Row { agent: stray.agent, stored: None, ended: None });
    let end = End { runs_max: left.runs, final_stays: rules.final_stays, changed: &mut seen.final_changed };
    take_words(database, run, stray.words, end);
    seen.adopted = true;
    true
}

fn adoptable(state: &State, server: usize, run: usize) -> Option<(Stray, Order)> {
    let asking = &state.servers[server];
    let (stray, order) = (asking.database.strays[run]?, state.orders[run]?);
    let recovering = asking.up && asking.database.untold.contains(&true);
    let over = matches!(asking.database.job, Job::Over(_));
    let fits = recovering && !over && order.attempt > asking.database.attempts;
    (fits && asking.sessions[stray.agent]).then_some((stray, order))
}

/// `Engine::on_told`: the agent has told what it ran; after the last one what was kept back goes on.
pub(crate) fn is_told(state: &mut State, server: usize, agent: usize) -> bool {
    let asking = &state.servers[server];
    let strays =
        (0..RUNS).any(|run| adoptable(state, server, run).is_some_and(|(stray, _)| stray.agent == agent));
    let paid = !asking.owes_settled[agent] && !asking.owes_runs[agent].contains(&true);
    if !asking.up || !asking.sessions[agent] || !asking.database.untold[agent] || strays || !paid {
        return false;
    }
    let database = &mut state.servers[server].database;
    database.untold[agent] = false;
    database.at.commit += 1;
    if database.untold.contains(&true) {
        return true;
    }
    let held: Vec<(usize, usize)> = (0..RUNS)
        .filter_map(|run| database.runs[run].map(|row| (run, row)))
        .filter(|(_, row)| row.stored.is_none() && row.ended.is_none())
        .map(|(run, row)| (run, row.agent))
        .collect();
    for (run, agent) in held {
        if state.servers[server].sessions[agent] {
            order_again(state, server, agent, run);
        }
    }
    true
}

fn say(state: &mut State, agent: usize, server: usize, frame: Down) {
    if let Some(link) = &mut state.links[agent][server] {
        link.down.push(frame);
    }
}

//! What has to hold in every state, and what has to be reached in some.

use crate::World;
use crate::agent::owes;
use crate::state::{AGENTS, Job, Outcome, Place, RUNS, State};
use stateright::Property;

/// A property, made anew for each checker.
pub type Promise = fn() -> Property<World>;

/// A run is executed at most once.
pub const AT_MOST_ONCE: Promise = || {
    Property::always("at most one execution per run", |_: &World, state: &State| {
        state.seen.executions.iter().all(|executions| *executions <= 1)
    })
};

/// A job without a policy that repeats it is executed at most once, whatever its runs are.
pub const JOB_AT_MOST_ONCE: Promise = || {
    Property::always("at most one execution of the job", |_: &World, state: &State| {
        state.seen.executions.iter().sum::<u8>() <= 1
    })
};

/// What was acknowledged is in the database, or its agent has it and sends it again.
pub const ACKED_IS_KEPT: Promise = || {
    Property::always("acknowledged: in the database or still at the agent", |_: &World, state: &State| {
        (0..RUNS).all(|run| !state.seen.acked[run] || is_kept(state, run))
    })
};

/// The same, and an outcome also counts as kept if the server will ask for it.
pub const ACKED_CAN_COME: Promise = || {
    Property::always("acknowledged: kept, or asked for", |_: &World, state: &State| {
        (0..RUNS).all(|run| !state.seen.acked[run] || is_kept(state, run) || is_asked_for(state, run))
    })
};

/// The same of every outcome that was settled, acknowledged or not. Of one that is not settled it holds by itself: it is in `runs/`.
pub const NOTHING_LOST: Promise = || {
    Property::always("settled: in the database or sent again", |_: &World, state: &State| {
        (0..RUNS).all(|run| !is_settled(state, run) || is_kept(state, run))
    })
};

/// A final status of a run in a database stays what it is.
pub const FINAL_STAYS: Promise =
    || Property::always("a final status never changes", |_: &World, state: &State| !state.seen.final_changed);

/// An agent that obeyed a server obeys no START of an earlier one, nor of another one of the same epoch.
pub const OLDER_NOT_OBEYED: Promise = || {
    Property::always("no command of an older epoch is obeyed", |_: &World, state: &State| {
        !state.seen.older_obeyed
    })
};

/// NEVER STARTED is true.
pub const NEVER_INVENTED: Promise = || {
    Property::always("never started: never executed", |_: &World, state: &State| {
        let told = |run: usize| {
            let on_disk = (0..AGENTS).any(|agent| says_never(state.agents[agent].disk[run].ended));
            on_disk
                || state
                    .servers
                    .iter()
                    .any(|server| server.database.runs[run].is_some_and(|row| says_never(row.ended)))
        };
        (0..RUNS).all(|run| state.seen.executions[run] == 0 || !told(run))
    })
};

/// A job completes.
pub const COMPLETES: Promise = || {
    Property::sometimes("a job completes", |_: &World, state: &State| {
        job_is(state, Job::Over(Outcome::Completed))
    })
};

/// A job's outcome is Unknown.
pub const UNKNOWN: Promise = || {
    Property::sometimes("an Unknown is recorded", |_: &World, state: &State| {
        job_is(state, Job::Over(Outcome::Unknown))
    })
};

/// A run that its agent had never received is ordered again and completes.
pub const ORDERED_AGAIN: Promise = || {
    Property::sometimes(
        "a run that was never received is ordered again and completes",
        |_: &World, state: &State| {
            let done = |run: usize| {
                let row = state.servers[0].database.runs[run];
                row.is_some_and(|row| row.ended == Some(Outcome::Completed))
            };
            (0..RUNS).any(|run| state.seen.ordered_again[run] && done(run))
        },
    )
};

/// A job whose first run never started is placed again and completes.
pub const PLACED_AGAIN: Promise = || {
    Property::sometimes(
        "a job that never started is placed again and completes",
        |_: &World, state: &State| {
            let database = &state.servers[0].database;
            let first = database.runs[0].is_some_and(|row| row.ended == Some(Outcome::NeverStarted));
            first && database.attempts == 2 && database.job == Job::Over(Outcome::Completed)
        },
    )
};

/// A run is settled after its end.
pub const SETTLED: Promise = || {
    Property::sometimes("a run is settled", |_: &World, state: &State| {
        (0..RUNS).any(|run| is_settled(state, run))
    })
};

/// A run that the backup did not know is taken over from its agent, and the job is over with it.
pub const TAKEN_OVER: Promise = || {
    Property::sometimes("a run that the backup did not know is taken over", |_: &World, state: &State| {
        let over = matches!(state.servers[0].database.job, Job::Over(_));
        state.seen.adopted && over
    })
};

fn says_never(outcome: Option<Outcome>) -> bool {
    outcome == Some(Outcome::NeverStarted)
}

fn job_is(state: &State, job: Job) -> bool {
    state.servers.iter().any(|server| server.exists && server.database.job == job)
}

fn is_settled(state: &State, run: usize) -> bool {
    (0..AGENTS).any(|agent| state.agents[agent].disk[run].place == Place::Settled)
}

fn is_kept(state: &State, run: usize) -> bool {
    let stored = state.servers.iter().any(|server| server.exists && server.database.has_outcome(run));
    stored || (0..AGENTS).any(|agent| owes(state, agent, run))
}

/// The run is open in a database, so its agent is asked for it when it connects.
fn is_asked_for(state: &State, run: usize) -> bool {
    let mut rows = state.servers.iter().filter_map(|server| server.database.runs[run]);
    rows.any(|row| row.ended.is_none())
}

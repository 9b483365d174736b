//! A seeded simulation of many agents and one server in one thread, over a simulated clock, network and disk.
//!
//! What decides is the real code: [`scheduler::Engine`], [`protocol`]'s session, frames, outbox, reconciliation and pauses, [`job`]'s supervisor
//! and outcomes, [`store`]'s log, [`spool::Ledger`] and [`spool::Fence`]. The processes around it, which fork, sync and wait, are small drivers
//! that call it in the order of the real ones; the head of each says which file it mirrors:
//!
//! | driver                                                     | of                                                     |
//! |------------------------------------------------------------|--------------------------------------------------------|
//! | `server`, `database`                                       | central-server                                         |
//! | `network_processor`, `orders`, `prepare`, `delivery`, `adopt`, `run`, `identity` | network-processor                                      |
//! | `job_processor`, `log`                                     | job-processor                                          |
//! | `monitor`                                                  | platform-agent                                         |
//! | `host`, `disk`, `net`, `queue`                             | kernel, disk, network, time                            |
//!
//! Between any two steps a process may be killed, or the power may go. `scenario` makes all of that from the seed; `oracle` knows what happened, and
//! compares. Not in it: TLS and the proofs of the shared secret, suspend and resume,
//! output, kept files, users, retention, restores, and a database that goes back in time.

#![forbid(unsafe_code)]

mod adopt;
mod database;
mod delivery;
mod disk;
mod host;
mod identity;
mod job_processor;
mod log;
mod monitor;
mod mutation;
mod net;
mod network_processor;
mod oracle;
mod orders;
mod prepare;
mod queue;
mod rng;
mod run;
mod scenario;
mod server;
mod world;

pub use mutation::Mutation;

/// What a simulation was like that kept every promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events.
    pub events: u64,
    /// Jobs that were executed.
    pub executions: u64,
    /// Runs of which nobody could tell the end.
    pub unknown: u64,
    /// Times that a hello which was overtaken was taken, by the agent, for one of a database that went back in time, or an account that was
    /// overtaken, by the server, for one of a data root that did.
    pub went_back: u64,
    /// Simulated time, milliseconds.
    pub ms: u64,
}

/// Simulates one seed. The error says which promise was broken.
pub fn simulate(seed: u64) -> Result<Report, String> {
    report(world::World::new(seed, None, None))
}

/// Simulates one seed among circumstances in which it matters whether that rule is kept; `broken`: it is not.
pub fn simulate_near(seed: u64, rule: Mutation, broken: bool) -> Result<Report, String> {
    report(world::World::new(seed, Some(rule), broken.then_some(rule)))
}

fn report(world: world::World) -> Result<Report, String> {
    let world = world.run()?;
    Ok(Report {
        events: world.events,
        executions: world.oracle.executions,
        unknown: world.oracle.unknown,
        went_back: world.oracle.went_back,
        ms: world.queue.now_ms(),
    })
}

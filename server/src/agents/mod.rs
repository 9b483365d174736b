//! The connections to the agents: who may come in, whom the server dials, and a session for each.
//!
//! A session reads the agent's account, hands it to the core and then moves frames both ways. It decides nothing. Whatever it
//! loses is repaired by the next connection: the agent sends again what was not acknowledged, the core says again what is still
//! to be done.

mod by_piece;
mod directory;
mod output;
mod roster;
mod session;

pub use directory::{Directory, LiveView, QueryError};
pub use output::{Output, TraceWanted, Wanted};
pub use roster::{Agents, AllowList, Options};

#[cfg(test)]
mod tests;

//! One thread owns the engine. It takes what waits in its inbox, lets the engine decide, commits once, and only then carries out the
//! actions, acknowledges and replies. If nothing but facts came and more is waiting, another thread writes while the next step is
//! decided, see `writer`.
//!
//! If the commit fails, the same batch is tried again with growing pauses and nothing more is committed: the engine is never further
//! than two uncommitted batches, nothing of which anybody has been told. Killed at any point, the next start goes on from the last commit.

mod access;
mod audit;
mod command;
mod committer;
mod handle;
mod health;
mod order;
mod orders;
pub mod tag;
mod writer;

pub use access::{AccessInput, AccessRefusal};
pub use command::{Port, ToAgent};
pub use committer::{Roster, spawn};
pub use handle::{CoreError, Handle, ServerStatus};
pub use health::Health;
pub use order::{Once, Order};

#[cfg(test)]
mod tests;

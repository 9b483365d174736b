//! What the tests of the whole system stand on: a scratch directory, a central server, agents, a REST client, and the ledgers that jobs write
//! themselves, which are the oracle.
//!
//! ```text
//! Site ── Scratch          a directory; at the end every process that lives in it is ended, and after a failure it is kept
//!      ├─ Server ─ Client  start, stop, kill -9, restart on the same data root and the same ports
//!      └─ Agent            monitor, network-processor and job-processors, each found by its lock or its place, never by its name
//! ```
//!
//! A test waits for a condition with a deadline ([`wait_until`]), never for a time.

#![forbid(unsafe_code)]

mod agent;
mod client;
mod crash_point;
mod kernel;
mod ledger;
mod process;
mod programs;
mod random;
mod scratch;
mod server;
mod site;
mod sudoers;
mod wait;

pub use agent::{Agent, Dialling};
pub use client::{Answer, Client, Piece};
pub use crash_point::{CrashPoint, Deed};
pub use kernel::{is_root, keeps_exit_information};
pub use ledger::{End, Execution, Ledger, Way, gated_job, ledger_job};
pub use process::Process;
pub use programs::{helper, lastword, program};
pub use random::{Random, seed};
pub use scratch::Scratch;
pub use server::Server;
pub use site::{Site, on_empty_site, on_prepared_site, on_site};
pub use sudoers::Sudoers;
pub use tally::{Part, Tally};
pub use wait::{WAIT_MAX, wait_for, wait_until};

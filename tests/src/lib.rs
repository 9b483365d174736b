//! What the tests of the whole system stand on: a scratch directory, a central server, agents, a REST client, and the ledgers that jobs write
//! themselves, which are the oracle.
//!
//! ```text
//! Site ── Scratch          a directory; at the end every process that lives in it is ended, and after a failure it is kept
//!      ├─ Server ─ Client  start, stop, kill -9, restart on the same data root and the same ports
//!      └─ Agent            monitor, network-processor and job-processors, each found by its lock or its place, never by its name
//! ```
//!
//! A [`Load`] submits all the time, and holds everything that the server told against it. A data root can lie on a [`Volume`], a small file system of its own that is filled or
//! loses power.
//! A test waits for a condition with a deadline ([`wait_until`]), never for a time.

#![forbid(unsafe_code)]

mod agent;
mod client;
mod crash_point;
mod jobs;
mod judge;
mod kernel;
mod ledger;
mod load;
mod process;
mod programs;
mod proxy;
mod random;
mod scratch;
mod server;
mod site;
mod sudoers;
mod volume;
mod wait;
mod wire;

pub use agent::{Agent, Dialling};
pub use api::Status;
pub use client::{Answer, Client, Piece};
pub use crash_point::{CrashPoint, Deed};
pub use jobs::Jobs;
pub use judge::judge;
pub use kernel::{is_root, keeps_exit_information};
pub use ledger::{End, Execution, Ledger, Way, gated_job, ledger_job};
pub use load::{Load, Said};
pub use process::Process;
pub use programs::{helper, lastword, program};
pub use proxy::{Ending, Fate, Flow, Proxy, Weather};
pub use random::{Random, seed};
pub use scratch::Scratch;
pub use server::{STORE_ALL, Server};
pub use site::{Site, on_empty_site, on_prepared_site, on_site};
pub use sudoers::Sudoers;
pub use tally::{Part, Tally};
pub use volume::{FileSystem, Volume};
pub use wait::{WAIT_MAX, wait_for, wait_until};
pub use wire::{Direction, Wire, with_hosts};

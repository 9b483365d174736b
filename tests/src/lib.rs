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
mod kernel;
mod ledger;
mod process;
mod programs;
mod random;
mod scratch;
mod server;
mod site;
mod wait;

pub use agent::{Agent, Dialling};
pub use client::{Answer, Client, Piece};
pub use kernel::{is_root, keeps_exit_information};
pub use ledger::{End, Execution, Ledger, Way, ledger_job};
pub use process::Process;
pub use programs::{helper, lastword, program};
pub use random::{Random, seed};
pub use scratch::Scratch;
pub use server::Server;
pub use site::{Site, on_site, on_site_with};
pub use wait::{WAIT_MAX, wait_for, wait_until};

/// An environment for a process that is to die at the named crash point once: the token is the file that it removes as it dies.
pub struct CrashPoint {
    name: String,
    token: std::path::PathBuf,
}

impl CrashPoint {
    /// Arms the point; the token lies in `dir`.
    pub fn arm(name: &str, dir: &std::path::Path) -> anyhow::Result<CrashPoint> {
        let token = dir.join(format!("{name}.token"));
        std::fs::write(&token, "")?;
        Ok(CrashPoint { name: name.to_owned(), token })
    }

    /// What to start the program with.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("LASTWORD_CRASH_AT".into(), self.name.clone()),
            ("LASTWORD_CRASH_TOKEN".into(), self.token.to_string_lossy().into_owned()),
        ]
    }

    /// Whether a process died there.
    pub fn has_fired(&self) -> bool {
        !self.token.exists()
    }

    /// Lets it happen again.
    pub fn rearm(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(&self.token, "")?)
    }
}

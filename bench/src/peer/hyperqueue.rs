//! HyperQueue: a server with a journal, which it does not sync, and one worker. All jobs are one array: a submission for each would measure its
//! client.

use super::{Daemon, Peer, Started, call, wait_ready};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct HyperQueue;

struct Cluster {
    directory: PathBuf,
    _daemons: [Daemon; 2],
}

impl Peer for HyperQueue {
    fn name(&self) -> &'static str {
        "hyperqueue"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["hq"]
    }

    fn source(&self) -> &'static str {
        "a release of HyperQueue, or built from its sources"
    }

    fn jobs(&self) -> u32 {
        4000
    }

    fn start(&self, directory: &Path, slots: usize) -> Result<Box<dyn Started>> {
        let journal = directory.join("journal");
        let server = Daemon::start(hq(directory).args(["server", "start", "--journal"]).arg(journal))?;
        wait_ready("its server", || call(hq(directory).args(["server", "info"])).map(|_| true))?;
        let cpus = slots.to_string();
        let worker = Daemon::start(hq(directory).args(["worker", "start", "--cpus", &cpus]))?;
        wait_ready("its worker", || Ok(call(hq(directory).args(["worker", "list"]))?.contains("RUNNING")))?;
        Ok(Box::new(Cluster { directory: directory.to_owned(), _daemons: [worker, server] }))
    }
}

fn hq(directory: &Path) -> Command {
    let mut command = Command::new("hq");
    command.arg("--server-dir").arg(directory.join("server")).current_dir(directory);
    command
}

impl Cluster {
    fn submit(&self, options: &[&str]) -> Result<()> {
        let mut command = hq(&self.directory);
        command.args(["submit", "--wait", "--stdout", "none", "--stderr", "none"]);
        call(command.args(options).args(["--", "/bin/true"])).map(drop)
    }
}

impl Started for Cluster {
    fn run_many(&self, count: u32) -> Result<()> {
        self.submit(&["--array", &format!("1-{count}")])
    }

    fn run_one(&self) -> Result<()> {
        self.submit(&[])
    }
}

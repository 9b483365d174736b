//! task-spooler: keeps statuses in memory only. Debian calls the program `tsp`.

use super::{LOOK_AGAIN, Peer, Started, call};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct TaskSpooler;

struct Spooler {
    directory: PathBuf,
}

impl Peer for TaskSpooler {
    fn name(&self) -> &'static str {
        "task_spooler"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["tsp"]
    }

    fn source(&self) -> &'static str {
        "Debian's package task-spooler"
    }

    fn jobs(&self) -> u32 {
        2000
    }

    fn start(&self, directory: &Path, slots: usize) -> Result<Box<dyn Started>> {
        let spooler = Spooler { directory: directory.to_owned() };
        call(spooler.command().args(["-S", &slots.to_string()]))?; // the first client starts its server
        Ok(Box::new(spooler))
    }
}

impl Spooler {
    fn command(&self) -> Command {
        let mut command = Command::new("tsp");
        let socket = self.directory.join("socket");
        command.env("TS_SOCKET", socket).env("TS_MAXFINISHED", "4000").current_dir(&self.directory);
        command
    }
}

impl Started for Spooler {
    fn run_many(&self, count: u32) -> Result<()> {
        // -n: no file for the output.
        (0..count).try_for_each(|_| call(self.command().args(["-n", "/bin/true"])).map(drop))?;
        // Jobs end in any order with several slots.
        loop {
            let list = call(&mut self.command())?;
            if !list.lines().any(|line| line.contains(" queued ") || line.contains(" running ")) {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn run_one(&self) -> Result<()> {
        call(self.command().args(["-n", "-f", "/bin/true"])).map(drop) // -f: the client stays until it is over
    }
}

impl Drop for Spooler {
    fn drop(&mut self) {
        let _ = call(self.command().arg("-K")); // its own server, on its own socket
    }
}

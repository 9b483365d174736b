//! pueue: a daemon that writes its whole state anew at every change.

use super::{Daemon, Peer, Started, call, wait_ready};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Pueue;

struct Queue {
    directory: PathBuf,
    _daemon: Daemon,
}

impl Peer for Pueue {
    fn name(&self) -> &'static str {
        "pueue"
    }

    fn programs(&self) -> &'static [&'static str] {
        &["pueue", "pueued"]
    }

    fn source(&self) -> &'static str {
        "`cargo install pueue`"
    }

    fn jobs(&self) -> u32 {
        200
    }

    fn start(&self, directory: &Path, slots: usize) -> Result<Box<dyn Started>> {
        let settings = format!(
            "shared:\n  pueue_directory: {0}\n  runtime_directory: {0}\n  use_unix_socket: true\nclient: {{}}\ndaemon: {{}}\n",
            directory.display()
        );
        std::fs::write(directory.join("pueue.yml"), settings)?;
        let daemon = Daemon::start(&mut program("pueued", directory))?;
        wait_ready("its daemon", || call(program("pueue", directory).arg("status")).map(|_| true))?;
        call(program("pueue", directory).args(["parallel", &slots.to_string()]))?;
        Ok(Box::new(Queue { directory: directory.to_owned(), _daemon: daemon }))
    }
}

fn program(name: &str, directory: &Path) -> Command {
    let mut command = Command::new(name);
    command.arg("--config").arg(directory.join("pueue.yml")).current_dir(directory);
    command
}

impl Queue {
    fn add(&self) -> Result<()> {
        call(program("pueue", &self.directory).args(["add", "--", "/bin/true"])).map(drop)
    }

    fn wait(&self) -> Result<()> {
        call(program("pueue", &self.directory).args(["wait", "--all", "--quiet"])).map(drop)
    }
}

impl Started for Queue {
    fn run_many(&self, count: u32) -> Result<()> {
        (0..count).try_for_each(|_| self.add())?;
        self.wait()
    }

    fn run_one(&self) -> Result<()> {
        // A client that follows the job's output ends with it.
        call(program("pueue", &self.directory).args(["add", "--immediate", "--follow", "--", "/bin/true"]))
            .map(drop)
    }
}

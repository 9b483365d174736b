//! A directory for one test. Whatever lives in it ends with the test.

use crate::{Process, seed};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long killed processes have to be gone.
const END_MAX: Duration = Duration::from_secs(20);
/// So many lines of each output are shown after a failure.
const LINES_SHOWN: usize = 40;

/// The directory. It is kept if the test failed.
pub struct Scratch {
    dir: Option<TempDir>,
    failed: bool,
}

impl Scratch {
    /// How the name of each begins.
    pub(crate) const MARK: &str = "lastword-test-";

    /// A new one.
    pub fn new() -> Result<Scratch> {
        let dir = tempfile::Builder::new().prefix(Scratch::MARK).tempdir().context("no scratch directory")?;
        Ok(Scratch { dir: Some(dir), failed: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new("/nonexistent"), TempDir::path)
    }

    /// The test failed: keep the directory, and show what the programs said.
    pub fn fail(&mut self) {
        self.failed = true;
        let entries = std::fs::read_dir(self.path()).into_iter().flatten().flatten();
        let outputs = entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "out"));
        for path in outputs.chain([self.path().join("server/trace/central-server.log")]) {
            let text = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- the last lines of {}", path.display());
            lines.iter().skip(lines.len().saturating_sub(LINES_SHOWN)).for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.failed {
            self.fail();
        }
        let stay = end_all(self.path());
        remove_groups(self.path());
        if self.failed || !stay.is_empty() {
            if let Some(dir) = self.dir.take() {
                eprintln!("--- seed: LASTWORD_TEST_SEED={}", seed());
                eprintln!("--- kept: {}", dir.keep().display());
            }
            stay.iter().for_each(|process| eprintln!("--- cannot be ended: {process:?}"));
        }
    }
}

/// Removes the control groups of the agents whose data roots are here: nothing is in them any more. Best effort, as they are in nobody's way.
fn remove_groups(directory: &Path) {
    let Some(top) = os::cgroup::mount_point() else { return };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Some(agent) = agent_id(&entry.path()) else { continue };
        let group = top.join("lastword").join(agent.to_string());
        for run in std::fs::read_dir(&group).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(run.path()); // files of the kernel's are no directories
        }
        let _ = std::fs::remove_dir(group);
    }
}

/// Of the agent that has that data root: from either copy in its identity file (docs/store-states.md).
fn agent_id(data_root: &Path) -> Option<job::AgentId> {
    const COPY_BYTES: usize = 4096;
    let bytes = std::fs::read(data_root.join("identity")).ok()?;
    let copy = bytes.chunks(COPY_BYTES).find(|copy| copy.starts_with(b"LWIDENT1"))?;
    Some(job::AgentId(copy.get(16..32)?.try_into().ok()?))
}

/// Kills until nothing is left, since a process that is about to be killed can still start another. Returns what would not go.
fn end_all(directory: &Path) -> Vec<Process> {
    let deadline = Instant::now() + END_MAX;
    loop {
        let living: Vec<Process> = Process::living_in(directory).into_iter().filter(Process::lives).collect();
        if living.is_empty() || Instant::now() >= deadline {
            return living;
        }
        for process in &living {
            let _ = process.kill(); // gone meanwhile, or seen again in the next round
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

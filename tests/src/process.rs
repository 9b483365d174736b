//! Processes that live in a scratch directory. They are known by their arguments or their environment and signalled by descriptor, so that no
//! stranger is ever hit.

use anyhow::Result;
use os::pidfd::Pidfd;
use os::procfs;
use os::signal::Signal;
use std::path::Path;

/// A process as `/proc` showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The file name of its program.
    pub program: String,
    /// When it started, clock ticks since boot.
    start_ticks: u64,
}

impl Process {
    /// The process with that id, if there is one that is not a zombie.
    pub fn find(pid: u32) -> Option<Process> {
        let stat = procfs::stat(pid).ok()??;
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let program = exe.file_name()?.to_string_lossy().into_owned();
        Some(Process { pid, program, start_ticks: stat.start_ticks })
    }

    /// Every process whose arguments or environment name the directory, but not this one.
    pub fn living_in(directory: &Path) -> Vec<Process> {
        let needle = directory.as_os_str().as_encoded_bytes();
        let names_it = |pid: u32, file: &str| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            bytes.windows(needle.len()).any(|window| window == needle)
        };
        let all = procfs::all().unwrap_or_default();
        let found = all.into_iter().map(|(pid, _)| pid).filter(|pid| *pid != std::process::id());
        found
            .filter(|pid| names_it(*pid, "cmdline") || names_it(*pid, "environ"))
            .filter_map(Process::find)
            .collect()
    }

    /// Its state, as `/proc` has it (`R`, `S`, `T`, `Z`, …); `None` when it is gone.
    pub fn state(&self) -> Option<char> {
        let stat = procfs::stat(self.pid).ok()??;
        (stat.start_ticks == self.start_ticks).then_some(char::from(stat.state))
    }

    /// Whether it is there and no zombie.
    pub fn lives(&self) -> bool {
        self.state().is_some_and(|state| state != 'Z')
    }

    /// Sends it a signal; `false` if it is gone.
    pub fn signal(&self, signal: Signal) -> Result<bool> {
        let Some(pidfd) = Pidfd::open(self.pid)? else { return Ok(false) };
        // Asked after the descriptor was opened: if it is the same process now, the descriptor is of it.
        if self.state().is_none() {
            return Ok(false);
        }
        Ok(pidfd.signal(signal)?)
    }

    /// `kill -9`; `false` if it is gone.
    pub fn kill(&self) -> Result<bool> {
        self.signal(Signal::KILL)
    }

    /// Its children.
    pub fn children(&self) -> Vec<Process> {
        procfs::children(self.pid).into_iter().filter_map(Process::find).collect()
    }
}

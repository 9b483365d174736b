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
        others().filter(|pid| names(*pid, directory)).filter_map(Process::find).collect()
    }

    /// Every process that has a file or a working directory below this one, but not this one: who keeps a file system from being unmounted.
    pub fn using(directory: &Path) -> Vec<Process> {
        others().filter(|pid| uses(*pid, directory)).filter_map(Process::find).collect()
    }

    /// The system's own processes among these; found quickly.
    pub fn programs_of(directory: &Path) -> Vec<Process> {
        let programs =
            others().filter_map(Process::find).filter(|it| PROGRAMS.contains(&it.program.as_str()));
        programs.filter(|it| uses(it.pid, directory) || names(it.pid, directory)).collect()
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

/// What an agent and a server consist of.
const PROGRAMS: [&str; 4] = ["central-server", "platform-agent", "network-processor", "job-processor"];

fn others() -> impl Iterator<Item = u32> {
    let all = procfs::all().unwrap_or_default().into_iter().map(|(pid, _)| pid);
    all.filter(|pid| *pid != std::process::id())
}

fn names(pid: u32, directory: &Path) -> bool {
    let needle = directory.as_os_str().as_encoded_bytes();
    ["cmdline", "environ"].iter().any(|file| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

fn uses(pid: u32, directory: &Path) -> bool {
    let below = |link: &Path| std::fs::read_link(link).is_ok_and(|target| target.starts_with(directory));
    let own = Path::new("/proc").join(pid.to_string());
    let mut files = std::fs::read_dir(own.join("fd")).into_iter().flatten().flatten();
    below(&own.join("cwd")) || below(&own.join("exe")) || files.any(|file| below(&file.path()))
}

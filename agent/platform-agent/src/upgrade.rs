//! `platform-agent --upgrade`: asks the monitor that runs to replace itself by the program that is on disk now, and waits until it has.

use config::AgentConfig;
use os::pidfd::Pidfd;
use os::signal::Signal;
use spool::DataRoot;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The monitor has this long for it.
const UPGRADE_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn upgrade(config: &AgentConfig) -> ExitCode {
    match ask(config) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("platform-agent: {e:#}");
            ExitCode::from(75)
        }
    }
}

fn ask(config: &AgentConfig) -> anyhow::Result<String> {
    let root = DataRoot::at(&config.data_root);
    let holder = || root.lock_holder("platform-agent");
    let pid = holder()?.ok_or_else(|| anyhow::anyhow!("no agent runs on {}", config.data_root.display()))?;
    let pidfd =
        Pidfd::open(pid)?.ok_or_else(|| anyhow::anyhow!("the monitor (process {pid}) is just going"))?;
    anyhow::ensure!(holder()? == Some(pid), "the monitor (process {pid}) is just going");
    let before = started(pid)?;
    pidfd.signal(Signal::USR2)?;
    let begun = Instant::now();
    while begun.elapsed() < UPGRADE_MAX {
        // An exec keeps the process and gives it new memory.
        if started(pid)? != before {
            let file = std::fs::read_link(format!("/proc/{pid}/exe"))?;
            return Ok(format!("the monitor (process {pid}) goes on in {}", file.display()));
        }
        std::thread::sleep(PAUSE);
    }
    anyhow::bail!(
        "the monitor (process {pid}) goes on in its old program; {} says why",
        root.trace_dir().join("platform-agent.log").display()
    )
}

/// What an exec changes: the program's file, and where the kernel put things for it (proc_pid_auxv(5)), which is at random.
fn started(pid: u32) -> anyhow::Result<(u64, u64, Vec<u8>)> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let file = std::fs::metadata(proc.join("exe"))?;
    Ok((file.dev(), file.ino(), std::fs::read(proc.join("auxv"))?))
}

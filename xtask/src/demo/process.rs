//! Processes as `/proc` shows them. Only those are ever killed that descend from an agent that we started, and by pidfd.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::Path;

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    /// The file name of its program; `ps` cuts it to 15 characters, `exe` does not.
    pub(super) program: String,
    /// Start time in clock ticks since boot: with the pid it names one process for ever.
    started: u64,
}

impl Process {
    /// The process of that pid, if there is one that has not ended.
    pub(super) fn of(pid: u32) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may contain anything, so count from the last one.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let program = exe.file_name()?.to_string_lossy().into_owned();
        Some(Process {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            program,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Everything that descends from `ancestor`, at any depth.
    pub(super) fn descendants(ancestor: u32) -> Vec<Process> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let all: Vec<Process> = pids.filter_map(Process::of).collect();
        let mut found = Vec::new();
        let mut parents = vec![ancestor];
        while let Some(parent) = parents.pop() {
            let children = all.iter().filter(|process| process.parent == parent);
            parents.extend(children.clone().map(|child| child.pid));
            found.extend(children.cloned());
        }
        found
    }

    /// Whether its arguments or its open files name that text.
    pub(super) fn concerns(&self, text: &str) -> bool {
        let arguments = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(text) {
            return true;
        }
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        let names = |path: &Path| path.to_string_lossy().contains(text);
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|path| names(&path))
    }

    /// SIGKILL, to this very process and to no other that may have got its pid.
    pub(super) fn kill(&self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("not a pid")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("process {pid} is gone"))?;
        if Process::of(self.pid).is_none_or(|now| now.started != self.started) {
            bail!("process {} is another one by now", self.pid);
        }
        pidfd_send_signal(pidfd, Signal::KILL).with_context(|| format!("cannot kill process {}", self.pid))
    }
}

//! What the agent costs: idle, and per running job.

use crate::figure::Figures;
use crate::site::{Site, wait_for};
use anyhow::{Result, bail};
use std::time::Duration;

/// Jobs that run at once.
const RUNNING_JOBS: usize = 200;

/// Between two looks at the processes.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The resident memory of platform-agent and network-processor together, connected and with nothing to do.
pub(crate) fn measure_idle(site: &Site, figures: &mut Figures) -> Result<()> {
    println!("==> memory of the idle agent");
    let pids = [site.pids_of("platform-agent"), site.pids_of("network-processor")].concat();
    if pids.len() != 2 {
        bail!("the agent has {} processes instead of 2", pids.len());
    }
    let rss_kib: u64 = pids.iter().filter_map(|pid| field_kib(*pid, "status", "VmRSS:")).sum();
    figures.add("agent_idle_rss_kib", rss_kib as f64, "KiB", &[]);
    Ok(())
}

/// The proportional share (PSS: shared pages divided by those who share them) of one job-processor among many.
pub(crate) fn measure_running(site: &Site, figures: &mut Figures) -> Result<()> {
    println!("==> memory of the job-processors of {RUNNING_JOBS} running jobs");
    let ids = site.submit_sleepers(RUNNING_JOBS)?;
    wait_for("all jobs to run", LOOK_PAUSE, || Ok(site.count_running()? == RUNNING_JOBS as u64))?;
    let pids = site.pids_of("job-processor");
    let pss_kib: Vec<u64> = pids.iter().filter_map(|pid| field_kib(*pid, "smaps_rollup", "Pss:")).collect();
    site.kill_all(&ids)?;
    if pss_kib.len() != RUNNING_JOBS {
        bail!("{} job-processors could be measured instead of {RUNNING_JOBS}", pss_kib.len());
    }
    let mean = pss_kib.iter().sum::<u64>() as f64 / pss_kib.len() as f64;
    figures.add("job_processor_pss_kib", mean, "KiB", &[]);
    Ok(())
}

/// A line like `Pss:    123 kB` of a file in `/proc/PID`.
fn field_kib(pid: u32, file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_can_be_read() {
        let pid = std::process::id();
        assert!(field_kib(pid, "status", "VmRSS:").is_some_and(|kib| kib > 100));
        assert!(field_kib(pid, "smaps_rollup", "Pss:").is_some_and(|kib| kib > 0));
    }
}

//! What the agent costs: idle, and per running job.

use crate::figure::Figures;
use ::tests::{Agent, Process, Site, wait_until};
use anyhow::{Context, Result, bail};
use api::{JobSubmit, Status};

/// Jobs that run at once.
const RUNNING_JOBS: usize = 200;

/// The resident memory of platform-agent and network-processor together, connected and with nothing to do.
pub(crate) fn measure_idle(site: &Site, figures: &mut Figures) -> Result<()> {
    println!("==> memory of the idle agent");
    let agent = agent_of(site)?;
    let monitor = agent.monitor().context("no platform-agent")?;
    let link = agent.network_processor()?.context("no network-processor")?;
    let resident_kib = |process: &Process| rss_kib(process.pid).context("no VmRSS");
    figures.add("agent_idle_rss_kib", (resident_kib(&monitor)? + resident_kib(&link)?) as f64, "KiB", &[]);
    Ok(())
}

/// The resident memory of a process.
pub(crate) fn rss_kib(pid: u32) -> Option<u64> {
    field_kib(pid, "status", "VmRSS:")
}

/// The proportional share (PSS: shared pages divided by those who share them) of one job-processor among many.
pub(crate) fn measure_running(site: &Site, figures: &mut Figures) -> Result<()> {
    println!("==> memory of the job-processors of {RUNNING_JOBS} running jobs");
    let client = site.client();
    let command = ["/bin/sleep", "3600"].map(str::to_owned).to_vec();
    let ids = client.submit_batch(&vec![JobSubmit { command, ..JobSubmit::default() }; RUNNING_JOBS])?;
    wait_until("all jobs to run", || {
        let counts = client.counts()?.0;
        Ok(counts.iter().any(|(status, count)| status.0 == Status::Running && *count == RUNNING_JOBS as u64))
    })?;
    let job_processors = agent_of(site)?.job_processors()?;
    let pss_kib = job_processors.iter().filter_map(|process| field_kib(process.pid, "smaps_rollup", "Pss:"));
    let pss_kib: Vec<u64> = pss_kib.collect();
    ids.iter().try_for_each(|id| client.kill(*id, Some(0)).map(drop))?;
    client.wait_all()?;
    if pss_kib.len() != RUNNING_JOBS {
        bail!("{} job-processors could be measured instead of {RUNNING_JOBS}", pss_kib.len());
    }
    let mean = pss_kib.iter().sum::<u64>() as f64 / pss_kib.len() as f64;
    figures.add("job_processor_pss_kib", mean, "KiB", &[]);
    Ok(())
}

fn agent_of(site: &Site) -> Result<&Agent> {
    site.agents.first().context("no agent")
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

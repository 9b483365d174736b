//! What must be true of a job, whatever was killed.

use anyhow::{Context, Result};
use api::{Job, Status};
use os::signal::Signal;
use tests::{End, Process, Site, wait_for, wait_until};

/// What the jobs here do.
pub(crate) const SEVEN: End = End::Code(7);

/// The job was executed once, and the server says what it did.
pub(crate) fn exactly_seven(site: &Site, id: u64) -> Result<Job> {
    let job = site.client().wait(id)?;
    let executions = site.ledger().of(id)?;
    anyhow::ensure!(executions.len() == 1, "executed {} times: {executions:?} {job:#?}", executions.len());
    anyhow::ensure!(executions[0].end == Some(SEVEN), "it did not end by itself: {executions:?} {job:#?}");
    anyhow::ensure!(SEVEN.fits(&job), "it exited with 7: {job:#?}");
    let told = job.runs.last().context("no run")?;
    anyhow::ensure!(told.run_id == executions[0].run_id, "another run: {executions:?} {job:#?}");
    Ok(job)
}

/// The job ended, nobody could see how, and the server says just that.
pub(crate) fn unknown_with_a_reason(site: &Site, id: u64) -> Result<Job> {
    let job = site.client().wait(id)?;
    anyhow::ensure!(site.ledger().of(id)?.len() == 1, "executed once");
    anyhow::ensure!((job.status.0, job.exit_code, job.signal) == (Status::Unknown, None, None), "{job:#?}");
    anyhow::ensure!(job.reason.as_ref().is_some_and(|reason| reason.contains("nobody saw")), "{job:#?}");
    Ok(job)
}

/// Submits a job that waits at the gate, and waits until it is there. Its number and the id of its run.
pub(crate) fn running_job(site: &Site) -> Result<(u64, String)> {
    let id = site.client().submit(&site.gated()?)?;
    let job = site.client().wait_running(id)?;
    wait_for("the job to begin", || Ok(site.ledger().of(id)?.pop()))?;
    Ok((id, job.runs[0].run_id.clone()))
}

/// The job-processor of a run.
pub(crate) fn job_processor(site: &mut Site, run_id: &str) -> Result<Process> {
    site.agent()?.job_processor(run_id)?.context("the run has no job-processor")
}

/// Kills the network-processor and waits for the next one. The job-processors that there are become the monitor's children, and so do their jobs when
/// they die.
pub(crate) fn another_network_processor(site: &mut Site) -> Result<()> {
    let before = site.agent()?.kill_network_processor()?;
    wait_until("another network-processor", || {
        Ok(site.agent()?.network_processor()?.is_some_and(|now| now != before))
    })?;
    site.wait_connected("host1")
}

/// Kills several processes as nearly at once as one can: they are stopped first, so that none sees another die.
pub(crate) fn kill_together(processes: &[Process]) -> Result<()> {
    for signal in [Signal::STOP, Signal::KILL] {
        for process in processes {
            anyhow::ensure!(process.signal(signal)?, "{process:?} was gone already");
        }
    }
    Ok(())
}

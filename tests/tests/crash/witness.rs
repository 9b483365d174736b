//! Who can tell how a job ended when its job-processor cannot: the sequences in which the witnesses of one job die.

use crate::oracle::{another_network_processor, exactly_seven, job_processor, running_job};
use anyhow::{Context, Result};
use os::signal::Signal;
use tests::{End, Process, Site, keeps_exit_information, on_site, wait_until};

fn kill_monitor(site: &mut Site) -> Result<()> {
    site.agent()?.monitor().context("no monitor")?.kill()?;
    wait_until("the monitor to be dead", || Ok(site.agent()?.ended()?.is_some()))
}

fn network_processor(site: &mut Site) -> Result<Process> {
    site.agent()?.network_processor()?.context("no network-processor")
}

fn kill(process: &Process) -> Result<()> {
    process.kill()?;
    wait_until("it to be gone", || Ok(!process.lives()))
}

/// The job ends, and what is said of it is what it did: by one who saw it in the job-processor's place.
fn ends_exactly(site: &Site, id: u64) -> Result<()> {
    site.open_gate()?;
    let job = exactly_seven(site, id)?;
    let witness = job.runs[0].witness.as_deref();
    anyhow::ensure!(matches!(witness, Some("monitor" | "pidfd")), "{job:#?}");
    Ok(())
}

#[test]
fn without_a_monitor_the_network_processor_tells_how_an_orphan_ended() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        kill_monitor(site)?;
        kill(&job_processor(site, &run_id)?)?;
        ends_exactly(site, id)
    });
}

#[test]
fn a_monitor_that_dies_after_the_job_processor_takes_no_outcome_along() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        kill(&job_processor(site, &run_id)?)?;
        wait_until("the monitor to watch the job", || Ok(site.agent()?.trace().contains("is watched here")))?;
        kill_monitor(site)?;
        ends_exactly(site, id)
    });
}

#[test]
fn a_job_processor_that_dies_before_it_has_found_the_next_monitor_takes_no_outcome_along() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        kill_monitor(site)?;
        site.agent()?.start()?;
        kill(&job_processor(site, &run_id)?)?;
        ends_exactly(site, id)
    });
}

#[test]
fn without_a_network_processor_the_monitor_tells_how_an_orphan_ended() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        network_processor(site)?.signal(Signal::STOP)?; // so that it is not started again
        kill(&job_processor(site, &run_id)?)?;
        site.open_gate()?;
        wait_until("the job to end", || Ok(site.ledger().of(id)?[0].end.is_some()))?;
        wait_until("the monitor to record it", || {
            Ok(site.agent()?.trace().contains("recorded the end of an orphan"))
        })?;
        network_processor(site)?.kill()?;
        ends_exactly(site, id)
    });
}

#[test]
fn an_orphan_goes_from_the_network_processor_to_the_monitor() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        kill(&job_processor(site, &run_id)?)?;
        wait_until("the job to be adopted", || Ok(site.agent()?.trace().contains("adopted")))?;
        another_network_processor(site)?;
        site.open_gate()?;
        let job = exactly_seven(site, id)?;
        assert_eq!(job.runs[0].witness.as_deref(), Some("monitor"), "{job:#?}");
        Ok(())
    });
}

#[test]
fn a_later_monitor_watches_the_jobs_that_the_network_processor_has_adopted() {
    if !keeps_exit_information() {
        return eprintln!("skipped: this kernel does not tell whoever holds a pidfd (before 6.15)");
    }
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        kill(&job_processor(site, &run_id)?)?;
        kill_monitor(site)?;
        site.agent()?.start()?;
        let job = site.ledger().of(id)?.pop().and_then(|execution| Process::find(execution.pid));
        let job = job.context("the job is gone")?;
        let monitor = site.agent()?.monitor().context("no monitor")?;
        wait_until("the monitor to hold the job", || Ok(holds_pidfd(&monitor, job.pid)))?;
        // Nobody is left who could wait for it.
        let network_processor = network_processor(site)?;
        network_processor.signal(Signal::STOP)?;
        site.open_gate()?;
        wait_until("the job to end", || Ok(!job.lives()))?;
        network_processor.kill()?;
        ends_exactly(site, id)
    });
}

/// Whether a descriptor of that process is a pidfd of the other.
fn holds_pidfd(holder: &Process, pid: u32) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{}/fdinfo", holder.pid)).into_iter().flatten().flatten();
    let line = format!("Pid:\t{pid}");
    let names_it = |text: String| text.lines().any(|found| found == line);
    entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).any(names_it)
}

#[test]
fn a_job_that_kills_monitor_and_job_processor_at_once_has_its_exact_outcome_though_nobody_held_it_yet() {
    on_site(|site| {
        let (monitor, pid) = (site.agent()?.monitor().context("no monitor")?, site.path().join("pid"));
        // Before anybody but its job-processor and the monitor knows of it.
        let id = site.client().script(&format!(
            "read -r _ _ _ link _ < /proc/$PPID/stat; kill -STOP $link; echo $$ > {}; kill -9 {} $PPID; exit 9",
            pid.display(),
            monitor.pid
        ))?;
        let link = network_processor(site)?;
        wait_until("the monitor to be dead", || Ok(site.agent()?.ended()?.is_some()))?;
        wait_until("the network-processor to be stopped", || Ok(link.state() == Some('T')))?;
        let pid: u32 = std::fs::read_to_string(&pid)?.trim().parse()?;
        // A zombie of the network-processor's stays; whoever else gets it reaps it.
        wait_until("the job to be kept or lost", || {
            Ok(os::procfs::stat(pid)?.is_none_or(|stat| stat.state == b'Z' && stat.ppid == link.pid))
        })?;
        link.signal(Signal::CONT)?;
        let job = site.client().wait(id)?;
        assert!(End::Code(9).fits(&job), "{job:#?}");
        Ok(())
    });
}

#[test]
fn what_a_job_left_behind_is_reaped_when_it_ends() {
    on_site(|site| {
        let (go, pid) = (site.go(), site.path().join("pid"));
        let text = format!(
            "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; while [ ! -e {1} ]; do sleep 0.02; done' & while [ ! -e {0} ]; do sleep 0.02; done",
            pid.display(),
            go.display()
        );
        let leftovers = Some("ignore".to_owned());
        let job =
            api::JobSubmit { leftovers, script: Some(format!("#!/bin/sh\n{text}\n")), ..Default::default() };
        let id = site.client().submit(&job)?;
        site.client().wait(id)?;
        let left = std::fs::read_to_string(&pid)?.trim().parse().ok().and_then(Process::find);
        let left = left.context("it left nothing")?;
        site.open_gate()?;
        wait_until("it to be reaped", || Ok(left.state().is_none()))
    });
}

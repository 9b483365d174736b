//! Each process is stopped (SIGSTOP) for longer than every time-out, and goes on.

use anyhow::{Context, Result, ensure};
use os::signal::Signal;
use std::time::Duration;
use tests::{Dialling, End, Jobs, Part, Process, Random, Tally, on_empty_site, seed, wait_for, wait_until};

const STOP_SECONDS: u64 = 25;
const JOBS: usize = 10;
const SLEEP_MS_MAX: u64 = 2_000;
const HOSTS: [(&str, Dialling); 4] = [
    ("monitor", Dialling::In),
    ("network-processor", Dialling::In),
    ("network-processor-dialled", Dialling::Out),
    ("job-processor", Dialling::In),
];

#[test]
fn processes_that_stand_still_for_longer_than_every_time_out_lose_nothing_and_are_not_taken_for_dead() {
    on_empty_site(|site| {
        let mut tally = Tally::new(
            Part::TimeAndIdentity,
            "a process that stands still loses nothing and is not taken for dead",
        );
        tally.seed(seed());
        let seconds = std::env::var("LASTWORD_TEST_STOP_SECONDS")
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(STOP_SECONDS);
        for (name, dialling) in HOSTS {
            site.add_agent(name, dialling)?;
        }
        let (mut jobs, mut random) = (Jobs::new(), Random::from_seed());
        let mut gated = Vec::new();
        for (name, _) in HOSTS {
            let job = api::JobSubmit { agent: Some(name.to_owned()), ..site.gated()? };
            gated.push(site.client().submit(&job)?);
        }
        let mut job_processors = Vec::new();
        for (id, agent) in gated.iter().zip(&site.agents) {
            let run = site.client().wait_running(*id)?.runs[0].run_id.clone();
            job_processors.push(wait_for("a job-processor", || agent.job_processor(&run))?);
        }
        for (name, _) in HOSTS {
            jobs.submit(site, &mut random, JOBS, Some(name), SLEEP_MS_MAX)?;
        }
        // First everything of the agents that the test is about, then the server alone.
        let np = |index: usize| wait_for("a network-processor", || site.agents[index].network_processor());
        let monitor = site.agents[0].monitor().context("the monitor")?;
        let stopped = [monitor, np(1)?, np(2)?, job_processors[3].clone()];
        stand_still(&stopped, seconds, || {
            // Half of the work ends meanwhile, and more comes.
            site.open_gate()?;
            for (name, _) in HOSTS {
                jobs.submit(site, &mut random, JOBS, Some(name), SLEEP_MS_MAX)?;
            }
            site.wait_away(HOSTS[1].0)?;
            site.wait_away(HOSTS[2].0)?;
            ensure!(site.client().wait(gated[0])?.exit_code == Some(7), "nobody needs the monitor");
            wait_until("the job to end", || Ok(site.ledger().of(gated[3])?[0].end.is_some()))?;
            Ok(())
        })?;
        tally.count("processes stopped", stopped.len() as u64);
        let told = site.client().wait(gated[3])?;
        ensure!(told.runs[0].witness.as_deref() == Some("job-processor"), "it was taken for dead: {told:#?}");
        for id in &gated {
            let job = site.client().wait(*id)?;
            ensure!(End::Code(7).fits(&job) && site.ledger().of(*id)?.len() == 1, "{job:#?}");
        }
        for process in &job_processors[..3] {
            wait_until("a job-processor to be done", || Ok(!process.lives()))?;
        }
        jobs.compare(site)?;
        jobs.submit(site, &mut random, JOBS, None, SLEEP_MS_MAX)?;
        let server = site.server.process().context("the server")?;
        stand_still(&[server], seconds, || {
            wait_until("what runs to end without a server", || {
                Ok(site.ledger().read()?.values().flatten().all(|execution| execution.end.is_some()))
            })
        })?;
        tally.count("processes stopped", 1);
        tally.count("jobs compared", jobs.compare(site)? + gated.len() as u64);
        tally.kept();
        Ok(())
    });
}

/// Stops them, does something meanwhile, and lets them go on after so many seconds.
fn stand_still(processes: &[Process], seconds: u64, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let begun = std::time::Instant::now();
    for process in processes {
        ensure!(process.signal(Signal::STOP)?, "{process:?} is gone");
        wait_until("a process to stand still", || Ok(process.state() == Some('T')))?;
    }
    let done = meanwhile();
    // What is tried here is the time itself.
    std::thread::sleep(Duration::from_secs(seconds).saturating_sub(begun.elapsed()));
    for process in processes {
        ensure!(process.state() == Some('T'), "{process:?} did not stand still until now");
        process.signal(Signal::CONT)?;
    }
    done
}

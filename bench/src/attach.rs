//! A network-processor that was killed while thousands of jobs run: how soon the next one has found them all and is connected.

use crate::figure::Figures;
use crate::replay::add_agent;
use ::tests::{Agent, Site, wait_until};
use anyhow::{Context, Result, bail};
use api::{JobSubmit, Status};
use std::time::Instant;

/// Jobs that run.
const LIVE_RUNS: usize = 5_000;
/// Jobs in one submission: more at once would only wait for each other.
const BATCH: usize = 250;
/// The agent, and its queue.
const NAME: &str = "attach";
/// What the agent traces if it greets the server before it has looked at every run.
const INCOMPLETE: &str = "slow to read";

pub(crate) fn measure(site: &mut Site, figures: &mut Figures) -> Result<()> {
    println!("==> a network-processor that finds {LIVE_RUNS} live runs");
    let mut agent = Agent::prepare(site.path(), NAME, Some(site.server.agents_address()))?;
    add_agent(site, &agent, LIVE_RUNS)?;
    agent.start()?;
    site.wait_connected(NAME)?;
    let client = site.client();
    let running = || -> Result<u64> {
        let counts = client.counts()?.0;
        Ok(counts.iter().find(|(status, _)| status.0 == Status::Running).map_or(0, |(_, count)| *count))
    };
    let begun = running()?;
    let command = ["/bin/sleep", "3600"].map(str::to_owned).to_vec();
    let job = JobSubmit { command, queue: Some(NAME.to_owned()), ..JobSubmit::default() };
    for batch in 1..=LIVE_RUNS / BATCH {
        client.submit_batch(&vec![job.clone(); BATCH])?;
        wait_until("the jobs to run", || Ok(running()? - begun == (batch * BATCH) as u64))?;
    }
    let killed = agent.kill_network_processor()?;
    site.wait_away(NAME)?;
    wait_until("another network-processor", || {
        Ok(agent.network_processor()?.is_some_and(|present| present.pid != killed.pid))
    })?;
    let begin = Instant::now();
    site.wait_connected(NAME)?;
    let seconds = begin.elapsed().as_secs_f64();
    if agent.trace().contains(INCOMPLETE) {
        bail!("after {seconds:.1} s the agent was connected and had not looked at all of its runs");
    }
    figures.add("attach_5000_s", seconds, "s", &[]);
    let lost = LIVE_RUNS - usize::try_from(running()? - begun).context("fewer run than before")?;
    if lost != 0 {
        bail!("{lost} jobs do not run any more");
    }
    site.agents.push(agent); // its jobs end with the site
    Ok(())
}

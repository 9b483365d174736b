//! Short jobs per second through the whole system: submitted over HTTP, placed, started, ended, committed, and seen by who submitted.

use crate::figure::Figures;
use crate::{limits, peer};
use ::tests::{Client, Site};
use anyhow::{Result, bail};
use api::{Job, Status};
use serde_json::json;
use std::time::Duration;

/// The numbers of jobs in flight.
const IN_FLIGHT: [usize; 3] = [1, 8, 64];

/// The number in flight of the limits that have no number in their name, and of the peer.
const USUAL_IN_FLIGHT: usize = 8;

/// What is done before the clock starts.
const WARM_UP: Duration = Duration::from_secs(1);

pub(crate) fn measure(site: &Site, span: Duration, figures: &mut Figures) -> Result<()> {
    println!("==> short jobs, {} s each", span.as_secs());
    let client = site.client();
    let spooler = peer::task_spooler(site.path(), USUAL_IN_FLIGHT)?;
    limits::rate(USUAL_IN_FLIGHT, WARM_UP, || run_true(client))?;
    for in_flight in IN_FLIGHT {
        let of = |name: &str| {
            if in_flight == USUAL_IN_FLIGHT { name.to_owned() } else { format!("{name}_{in_flight}") }
        };
        let (spawn_name, durable_name) = (of("limit_spawn_per_s"), of("limit_durable_per_s"));
        let spawn = limits::spawn(in_flight, span)?;
        figures.add(&spawn_name, spawn, "1/s", &[]);
        let durable = limits::durable(in_flight, span, site.path())?;
        figures.add(&durable_name, durable, "1/s", &[(&spawn_name, spawn)]);
        let ours = limits::rate(in_flight, span, || run_true(client))?;
        let peer = ("task_spooler_per_s", spooler.unwrap_or(0.0));
        let beside = [(spawn_name.as_str(), spawn), (&durable_name, durable), peer];
        figures.add(&format!("short_jobs_per_s_{in_flight}"), ours, "1/s", &beside);
    }
    match spooler {
        Some(rate) => figures.add("task_spooler_per_s", rate, "1/s", &[]),
        None => println!("    task-spooler is not installed (apt-get install task-spooler): not measured"),
    }
    Ok(())
}

/// Submits `/bin/true` and returns when its committed outcome is known.
pub(crate) fn run_true(client: &Client) -> Result<()> {
    let mut job: Job =
        client.try_call("POST", "/api/v1/jobs", Some(&json!({"command": ["/bin/true"]})))?.json()?;
    while !job.status.0.is_final() {
        job = client.try_call("GET", &format!("/api/v1/jobs/{}?wait=20s", job.id), None)?.json()?;
    }
    if job.status.0 != Status::Completed {
        bail!("job {} ended as {} ({:?})", job.id, job.status.0, job.reason);
    }
    Ok(())
}

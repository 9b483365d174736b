//! Short jobs per second through the whole system: submitted over HTTP, placed, started, ended, committed, and seen by who submitted.
//!
//! A machine's speed changes from minute to minute, so the limits and the system take turns in short rounds, and each ratio is the median of
//! the rounds' own ratios. What a job costs in CPU time is noted too: that hardly depends on what else the machine does.

use crate::cpu::{PROCESSES, Used};
use crate::figure::Figures;
use crate::limits;
use crate::peer;
use ::tests::{Client, Site};
use anyhow::{Context, Result, bail};
use api::{Job, Status};
use serde_json::json;
use std::time::Duration;

/// The numbers of jobs in flight.
const IN_FLIGHT: [usize; 3] = [1, 8, 64];

/// The number in flight of the limits that have no number in their name, and of the peer.
const USUAL_IN_FLIGHT: usize = 8;

/// What is done before the clock starts.
const WARM_UP: Duration = Duration::from_secs(1);

/// So often the limits and the system take turns.
const ROUNDS: u32 = 5;

/// What is to be measured.
pub(crate) struct Plan {
    /// For how long each rate is measured.
    pub(crate) span: Duration,
    /// Only with so many in flight.
    pub(crate) only: Option<usize>,
    /// Without the limits and the peer.
    pub(crate) alone: bool,
}

pub(crate) fn measure(site: &Site, plan: &Plan, figures: &mut Figures) -> Result<()> {
    println!("==> short jobs, {} s each in {ROUNDS} rounds", plan.span.as_secs());
    let spooler = if plan.alone { None } else { peer::task_spooler(site.path(), USUAL_IN_FLIGHT)? };
    limits::rate(USUAL_IN_FLIGHT, WARM_UP, || run_true(site.client()))?;
    for in_flight in IN_FLIGHT.into_iter().filter(|n| plan.only.is_none_or(|only| only == *n)) {
        let rounds: Vec<Round> = (0..ROUNDS).map(|_| round(site, plan, in_flight)).collect::<Result<_>>()?;
        note(in_flight, &rounds, spooler, figures);
    }
    match spooler {
        Some(rate) => figures.add("task_spooler_per_s", rate, "1/s", &[]),
        None => println!("    task-spooler was not measured (apt-get install task-spooler)"),
    }
    Ok(())
}

/// What one round found.
struct Round {
    /// Jobs per second; NaN if left out.
    spawn: f64,
    durable: f64,
    ours: f64,
    /// CPU time of one of the limit's jobs, microseconds.
    spawn_us: f64,
    /// CPU time of one of ours, microseconds, as [`PROCESSES`].
    cost_us: [f64; 5],
}

fn round(site: &Site, plan: &Plan, in_flight: usize) -> Result<Round> {
    let span = plan.span / ROUNDS;
    let used = || Used::now(site, site.agents.first().context("no agent")?);
    let mut found =
        Round { spawn: f64::NAN, durable: f64::NAN, ours: 0.0, spawn_us: f64::NAN, cost_us: [0.0; 5] };
    if !plan.alone {
        let before = used()?;
        let spawn = limits::spawn(in_flight, span)?;
        found.spawn_us = used()?.limits_us_since(&before) as f64 / spawn.finished as f64;
        found.spawn = spawn.per_s;
        found.durable = limits::durable(in_flight, span, site.path())?.per_s;
    }
    let before = used()?;
    let ours = limits::rate(in_flight, span, || run_true(site.client()))?;
    found.cost_us = before.cost_until(&used()?, ours.finished);
    found.ours = ours.per_s;
    Ok(found)
}

fn note(in_flight: usize, rounds: &[Round], spooler: Option<f64>, figures: &mut Figures) {
    let of = |name: &str| {
        if in_flight == USUAL_IN_FLIGHT { name.to_owned() } else { format!("{name}_{in_flight}") }
    };
    let (spawn_name, durable_name) = (of("limit_spawn_per_s"), of("limit_durable_per_s"));
    if rounds.iter().all(|round| round.spawn.is_finite()) {
        figures.add(&spawn_name, median(rounds, |round| round.spawn), "1/s", &[]);
        let to_spawn = median(rounds, |round| round.durable / round.spawn);
        figures.add(&durable_name, median(rounds, |round| round.durable), "1/s", &[(&spawn_name, to_spawn)]);
        figures.add(&of("cpu_us_per_limit_spawn"), median(rounds, |round| round.spawn_us), "µs", &[]);
    }
    let ours = median(rounds, |round| round.ours);
    let beside = [
        (spawn_name.as_str(), median(rounds, |round| round.ours / round.spawn)),
        (&durable_name, median(rounds, |round| round.ours / round.durable)),
        ("task_spooler_per_s", ours / spooler.unwrap_or(f64::NAN)),
    ];
    figures.add(&format!("short_jobs_per_s_{in_flight}"), ours, "1/s", &beside);
    for (number, process) in PROCESSES.into_iter().enumerate() {
        let each = median(rounds, |round| round.cost_us[number]);
        figures.add(&format!("cpu_us_per_job_{process}_{in_flight}"), each, "µs", &[]);
    }
}

/// The middle one of what the rounds found.
fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
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

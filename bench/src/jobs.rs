//! Short jobs per second through the whole system: placed, started, ended, committed, and counted by the server as over.
//!
//! `N` in flight are `N` slots of the agent, and a queue that never runs empty: that is how nightly work comes. What it costs to submit each job over
//! a connection of its own and to wait there for its outcome is measured beside it, by as many clients.
//!
//! A machine's speed changes from minute to minute, so the limits and the system take turns in short rounds, and each ratio is the median of
//! the rounds' own ratios. What a job costs in CPU time is noted too: that hardly depends on what else the machine does.

use crate::cpu::{PROCESSES, Used};
use crate::figure::Figures;
use crate::limits::{self, Rate};
use ::tests::{Client, Site};
use anyhow::{Context, Result, bail};
use api::{Job, JobSubmit, Status};
use serde_json::json;
use std::time::{Duration, Instant};

/// The numbers of jobs in flight.
const IN_FLIGHT: [usize; 3] = [1, 8, 64];

/// The number in flight of the limits that have no number in their name.
const USUAL_IN_FLIGHT: usize = 8;

/// The slots of the agent when nothing else is said.
const SLOTS_USUAL: usize = 200;

/// What is done before the clock starts.
const WARM_UP: Duration = Duration::from_secs(1);

/// So often the limits and the system take turns.
const ROUNDS: u32 = 5;

/// Jobs in one submission, and how few may wait before the next one.
const BATCH: usize = 512;
const WAITING_MIN: u64 = 256;

/// Between two looks at how many are over.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A queue that does not become empty within this is stuck.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// What is to be measured.
pub(crate) struct Plan {
    /// For how long each rate is measured.
    pub(crate) span: Duration,
    /// Only with so many in flight.
    pub(crate) only: Option<usize>,
    /// Without the limits.
    pub(crate) alone: bool,
}

pub(crate) fn measure(site: &Site, plan: &Plan, figures: &mut Figures) -> Result<()> {
    println!("==> short jobs, {} s each in {ROUNDS} rounds", plan.span.as_secs());
    limits::rate(USUAL_IN_FLIGHT, WARM_UP, || run_true(site.client()))?;
    for in_flight in IN_FLIGHT.into_iter().filter(|n| plan.only.is_none_or(|only| only == *n)) {
        set_slots(site, in_flight)?;
        let rounds: Vec<Round> = (0..ROUNDS).map(|_| round(site, plan, in_flight)).collect::<Result<_>>()?;
        note(in_flight, &rounds, figures);
    }
    set_slots(site, SLOTS_USUAL)?;
    let clients = plan.only.unwrap_or(IN_FLIGHT[IN_FLIGHT.len() - 1]);
    let submitted = limits::rate(clients, plan.span, || run_true(site.client()))?;
    figures.add(&format!("jobs_of_clients_per_s_{clients}"), submitted.per_s, "1/s", &[]);
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
    let ours = from_queue(site.client(), span)?;
    found.cost_us = before.cost_until(&used()?, ours.finished);
    found.ours = ours.per_s;
    Ok(found)
}

/// Lets jobs come from a queue that is kept filled for `span`, then lets it run empty.
fn from_queue(client: &Client, span: Duration) -> Result<Rate> {
    let command = vec!["/bin/true".to_owned()];
    let jobs = vec![JobSubmit { command, ..JobSubmit::default() }; BATCH];
    let (over_before, _) = client.progress()?;
    client.submit_batch(&jobs)?;
    let begin = Instant::now();
    let over_in_span = loop {
        let (over, all) = client.progress()?;
        if begin.elapsed() >= span {
            break (over - over_before) as f64 / begin.elapsed().as_secs_f64();
        }
        if all - over < WAITING_MIN {
            client.submit_batch(&jobs)?;
        }
        std::thread::sleep(LOOK_AGAIN);
    };
    let drained = Instant::now();
    loop {
        let (over, all) = client.progress()?;
        if over == all {
            break;
        }
        if drained.elapsed() > DRAIN_MAX {
            bail!("{} jobs are not over after {} s", all - over, DRAIN_MAX.as_secs());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    let counts = client.counts()?.0;
    let (over, _) = client.progress()?;
    let completed =
        counts.iter().filter(|(status, _)| status.0 == Status::Completed).map(|(_, n)| n).sum::<u64>();
    if completed != over {
        bail!("{} of {over} jobs did not complete", over - completed);
    }
    Ok(Rate { per_s: over_in_span, finished: over - over_before })
}

/// So many runs at a time on the agent.
fn set_slots(site: &Site, slots: usize) -> Result<()> {
    let agent = site.agents.first().context("no agent")?.name();
    let path = format!("/api/v1/agents/{agent}/set");
    site.client().try_call("POST", &path, Some(&json!({"slots": slots})))?.json::<serde_json::Value>()?;
    Ok(())
}

fn note(in_flight: usize, rounds: &[Round], figures: &mut Figures) {
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

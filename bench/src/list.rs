//! Looking for something among a million jobs that are over, over REST, as the command line does.

use crate::figure::Figures;
use ::tests::{Client, Site};
use anyhow::{Context, Result, bail};
use api::JobList;
use central_server::db::{Database, Sqlite};
use job::{JobId, RunId, Status, Witness};
use scheduler::{Change, JobRecord, JobSpec, RunRecord};
use std::sync::Arc;
use std::time::Instant;

/// Jobs that are over.
const JOBS: u64 = 1_000_000;
/// In one transaction.
const BATCH: u64 = 10_000;
/// One job in so many went wrong.
const FAILED_EVERY: u64 = 1_000;
/// Different names, queues, agents.
const NAMES: u64 = 200;
const QUEUES: u64 = 50;
const AGENTS: u64 = 100;
/// Between two submissions, milliseconds.
const APART_MS: i64 = 250;
/// Each question is asked so often; the figure is the median.
const ROUNDS: usize = 15;

/// What is asked, by the name of its figure.
const QUESTIONS: [(&str, &str); 10] = [
    ("newest", "jobs?limit=100"),
    ("status", "jobs?status=Killed&limit=100"),
    ("queue", "jobs?queue=q7&limit=100"),
    ("agent", "jobs?agent=host42&limit=100"),
    ("name_prefix", "jobs?name=close-19*&limit=100"),
    ("time", "jobs?since=2026-01-02T00:00:00Z&until=2026-01-02T00:10:00Z&limit=100"),
    ("failed", "jobs?failed=true&limit=100"),
    ("failed_of_queue", "jobs?failed=true&queue=q0&name=close-0&limit=100"),
    ("exit_code", "jobs?exit_code=7&limit=100"),
    ("deep_cursor", "jobs?limit=100&cursor=1000"),
];

pub(crate) fn measure(site: &mut Site, figures: &mut Figures) -> Result<()> {
    println!("==> looking among {JOBS} jobs that are over");
    site.server.stop()?;
    fill(&site.server.data_root().join("server.db"))?;
    site.server.restart()?;
    let client = site.client();
    let mut slowest = 0f64;
    for (name, question) in QUESTIONS {
        let median = median_ms(client, question)?;
        figures.add(&format!("list_1m_{name}_ms"), median, "ms", &[]);
        slowest = slowest.max(median);
    }
    let counts = median_of(|| client.counts().map(drop))?;
    figures.add("list_1m_counts_ms", counts, "ms", &[]);
    figures.add("list_1m_ms", slowest.max(counts), "ms", &[]);
    Ok(())
}

fn median_ms(client: &Client, question: &str) -> Result<f64> {
    let path = format!("/api/v1/{question}");
    let found: JobList = client.call("GET", &path, None)?.json()?;
    if found.items.is_empty() {
        bail!("nothing was found by {question}: the figure would be of nothing");
    }
    median_of(|| client.call("GET", &path, None).map(drop))
}

fn median_of(mut ask: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut took_ms = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        ask()?;
        took_ms.push(begin.elapsed().as_secs_f64() * 1_000.0);
    }
    took_ms.sort_by(f64::total_cmp);
    took_ms.get(ROUNDS / 2).copied().context("no round")
}

/// Writes the jobs as the server itself would have, in its own words.
fn fill(path: &std::path::Path) -> Result<()> {
    let database = Sqlite::open(path)?;
    let first = database.load()?.last_job + 1;
    let begin = Instant::now();
    for batch in 0..JOBS / BATCH {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let changes: Vec<Change> = numbers.flat_map(|n| changes_of(first + n, n)).collect();
        database.commit(&changes)?;
    }
    println!("    they were written in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn changes_of(id: u64, n: u64) -> [Change; 2] {
    let failed = n.is_multiple_of(FAILED_EVERY);
    let (status, exit_code, signal) = match (failed, n.is_multiple_of(2 * FAILED_EVERY)) {
        (false, _) => (Status::Completed, Some(0), None),
        (true, true) => (Status::Error, Some(7), None),
        (true, false) => (Status::Killed, None, Some(15)),
    };
    let at_ms = 1_767_225_600_000 + i64::try_from(n).unwrap_or(0) * APART_MS; // 2026-01-01
    let (job, run, agent) =
        (JobId(id), RunId::new(at_ms.unsigned_abs(), u128::from(id)), format!("host{}", n % AGENTS));
    let spec = JobSpec {
        name: format!("close-{}", n % NAMES),
        queue: format!("q{}", n % QUEUES),
        command: vec![b"/usr/local/bin/close".to_vec(), b"--day".to_vec(), b"2026-01-01".to_vec()],
        submitted_by: "bench".to_owned(),
        ..JobSpec::default()
    };
    let record = JobRecord {
        id: job,
        spec: Arc::new(spec),
        submitted_at_ms: at_ms,
        status,
        agent: Some(agent.clone()),
        attempts: 1,
        run: Some(run),
        exit_code,
        signal,
        reason: None,
        started_at_ms: Some(at_ms + 20),
        ended_at_ms: Some(at_ms + 900),
        kill: None,
        refusals: 0,
        wait: None,
        tries: 1,
        previous: Some(status),
        pause: None,
    };
    let run = RunRecord {
        id: run,
        job,
        attempt: 1,
        agent,
        status,
        placed_at_ms: at_ms,
        accepted_at_ms: Some(at_ms + 10),
        started_at_ms: Some(at_ms + 20),
        ended_at_ms: Some(at_ms + 900),
        exit_code,
        signal,
        core: false,
        witness: Some(Witness::JobProcessor),
        reason: None,
        usage: job::Usage { cpu_ms: Some(5), ..job::Usage::default() },
        acked_seq: 3,
        late: None,
    };
    [Change::JobInserted(record), Change::RunInserted(run)]
}

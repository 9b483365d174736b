//! `kill -9` at random, under load, of everything that can be killed. The oracle is the ledger that the jobs write themselves.
//!
//! `LASTWORD_TEST_KILLS`: how many kills at least (120). `LASTWORD_TEST_SEED` repeats the choices, though not the timing.

use anyhow::{Context, Result};
use api::{Job, Status};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tests::{End, Execution, Process, Random, Site, Way, keeps_exit_information, ledger_job, on_site};

/// Jobs in one round; another round follows while there are kills left.
const JOBS: usize = 300;
const KILLS: u64 = 120;
/// Signals that end a process, without core files.
const SIGNALS: [u8; 6] = [1, 2, 9, 10, 14, 15];
/// Between two kills, milliseconds.
const PAUSE_MS_MIN: u64 = 30;
const PAUSE_MS_MAX: u64 = 100;
/// A killed job-processor and a killed monitor within this time count as killed together: their job may be Unknown.
const TOGETHER: Duration = Duration::from_secs(3);
/// The longest that all of it may take without the kills.
const SETTLE_MAX: Duration = Duration::from_secs(120);

#[test]
fn whatever_is_killed_every_job_is_executed_once_and_its_outcome_is_what_it_did() {
    on_site(|site| {
        let kills = std::env::var("LASTWORD_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
        let mut storm = Storm { random: Random::from_seed(), counts: BTreeMap::new(), agent_kills: Vec::new() };
        let mut expected = BTreeMap::new();
        while storm.total() < kills {
            submit(site, &mut storm.random, &mut expected)?;
            storm.rage(site, kills)?;
        }
        calm(site)?;
        compare(site, &expected, &storm)
    });
}

fn submit(site: &Site, random: &mut Random, expected: &mut BTreeMap<u64, Way>) -> Result<()> {
    let ways: Vec<Way> = (0..JOBS).map(|_| random_way(random)).collect();
    let ledger = site.ledger();
    let jobs = ways.iter().map(|way| ledger_job(ledger.path(), *way)).collect::<Result<Vec<_>>>()?;
    expected.extend(site.client().submit_batch(&jobs)?.into_iter().zip(ways));
    Ok(())
}

fn random_way(random: &mut Random) -> Way {
    let end = match random.below(4) {
        0 => End::Signal(*random.choose(&SIGNALS).unwrap_or(&9)),
        _ => End::Code(random.below(256) as u8),
    };
    Way { sleep_ms: random.below(400), end }
}

/// What was killed.
struct Storm {
    random: Random,
    counts: BTreeMap<&'static str, u64>,
    /// When a job-processor, the monitor or the network-processor was killed.
    agent_kills: Vec<(&'static str, Instant)>,
}

impl Storm {
    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Kills until all jobs are over or there were enough kills.
    fn rage(&mut self, site: &mut Site, kills: u64) -> Result<()> {
        while self.total() < kills {
            let pause_ms = PAUSE_MS_MIN + self.random.below(PAUSE_MS_MAX - PAUSE_MS_MIN);
            // The storm's own rhythm; nothing is waited for here.
            std::thread::sleep(Duration::from_millis(pause_ms));
            revive(site)?;
            if let Ok(answer) = site.client().try_call("GET", "/api/v1/jobs/counts", None)
                && let Ok(api::Counts(counts)) = answer.json()
                && counts.iter().all(|(status, count)| status.0.is_final() || *count == 0)
            {
                return Ok(());
            }
            self.strike(site)?;
        }
        Ok(())
    }

    fn strike(&mut self, site: &mut Site) -> Result<()> {
        let what = match self.random.below(20) {
            0..=8 => {
                let living = site.agent()?.job_processors()?;
                kill(self.random.choose(&living)).then_some("job-processor")
            }
            9..=13 => kill(site.agent()?.network_processor()?.as_ref()).then_some("network-processor"),
            14..=16 => kill(site.agent()?.monitor().as_ref()).then_some("monitor"),
            _ if site.server.runs() => {
                site.server.kill()?;
                Some("server")
            }
            _ => None,
        };
        if let Some(what) = what {
            *self.counts.entry(what).or_default() += 1;
            self.agent_kills.push((what, Instant::now()));
        }
        Ok(())
    }

    /// Whether a job-processor and another witness were killed so nearly together that an outcome may have been seen by nobody.
    fn had_coincidence(&self) -> bool {
        let of = |kind| self.agent_kills.iter().filter(move |(what, _)| *what == kind).map(|(_, at)| *at);
        of("job-processor").any(|one| of("monitor").any(|two| one.max(two) - one.min(two) <= TOGETHER))
    }
}

/// `kill -9`; `false` if there was nobody.
fn kill(process: Option<&Process>) -> bool {
    process.is_some_and(|process| process.kill().unwrap_or(false))
}

/// Starts again what the harness has to: the monitor and the server.
fn revive(site: &mut Site) -> Result<()> {
    let agent = site.agent()?;
    if agent.monitor().is_none_or(|monitor| !monitor.lives()) && agent.ended()?.is_some() {
        agent.start()?;
    }
    if let Some(status) = site.server.ended()? {
        anyhow::bail!("the server ended by itself: {status}");
    }
    if !site.server.runs() {
        site.server.spawn(&[])?;
    }
    Ok(())
}

/// After the storm everything comes back by itself, and all jobs end.
fn calm(site: &mut Site) -> Result<()> {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        revive(site)?;
        let progress = site.client().progress();
        match progress {
            Ok((over, all)) if over == all => return Ok(()),
            Ok(_) | Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            Ok((over, all)) => {
                let open: Vec<_> = site.client().list()?.into_iter().filter(|job| !job.status.0.is_final()).collect();
                let why = open.first().map(|job| site.client().why(job.id)).transpose()?;
                anyhow::bail!("{over} of {all} are over; the first of the others: {:#?} ({why:?})", open.first());
            }
            Err(e) => return Err(e),
        }
    }
}

fn compare(site: &Site, expected: &BTreeMap<u64, Way>, storm: &Storm) -> Result<()> {
    let ledger = site.ledger().read()?;
    let mut wrong = Vec::new();
    let mut unknown = Vec::new();
    let mut witnesses: BTreeMap<String, u64> = BTreeMap::new();
    for (id, way) in expected {
        let job = site.client().job(*id)?;
        let executions = ledger.get(id).map_or(&[][..], Vec::as_slice);
        match judge(&job, *way, executions) {
            Ok(()) if job.status.0 == Status::Unknown => unknown.push(job.reason.unwrap_or_default()),
            Ok(()) => {
                let witness = job.runs.last().and_then(|run| run.witness.clone()).unwrap_or_default();
                *witnesses.entry(witness).or_default() += 1;
            }
            Err(what) => wrong.push(format!("{what}: {way:?} {executions:?} {job:#?}")),
        }
    }
    let count = expected.len();
    println!("{count} jobs; killed: {:?}; witnesses: {witnesses:?}; unknown: {unknown:?}", storm.counts);
    let missing = ledger.keys().find(|id| !expected.contains_key(id));
    anyhow::ensure!(missing.is_none(), "a job in the ledger that nobody submitted: {missing:?}");
    anyhow::ensure!(wrong.is_empty(), "{} of {count} are wrong. The first: {}", wrong.len(), wrong[0]);
    let listed = site.client().list().context("the list")?.len();
    anyhow::ensure!(listed == count, "{listed} jobs are listed, {count} were submitted");
    anyhow::ensure!(unknown.is_empty() || storm.had_coincidence(), "unknown without a cause: {unknown:?}");
    anyhow::ensure!(
        !keeps_exit_information() || unknown.len() <= count / 50,
        "{} of {count} are unknown on a kernel that can tell: {unknown:?}",
        unknown.len()
    );
    Ok(())
}

/// What the server says of a job against what the job wrote.
fn judge(job: &Job, way: Way, executions: &[Execution]) -> Result<(), &'static str> {
    if executions.len() > 1 {
        return Err("executed more than once");
    }
    for run in &job.runs {
        let executed = executions.iter().any(|execution| execution.run_id == run.run_id);
        if run.status.0 == Status::Canceled && executed {
            return Err("a run that is said to have never started is in the ledger");
        }
        if run.status.0 == Status::Completed && !executed {
            return Err("a run that is said to be completed is not in the ledger");
        }
    }
    match (job.status.0, executions) {
        (Status::Unknown, _) if job.exit_code.is_none() && job.signal.is_none() && job.reason.is_some() => Ok(()),
        (Status::Unknown, _) => Err("an unknown outcome with a code or without a reason"),
        (_, []) => Err("not executed"),
        (_, [execution, ..]) if execution.end != Some(way.end) => Err("the job itself did not end as it was told"),
        _ if way.end.fits(job) => Ok(()),
        _ => Err("another outcome than the job's"),
    }
}

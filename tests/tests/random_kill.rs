//! `kill -9` at random, under load, of everything that can be killed. The oracle is the ledger that the jobs write themselves.
//!
//! `LASTWORD_TEST_KILLS`: how many kills at least, half of them in each of two tests (2000). `LASTWORD_TEST_SEED` repeats the choices, though not the
//! timing. `cargo xtask soak kills` is for more.

use anyhow::{Context, Result};
use api::Status;
use spool::{Ledger, Shelf};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tests::{
    Dialling, End, Part, Process, Random, Site, Tally, Way, judge, keeps_exit_information, ledger_job,
    on_site, seed,
};

/// Jobs in one round; another round follows while there are kills left.
const JOBS: usize = 150;
const KILLS: u64 = 2_000;
/// The longest that a job sleeps, milliseconds: enough for many to run at once.
const SLEEP_MS_MAX: u64 = 2_500;
/// Signals that end a process, without core files.
const SIGNALS: [u8; 6] = [1, 2, 9, 10, 14, 15];
/// Between two kills, milliseconds.
const PAUSE_MS_MIN: u64 = 20;
const PAUSE_MS_MAX: u64 = 60;
/// A job-processor, a monitor and a network-processor that were killed within this time count as killed together: their job may be Unknown.
const TOGETHER: Duration = Duration::from_secs(3);
/// The longest that all of it may take without the kills.
const SETTLE_MAX: Duration = Duration::from_secs(120);

#[test]
fn whatever_is_killed_every_job_is_executed_once_and_its_outcome_is_what_it_did() {
    rages("whatever is killed, every job is executed once and its outcome is what it did", Wishes::Any);
}

#[test]
fn whatever_is_killed_a_job_without_its_job_processor_stays_controllable_and_its_outcome_is_what_it_did() {
    rages(
        "whatever is killed, jobs whose job-processor died obey and their outcomes are exact",
        Wishes::Orphans,
    );
}

fn rages(promise: &str, wishes: Wishes) {
    let mut tally = Tally::new(Part::RandomKills, promise);
    tally.seed(seed());
    on_site(|site| {
        site.add_agent("host2", Dialling::Out)?;
        let kills = std::env::var("LASTWORD_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
        let mut storm = Storm::new(kills.div_ceil(2), wishes);
        while storm.total() < storm.kills {
            storm.submit(site)?;
            storm.rage(site)?;
        }
        tally.count("processes killed", storm.total());
        calm(site, &mut storm)?;
        compare(site, &storm, &mut tally)
    });
    tally.kept();
}

/// What is asked of which jobs amid the storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wishes {
    /// That some job ends, which may wait, run or be over.
    Any,
    /// That a job whose job-processor was killed a moment ago stands still, goes on or ends.
    Orphans,
}

fn random_way(random: &mut Random) -> Way {
    let end = match random.below(4) {
        0 => End::Signal(*random.choose(&SIGNALS).unwrap_or(&9)),
        _ => End::Code(random.below(256) as u8),
    };
    Way { sleep_ms: random.below(SLEEP_MS_MAX), end }
}

/// What was submitted and what was killed.
struct Storm {
    random: Random,
    /// So many kills.
    kills: u64,
    /// What each job is to do.
    expected: BTreeMap<u64, Way>,
    /// Jobs that were killed on request.
    unwanted: BTreeSet<u64>,
    wishes: Wishes,
    /// Jobs that were told to stand still and not yet to go on.
    paused: BTreeSet<u64>,
    /// How often a job was told to stand still.
    suspensions: u64,
    /// The job whose job-processor was killed last.
    orphan: Option<u64>,
    counts: BTreeMap<&'static str, u64>,
    /// When a process was killed.
    struck: Vec<(&'static str, Instant)>,
}

impl Storm {
    fn new(kills: u64, wishes: Wishes) -> Storm {
        Storm {
            random: Random::from_seed(),
            kills,
            expected: BTreeMap::new(),
            unwanted: BTreeSet::new(),
            wishes,
            paused: BTreeSet::new(),
            suspensions: 0,
            orphan: None,
            counts: BTreeMap::new(),
            struck: Vec::new(),
        }
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    fn submit(&mut self, site: &Site) -> Result<()> {
        let ways: Vec<Way> = (0..JOBS).map(|_| random_way(&mut self.random)).collect();
        let ledger = site.ledger();
        let jobs = ways.iter().map(|way| ledger_job(ledger.path(), *way)).collect::<Result<Vec<_>>>()?;
        self.expected.extend(site.client().submit_batch(&jobs)?.into_iter().zip(ways));
        Ok(())
    }

    /// Kills until all jobs are over or there were enough kills.
    fn rage(&mut self, site: &mut Site) -> Result<()> {
        while self.total() < self.kills {
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
            match self.wishes {
                Wishes::Any => self.want_an_end(site),
                Wishes::Orphans => self.control_an_orphan(site),
            }
        }
        Ok(())
    }

    /// Asks the server to end some job, which may wait, run or be over. A server that is away just now does not hear it.
    fn want_an_end(&mut self, site: &Site) {
        let jobs: Vec<u64> = self.expected.keys().rev().take(JOBS).copied().collect();
        if let Some(id) = self.random.choose(&jobs) {
            self.unwanted.insert(*id);
            let _ = site.client().try_call("POST", &format!("/api/v1/jobs/{id}/kill"), None);
        }
    }

    /// Asks something of the job whose job-processor was killed just now, and lets another one go on.
    fn control_an_orphan(&mut self, site: &Site) {
        if let Some(id) = self.orphan.take() {
            match self.random.below(3) {
                0 => {
                    self.unwanted.insert(id);
                    let _ = site.client().try_call("POST", &format!("/api/v1/jobs/{id}/kill"), None);
                }
                1 if told(site, id, "suspend") => {
                    self.suspensions += 1;
                    self.paused.insert(id);
                }
                _ => {} // it goes on as it is
            }
        }
        if let Some(id) = self.paused.first().copied().filter(|_| self.random.below(2) == 0)
            && told(site, id, "resume")
        {
            self.paused.remove(&id);
        }
    }

    fn strike(&mut self, site: &mut Site) -> Result<()> {
        let agent = site.agents.get(usize::try_from(self.random.below(2))?).context("two agents")?;
        let what = match self.random.below(20) {
            0..=10 => {
                let root = agent.root();
                let runs = root.list(Shelf::Live).unwrap_or_default().into_iter();
                let living = runs.filter_map(|run| Some((run, agent.job_processor(&run.to_string()).ok()??)));
                let living: Vec<_> = living.collect();
                let found = self.random.choose(&living);
                let killed = kill(found.map(|(_, process)| process));
                if let Some((run, _)) = found.filter(|_| killed) {
                    let ledger = Ledger::read(&root.run(Shelf::Live, *run)).ok();
                    self.orphan = ledger.and_then(|ledger| ledger.spec.job_id);
                }
                killed.then_some("job-processor")
            }
            11..=14 => kill(agent.network_processor()?.as_ref()).then_some("network-processor"),
            15..=17 => kill(agent.monitor().as_ref()).then_some("monitor"),
            _ if site.server.runs() => {
                site.server.kill()?;
                Some("server")
            }
            _ => None,
        };
        if let Some(what) = what {
            *self.counts.entry(what).or_default() += 1;
            self.struck.push((what, Instant::now()));
        }
        Ok(())
    }

    /// Whether all three witnesses were killed so nearly together that an outcome may have been seen by nobody.
    fn had_coincidence(&self) -> bool {
        let of = |kind| self.struck.iter().filter(move |(what, _)| *what == kind).map(|(_, at)| *at);
        let near = |one: Instant, kind| of(kind).any(|two| one.max(two) - one.min(two) <= TOGETHER);
        of("job-processor").any(|one| near(one, "monitor") && near(one, "network-processor"))
    }
}

/// Whether the server heard it; that it says no, since the job is over or stands still already, is an answer too.
fn told(site: &Site, id: u64, verb: &str) -> bool {
    site.client()
        .try_call("POST", &format!("/api/v1/jobs/{id}/{verb}"), None)
        .is_ok_and(|answer| answer.status != 503)
}

/// `kill -9`; `false` if there was nobody.
fn kill(process: Option<&Process>) -> bool {
    process.is_some_and(|process| process.kill().unwrap_or(false))
}

/// Starts again what the harness has to: the monitor and the server.
fn revive(site: &mut Site) -> Result<()> {
    for agent in &mut site.agents {
        if agent.ended()?.is_some() {
            agent.start()?;
        }
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
fn calm(site: &mut Site, storm: &mut Storm) -> Result<()> {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        revive(site)?;
        storm.paused.retain(|id| !told(site, *id, "resume"));
        let progress = site.client().progress();
        match progress {
            Ok((over, all)) if over == all => return Ok(()),
            Ok(_) | Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            Ok((over, all)) => {
                let open: Vec<_> =
                    site.client().list()?.into_iter().filter(|job| !job.status.0.is_final()).collect();
                let why = open.first().map(|job| site.client().why(job.id)).transpose()?;
                anyhow::bail!(
                    "{over} of {all} are over; the first of the others: {:#?} ({why:?})",
                    open.first()
                );
            }
            Err(e) => return Err(e),
        }
    }
}

fn compare(site: &Site, storm: &Storm, tally: &mut Tally) -> Result<()> {
    let ledger = site.ledger().read()?;
    let expected = &storm.expected;
    let mut wrong = Vec::new();
    let mut unknown = Vec::new();
    let mut witnesses: BTreeMap<String, u64> = BTreeMap::new();
    for (id, way) in expected {
        let job = site.client().job(*id)?;
        let executions = ledger.get(id).map_or(&[][..], Vec::as_slice);
        match judge(&job, *way, executions, storm.unwanted.contains(id)) {
            Ok(()) if job.status.0 == Status::Unknown => unknown.push(job.reason.unwrap_or_default()),
            Ok(()) => {
                let witness = job.runs.last().and_then(|run| run.witness.clone()).unwrap_or_default();
                *witnesses.entry(witness).or_default() += 1;
            }
            Err(what) => wrong.push(format!("{what}: {way:?} {executions:?} {job:#?}")),
        }
    }
    let count = expected.len();
    println!(
        "{count} jobs; killed: {:?}; unwanted: {}; witnesses: {witnesses:?}; unknown: {unknown:?}",
        storm.counts,
        storm.unwanted.len()
    );
    tally.count("jobs compared", count as u64);
    tally.count("outcomes unknown with a true reason", unknown.len() as u64);
    tally.count("wishes for an end", storm.unwanted.len() as u64);
    tally.count("wishes to stand still", storm.suspensions);
    let missing = ledger.keys().find(|id| !expected.contains_key(id));
    anyhow::ensure!(missing.is_none(), "a job in the ledger that nobody submitted: {missing:?}");
    anyhow::ensure!(wrong.is_empty(), "{} of {count} are wrong. The first: {}", wrong.len(), wrong[0]);
    let listed = site.client().list().context("the list")?.len();
    anyhow::ensure!(listed == count, "{listed} jobs are listed, {count} were submitted");
    anyhow::ensure!(unknown.is_empty() || storm.had_coincidence(), "unknown without a cause: {unknown:?}");
    let untrue = unknown.iter().find(|reason| !reason.contains("nobody saw"));
    anyhow::ensure!(untrue.is_none(), "unknown for a reason that cannot be: {untrue:?}");
    anyhow::ensure!(
        !keeps_exit_information() || unknown.len() <= count / 50,
        "{} of {count} are unknown on a kernel that can tell: {unknown:?}",
        unknown.len()
    );
    Ok(())
}

//! One or both hosts lose power again and again while jobs come and go.

use anyhow::{Context, Result, ensure};
use job::{Outcome, RunId};
use spool::{Ledger, Shelf};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tests::{
    Dialling, FileSystem, Load, Part, Random, STORE_ALL, Said, Site, Status, Tally, Volume, on_prepared_site,
    seed, wait_until,
};

/// The size of a data root's file system, and what each round adds to it: all that was ever there stays.
const VOLUME_MIB: u64 = 256;
const ROUND_MIB: u64 = 4;
/// Between a recovery and the next power loss, milliseconds.
const PAUSE_MS_MIN: u64 = 50;
const PAUSE_MS_MAX: u64 = 400;
/// What the server says of a run that came to nothing and whose job is placed again.
const GIVEN_BACK: Said = (Status::Canceled, None, None);
/// Settled runs stay, so that they can be compared.
const KEEP_ALL: &str = "[retention]\nfree_bytes_min = \"0\"\n";

/// Who loses power.
#[derive(Clone, Copy)]
pub(crate) struct Hosts {
    pub(crate) agent: bool,
    pub(crate) server: bool,
}

/// Rounds of load, power loss, recovery and comparison; all on the same file systems.
pub(crate) fn lose_power(hosts: Hosts, kind: FileSystem, rounds: u64) {
    let who = match hosts {
        Hosts { agent: true, server: true } => "agent and server lose power together",
        Hosts { agent: true, server: false } => "the agent's host loses power",
        Hosts { agent: false, .. } => "the server's host loses power",
    };
    let mut tally = Tally::new(Part::PowerLoss, &format!("{who} on {kind}: nothing that was told is lost"));
    tally.seed(seed());
    let mounted = RefCell::new(Ok((None, None)));
    on_prepared_site(
        |path| {
            let mount = |wanted: bool, name: &str| match wanted {
                true => Ok(Volume::mount(kind, &path.join(name), VOLUME_MIB + rounds * ROUND_MIB)?.map(Some)),
                false => anyhow::Ok(Ok(None)),
            };
            let (agent, server) = (mount(hosts.agent, "volume")?, mount(hosts.server, "server")?);
            *mounted.borrow_mut() = agent.and_then(|agent| Ok((agent, server?)));
            Ok(())
        },
        |site| match mounted.replace(Ok((None, None))) {
            Err(why) => {
                eprintln!("not tried: {why}");
                tally.skipped(&why);
                Ok(())
            }
            Ok((agent, server)) => {
                let mut test = Test {
                    agent,
                    server,
                    boot: 0,
                    settled: BTreeSet::new(),
                    found: BTreeSet::new(),
                    random: Random::from_seed(),
                };
                test.go(site, rounds, &mut tally)?;
                tally.kept();
                Ok(())
            }
        },
    );
}

struct Test {
    /// The file system of the agent's data root, if its host loses power.
    agent: Option<Volume>,
    /// That of the server's.
    server: Option<Volume>,
    /// So often the agent's host was started again.
    boot: u128,
    /// Settled runs that were compared with what the server says.
    settled: BTreeSet<RunId>,
    /// Jobs of which the agent's disk was compared with what was told.
    found: BTreeSet<u64>,
    random: Random,
}

impl Test {
    fn go(&mut self, site: &mut Site, rounds: u64, tally: &mut Tally) -> Result<()> {
        site.server.stop()?;
        site.server.restart_with(&store_all())?;
        let mut agent = site.prepare_agent("host1", Dialling::In)?;
        if let Some(volume) = &self.agent {
            agent.set_data_root(&volume.path().join("agent"));
        }
        agent.configure(KEEP_ALL);
        site.add_prepared_agent(agent, Dialling::In, &self.boot_id())?;
        let load = Load::begin(site, Random::from_seed())?;
        for round in 1..=rounds {
            self.round(site, &load, tally).with_context(|| format!("round {round} of {rounds}"))?;
        }
        load.finish(site, tally)?;
        ensure!(site.agent()?.count(Shelf::Quarantined) == 0, "runs are in quarantine");
        site.agent()?.stop()?;
        site.server.stop()?;
        (self.agent, self.server) = (None, None);
        Ok(())
    }

    fn round(&mut self, site: &mut Site, load: &Load, tally: &mut Tally) -> Result<()> {
        let accepted = load.accepted();
        wait_until("a job to be taken", || Ok(load.accepted() > accepted))?;
        // The rhythm of the power losses; nothing is waited for here.
        let pause_ms = PAUSE_MS_MIN + self.random.below(PAUSE_MS_MAX - PAUSE_MS_MIN);
        std::thread::sleep(Duration::from_millis(pause_ms));
        let volumes: Vec<&Volume> = self.agent.iter().chain(&self.server).collect();
        Volume::lose_power(&volumes)?;
        tally.count("file systems shut down", volumes.len() as u64);
        if self.agent.is_some() {
            site.agent()?.kill_monitor()?;
        }
        match &self.server {
            Some(_) => site.server.kill()?,
            None => load.look()?, // all that the server has of the agent must be on that one's disk
        }
        if self.agent.is_some() {
            load.on_power_lost();
        }
        for volume in volumes {
            volume.recover()?;
        }
        let acknowledged = self.settled(site)?;
        if self.server.is_some() {
            site.server.restart_with(&store_all())?;
        }
        self.find_acknowledged(site, &acknowledged, tally)?;
        if self.agent.is_some() {
            self.find_told(site, &load.seen(Status::is_final), tally)?;
        }
        if self.agent.is_some() {
            self.boot += 1;
            site.agent()?.start_with(&self.boot_id())?;
        }
        load.compare()?;
        site.wait_connected("host1")
    }

    fn boot_id(&self) -> Vec<(String, String)> {
        let id = (1 << 64) + self.boot;
        vec![("LASTWORD_TEST_BOOT_ID".to_owned(), format!("{id:032x}"))]
    }

    /// The outcomes of settled runs that were not compared yet: the server acknowledged them.
    fn settled(&mut self, site: &mut Site) -> Result<Vec<(u64, RunId, Outcome)>> {
        let root = site.agent()?.root();
        let mut found = Vec::new();
        for run_id in root.list(Shelf::Settled)? {
            if self.settled.insert(run_id) {
                let ledger =
                    Ledger::read(&root.run(Shelf::Settled, run_id)).with_context(|| run_id.to_string())?;
                let job = ledger.spec.job_id.context("a run without a job")?;
                found.push((job, run_id, outcome_of(&ledger)?.context("a settled run has no outcome")?));
            }
        }
        Ok(found)
    }

    /// What the server acknowledged is in its database.
    fn find_acknowledged(
        &self,
        site: &Site,
        runs: &[(u64, RunId, Outcome)],
        tally: &mut Tally,
    ) -> Result<()> {
        for (id, run_id, outcome) in runs {
            let job = site.client().job(*id)?;
            let run = job.runs.iter().find(|run| run.run_id == run_id.to_string());
            let now = run.map(|run| (run.status.0, run.exit_code, run.signal));
            // What never started is placed again, as another run; and at last no more.
            let given_back = matches!(outcome, Outcome::NeverStarted { .. }).then_some(GIVEN_BACK);
            ensure!(
                now == Some(said(outcome)) || now.is_some() && now == given_back,
                "the agent had {outcome:?} of {run_id} acknowledged, the server says {job:#?}"
            );
        }
        tally.count("acknowledged facts compared", runs.len() as u64);
        Ok(())
    }

    /// What the agent told the server, and that told us, is on the agent's disk.
    fn find_told(&mut self, site: &mut Site, told: &BTreeMap<u64, Said>, tally: &mut Tally) -> Result<()> {
        let root = site.agent()?.root();
        for (id, told) in told {
            if !self.found.insert(*id) {
                continue;
            }
            let job = site.client().job(*id)?;
            let run_id: RunId = job.runs.last().context("over without a run")?.run_id.parse()?;
            let (_, dir) = root
                .find(run_id)?
                .with_context(|| format!("{run_id} is not on the agent's disk: {job:#?}"))?;
            let there = outcome_of(&Ledger::read(&dir).with_context(|| run_id.to_string())?)?;
            ensure!(
                there.as_ref().map(said) == Some(*told),
                "the agent's disk says {there:?}, and told was {job:#?}"
            );
            tally.count("acknowledged facts compared", 1);
        }
        Ok(())
    }
}

fn store_all() -> [(String, String); 1] {
    STORE_ALL.map(|(key, value)| (key.to_owned(), value.to_owned()))
}

fn outcome_of(ledger: &Ledger) -> Result<Option<Outcome>> {
    ledger.outcome().map_err(|e| anyhow::anyhow!("an outcome that cannot be read: {e:?}"))
}

fn said(outcome: &Outcome) -> Said {
    (outcome.status(), outcome.exit_code(), outcome.signal())
}

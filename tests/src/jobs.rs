//! Jobs of the ledger whose outcomes nobody can doubt: no process of theirs is killed, so each is executed once and ends as it was told.

use crate::{End, Random, Site, Way, ledger_job, wait_until};
use anyhow::{Context, Result, ensure};
use api::JobSubmit;
use spool::Shelf;
use std::collections::BTreeMap;

/// Signals that end a process, without core files.
const SIGNALS: [u8; 6] = [1, 2, 9, 10, 14, 15];

/// What was submitted, and what each is to do.
#[derive(Debug, Default)]
pub struct Jobs {
    expected: BTreeMap<u64, Way>,
}

impl Jobs {
    /// None yet.
    pub fn new() -> Jobs {
        Jobs::default()
    }

    /// Submits so many for any agent, or for one, which sleep up to so long.
    pub fn submit(
        &mut self,
        site: &Site,
        random: &mut Random,
        count: usize,
        agent: Option<&str>,
        sleep_ms_max: u64,
    ) -> Result<Vec<u64>> {
        let ledger = site.ledger();
        let ways: Vec<Way> = (0..count).map(|_| any_way(random, sleep_ms_max)).collect();
        let job = |way: &Way| -> Result<JobSubmit> {
            Ok(JobSubmit { agent: agent.map(str::to_owned), ..ledger_job(ledger.path(), *way)? })
        };
        let jobs = ways.iter().map(job).collect::<Result<Vec<_>>>()?;
        let ids = site.client().submit_batch(&jobs)?;
        self.expected.extend(ids.iter().copied().zip(ways));
        Ok(ids)
    }

    /// How many were submitted.
    pub fn count(&self) -> u64 {
        self.expected.len() as u64
    }

    /// How many began, by their own account.
    pub fn begun(&self, site: &Site) -> Result<usize> {
        Ok(site.ledger().read()?.keys().filter(|id| self.expected.contains_key(id)).count())
    }

    /// Waits until all of them ended by their own account, whoever knows of it.
    pub fn wait_ended(&self, site: &Site) -> Result<()> {
        wait_until("the jobs to end", || {
            let ledger = site.ledger().read()?;
            let ended =
                |id| ledger.get(id).is_some_and(|executions| executions.iter().all(|e| e.end.is_some()));
            Ok(self.expected.keys().all(ended))
        })
    }

    /// Waits until all are over, and every agent has settled all that it had. Then compares what the server says with what they did.
    pub fn compare(&self, site: &Site) -> Result<u64> {
        for id in self.expected.keys() {
            site.client().wait(*id)?;
        }
        let ledger = site.ledger().read()?;
        for (id, way) in &self.expected {
            let job = site.client().job(*id)?;
            let executions = ledger.get(id).map_or(&[][..], Vec::as_slice);
            let [execution] = executions else {
                anyhow::bail!("job {id} was executed {} times: {executions:?} {job:#?}", executions.len());
            };
            ensure!(execution.end == Some(way.end), "job {id} did not end as it was told: {execution:?}");
            ensure!(way.end.fits(&job), "job {id} was to end with {} and is said to be: {job:#?}", way.end);
            let run = job.runs.last().context("a job without a run")?;
            ensure!(run.run_id == execution.run_id, "job {id}: another run than the one that was executed");
        }
        for agent in &site.agents {
            wait_until(&format!("agent {} to settle everything", agent.name()), || {
                Ok(agent.count(Shelf::Live) == 0)
            })?;
        }
        Ok(self.count())
    }
}

fn any_way(random: &mut Random, sleep_ms_max: u64) -> Way {
    let end = match random.below(4) {
        0 => End::Signal(*random.choose(&SIGNALS).unwrap_or(&9)),
        _ => End::Code(random.below(256) as u8),
    };
    Way { sleep_ms: random.below(sleep_ms_max + 1), end }
}

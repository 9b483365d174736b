//! A stand-in for `server/src/db`: what is committed outlives the server, a batch is written whole or not at all.

use crate::oracle::Oracle;
use job::{JobId, RunId, Status};
use scheduler::{AgentRecord, Change, Counts, JobRecord, QueueRecord, RunRecord, Snapshot};
use std::collections::{BTreeMap, BTreeSet};

/// The record.
#[derive(Debug, Default)]
pub(crate) struct Database {
    pub(crate) id: [u8; 16],
    /// One more with every start of a server.
    pub(crate) epoch: u64,
    pub(crate) commit: u64,
    pub(crate) jobs: BTreeMap<JobId, JobRecord>,
    pub(crate) runs: BTreeMap<RunId, RunRecord>,
    pub(crate) facts: BTreeMap<RunId, BTreeMap<u64, Vec<u8>>>,
    pub(crate) strays: BTreeMap<RunId, BTreeMap<u64, Vec<u8>>>,
    queues: BTreeMap<String, QueueRecord>,
    agents: BTreeMap<String, AgentRecord>,
    attachments: BTreeSet<(String, String)>,
    keys: BTreeMap<String, JobId>,
    last_event: u64,
}

impl Database {
    pub(crate) fn new(id: [u8; 16]) -> Database {
        let name = "default".to_owned();
        let queue =
            QueueRecord { name: name.clone(), held: false, slots: None, priority: 0, created_at_ms: 0 };
        Database { id, queues: BTreeMap::from([(name, queue)]), ..Database::default() }
    }

    pub(crate) fn job_of_key(&self, key: &str) -> Option<&JobRecord> {
        self.jobs.get(self.keys.get(key)?)
    }

    /// Up to which message a run of the inventory is stored.
    pub(crate) fn stored_seq(&self, run: RunId) -> u64 {
        match self.runs.get(&run) {
            Some(record) => record.acked_seq,
            None => {
                let strays = self.strays.get(&run);
                (1..)
                    .take_while(|seq| strays.is_some_and(|strays| strays.contains_key(seq)))
                    .last()
                    .unwrap_or(0)
            }
        }
    }

    /// Every message up to that number, as the agent sent it.
    pub(crate) fn fact(&self, run: RunId, seq: u64) -> Option<&[u8]> {
        let of = |facts: &BTreeMap<RunId, BTreeMap<u64, Vec<u8>>>| facts.get(&run)?.get(&seq).map(Vec::len);
        let facts = if of(&self.facts).is_some() { &self.facts } else { &self.strays };
        facts.get(&run)?.get(&seq).map(Vec::as_slice)
    }

    pub(crate) fn has_up_to(&self, run: RunId, seq: u64) -> bool {
        (1..=seq).all(|seq| self.fact(run, seq).is_some())
    }

    /// Commits a batch.
    pub(crate) fn commit(&mut self, changes: &[Change], oracle: &mut Oracle) {
        self.commit += 1;
        for change in changes {
            self.apply(change.clone(), oracle);
        }
    }

    fn apply(&mut self, change: Change, oracle: &mut Oracle) {
        match change {
            Change::JobInserted(job) | Change::JobUpdated(job) => self.put_job(job, oracle),
            Change::RunInserted(run) | Change::RunUpdated(run) => {
                let before = self.runs.insert(run.id, run.clone());
                oracle.on_run(before.as_ref(), &run);
            }
            Change::FactInserted(fact) => {
                if self.facts.entry(fact.run).or_default().insert(fact.seq, fact.bytes).is_some() {
                    oracle.fail(format!("message {} of run {} was stored twice", fact.seq, fact.run));
                }
            }
            Change::StrayInserted(stray) => {
                self.strays.entry(stray.fact.run).or_default().insert(stray.fact.seq, stray.fact.bytes);
            }
            Change::QueueInserted(queue) | Change::QueueUpdated(queue) => {
                self.queues.insert(queue.name.clone(), queue);
            }
            Change::Attached(queue, agent) => {
                self.attachments.insert((queue, agent));
            }
            Change::AgentInserted(agent, _) | Change::AgentUpdated(agent) => {
                if let Some(trouble) = &agent.trouble {
                    oracle.on_trouble(&agent.name, &trouble.text);
                }
                self.agents.insert(agent.name.clone(), agent);
            }
            Change::Event(event) => self.last_event = event.number,
            other @ (Change::FileKept(_)
            | Change::JobDeleted(_)
            | Change::StraysDeleted(..)
            | Change::AgentTold(_)
            | Change::QueueDeleted(_)
            | Change::Detached(..)
            | Change::AgentDeleted(_)
            | Change::SecretAdded(..)
            | Change::SecretsRetired(_)) => oracle.fail(format!("a change that nobody asked for: {other:?}")),
        }
    }

    fn put_job(&mut self, job: JobRecord, oracle: &mut Oracle) {
        if let Some(key) = &job.spec.idempotency_key {
            let known = *self.keys.entry(key.clone()).or_insert(job.id);
            if known != job.id {
                oracle.fail(format!("one request made two jobs, {known} and {}", job.id));
            }
        }
        let before = self.jobs.insert(job.id, job.clone());
        if before.is_some_and(|before| before.status.is_final() && before.status != job.status) {
            oracle.fail(format!("job {} was final and became {}", job.id, job.status));
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.jobs.values().for_each(|job| counts.add(job.status));
        counts
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let is_open = |status: Status| !status.is_final();
        Snapshot {
            jobs: self.jobs.values().filter(|job| is_open(job.status)).cloned().collect(),
            runs: self.runs.values().filter(|run| is_open(run.status)).cloned().collect(),
            queues: self.queues.values().cloned().collect(),
            agents: self.agents.values().cloned().collect(),
            attachments: self.attachments.iter().cloned().collect(),
            last_job: self.jobs.keys().last().map_or(0, |id| id.0),
            last_run: self.runs.keys().max().copied(),
            counts: self.counts(),
            recovery: None,
            last_event: self.last_event,
        }
    }
}

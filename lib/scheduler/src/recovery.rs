//! After a restore: what agents ran since the backup comes back, and nothing is started a second time.
//!
//! A restored database is a picture of the past. A job that waited then may have run since, and its agent has the outcome; a job that was
//! submitted since is known to its agent only. So the server asks every agent to tell all that it has, each run with its order:
//!
//! | the agent tells of a run                        | the books have                     | what follows                              |
//! |-------------------------------------------------|------------------------------------|-------------------------------------------|
//! | that is known                                   | the run                            | as always: what is new is taken           |
//! | of a job that waits                             | fewer attempts                     | the run is adopted, the job is not placed |
//! | of a job with another run that is not over      | fewer attempts                     | that run was over before: it becomes `Unknown`, its own end is shown beside |
//! | of a job that is not there                      | nothing                            | job and run are put back from the order   |
//! | of a job that is over                           | fewer attempts                     | it was begun again since: the run is adopted, and the job is over as that ends |
//! | of an attempt that the job has had              | another history                    | kept as a stray                           |
//! | only that it cannot read its log                | nothing of that run                | it has not told: a person has to decide   |
//!
//! **A job that the backup has is not placed before every agent has told.** New jobs are. An agent that never comes back keeps the old
//! ones waiting until it is removed or a person ends the recovery. Nor is a run ordered that the backup has as placed and no agent is
//! known to have accepted: it may have been refused since, and its job may have run elsewhere.

use crate::engine::{AgentIx, Engine, is_placed};
use crate::input::{Change, FactIn, InventoryEntry};
use crate::rejection::Rejection;
use crate::stand::Stand;
use crate::{EventKind, JobRecord, JobSpec, QueueRecord, RunRecord};
use job::{JobId, RunId, Status, Witness};
use protocol::message::RunSpec;
use std::collections::{BTreeMap, BTreeSet};

/// What a restore leaves to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The highest job number of the backup.
    pub last_job: u64,
    /// Agents that have not told yet.
    pub untold: BTreeSet<String>,
}

/// How far a recovery is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryView {
    /// Agents that have not told yet.
    pub untold: Vec<String>,
    /// Those of them that have sent all that they have: when the strays among it are looked at, they have told.
    pub caught_up: Vec<String>,
    /// Jobs that are kept back.
    pub kept_back: u64,
}

/// The same in the engine.
pub(crate) struct Recovering {
    of: Recovery,
    /// Jobs that would be in the order of their queue.
    kept_back: BTreeSet<JobId>,
    /// What each connected agent that has not told still owes.
    owed: BTreeMap<String, Owed>,
}

/// Of one connection of an agent.
struct Owed {
    session: u64,
    /// It has not said yet that it sent what it had settled.
    settled: bool,
    /// Runs of its inventory of which nothing came yet.
    runs: BTreeSet<RunId>,
}

impl Recovering {
    pub(crate) fn new(of: Recovery) -> Recovering {
        Recovering { of, kept_back: BTreeSet::new(), owed: BTreeMap::new() }
    }
}

impl Engine {
    /// How far the recovery is, if there is one.
    pub fn recovery(&self) -> Option<RecoveryView> {
        let recovering = self.recovering.as_ref()?;
        let paid = |name: &&String| {
            recovering.owed.get(*name).is_some_and(|owed| !owed.settled && owed.runs.is_empty())
        };
        Some(RecoveryView {
            untold: recovering.of.untold.iter().cloned().collect(),
            caught_up: recovering.of.untold.iter().filter(paid).cloned().collect(),
            kept_back: recovering.kept_back.len() as u64,
        })
    }

    /// An agent came: it owes what it has settled, and what of its inventory nobody here knows.
    pub(crate) fn expect_account(&mut self, agent: &str, session: u64, inventory: &[InventoryEntry]) {
        let unknown = |entry: &&InventoryEntry| {
            !self.runs.contains_key(&entry.run) && entry.stored_seq.unwrap_or(0) == 0
        };
        let runs = inventory.iter().filter(unknown).map(|entry| entry.run).collect();
        let Some(recovering) = &mut self.recovering else { return };
        if recovering.of.untold.contains(agent) {
            recovering.owed.insert(agent.to_owned(), Owed { session, settled: true, runs });
        }
    }

    /// The agent said something of a run, or that it will never say anything.
    pub(crate) fn owes_no_more(&mut self, agent: &str, run: RunId) {
        if let Some(owed) = self.recovering.as_mut().and_then(|recovering| recovering.owed.get_mut(agent)) {
            owed.runs.remove(&run);
        }
    }

    /// The agent has sent everything that it had settled.
    pub(crate) fn on_caught_up(&mut self, agent: &str, session: u64) {
        if let Some(owed) = self.recovering.as_mut().and_then(|recovering| recovering.owed.get_mut(agent))
            && owed.session == session
        {
            owed.settled = false;
        }
    }

    /// The agent has sent what it can read, and there is more that it cannot: what these runs were, and of which jobs, nobody can tell. So it has not
    /// told, and only a person can say that the jobs of the backup may be started.
    pub(crate) fn on_untellable(&mut self, agent: &str, session: u64, runs: &[RunId], now_ms: i64) {
        let Some(&ix) = self.agent_names.get(agent) else { return };
        let Some(first) = runs.first().filter(|_| self.agents[&ix].session == Some(session)) else { return };
        let then = match self.is_untold(agent) {
            true => {
                "; the jobs of the backup wait until `lastword server end-recovery` says that they may be started"
            }
            false => "",
        };
        let text = format!(
            "agent \"{agent}\" cannot read its logs of {} runs that this database does not know (the first is {first}): nobody can tell which jobs \
             they were of. They are in quarantine/ or settled/ of its data root{then}",
            runs.len()
        );
        self.note_trouble(ix, EventKind::AgentTrouble, text, None, now_ms);
    }

    /// Whether the agent is to send all that it has settled, also if it did before.
    pub(crate) fn is_untold(&self, agent: &str) -> bool {
        self.recovering.as_ref().is_some_and(|recovering| recovering.of.untold.contains(agent))
    }

    /// Keeps a queued job out of its queue's order while it may have run elsewhere.
    pub(crate) fn keep_back(&mut self, id: JobId) -> bool {
        match &mut self.recovering {
            Some(recovering) if id.0 <= recovering.of.last_job => {
                recovering.kept_back.insert(id);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether nothing of this job may be ordered yet, not even again.
    pub(crate) fn holds_back(&self, id: JobId) -> bool {
        self.recovering.as_ref().is_some_and(|recovering| id.0 <= recovering.of.last_job)
    }

    /// Orders what the backup has as placed, and of which its agent, which is here, has told nothing.
    fn order_what_was_held_back(&mut self) {
        let is_here =
            |name: &str| self.agent_names.get(name).is_some_and(|ix| self.agents[ix].session.is_some());
        let is_held = |run: &RunRecord| {
            run.status == Status::Dispatched && run.accepted_at_ms.is_none() && is_here(&run.agent)
        };
        let mut held: Vec<RunId> =
            self.runs.values().map(|run| &run.record).filter(|run| is_held(run)).map(|run| run.id).collect();
        held.sort_unstable();
        for run in held {
            self.order_again(run);
        }
    }

    /// Whether the job was kept back; it is no longer.
    pub(crate) fn let_go(&mut self, id: JobId) -> bool {
        self.recovering.as_mut().is_some_and(|recovering| recovering.kept_back.remove(&id))
    }

    /// Why a job of the backup is neither in its queue's order nor ordered again.
    pub(crate) fn why_kept_back(&self, id: JobId) -> Option<String> {
        let recovering = self.recovering.as_ref().filter(|recovering| id.0 <= recovering.of.last_job)?;
        let names: Vec<&str> = recovering.of.untold.iter().map(String::as_str).collect();
        Some(format!(
            "the database was restored from a backup, and it may have run since: it waits until these agents have told what they ran: {}. \
             `lastword server end-recovery` goes on without them",
            names.join(", ")
        ))
    }

    /// Nobody waits for this agent's account: it was given, or it never will be.
    pub(crate) fn on_told(&mut self, agent: &str, now_ms: i64) {
        let Some(recovering) = &mut self.recovering else { return };
        recovering.owed.remove(agent);
        if recovering.of.untold.remove(agent) {
            self.write(Change::AgentTold(agent.to_owned()));
            self.end_recovery_if_told(now_ms);
        }
    }

    /// A person says that whoever has not told never will.
    pub(crate) fn on_end_recovery(&mut self, now_ms: i64) {
        let Some(recovering) = &mut self.recovering else { return };
        for agent in std::mem::take(&mut recovering.of.untold) {
            self.write(Change::AgentTold(agent));
        }
        self.end_recovery_if_told(now_ms);
    }

    pub(crate) fn end_recovery_if_told(&mut self, now_ms: i64) {
        let Some(recovering) = self.recovering.take_if(|recovering| recovering.of.untold.is_empty()) else {
            return;
        };
        let waiting = recovering.kept_back.len();
        self.warn(format!("the recovery is over: {waiting} jobs of the backup that did not run since go on"));
        self.order_what_was_held_back();
        let mut queues = BTreeSet::new();
        for id in recovering.kept_back {
            queues.insert(self.jobs[&id].queue);
            self.enqueue(id);
        }
        for queue in queues {
            self.place_queue(queue, now_ms);
        }
    }

    /// Takes over a run, with all that came of it so far, that a server placed which knew more than this database. What cannot be taken over
    /// stays a stray.
    pub(crate) fn on_adopt(
        &mut self,
        agent: &str,
        spec: &RunSpec,
        facts: Vec<FactIn>,
        now_ms: i64,
    ) -> Result<(), Rejection> {
        let Some(run) = facts.first().map(|fact| fact.run) else { return Ok(()) };
        if self.runs.contains_key(&run) || !self.adopt(agent, run, spec, now_ms) {
            return Err(Rejection::NotAdopted(run));
        }
        self.write(Change::StraysDeleted(run, facts.len() as u64));
        self.on_facts(agent, facts, now_ms);
        Ok(())
    }

    fn adopt(&mut self, agent: &str, run: RunId, spec: &RunSpec, now_ms: i64) -> bool {
        let (Some(job), Some(attempt), Some(&agent_ix)) =
            (spec.job_id.map(JobId), spec.attempt, self.agent_names.get(agent))
        else {
            return false;
        };
        if self.recovering.is_none() || spec.agent != agent || job.0 == 0 {
            return false;
        }
        let record = self.jobs.get(&job).map(|job| &job.record).or_else(|| self.recalled.get(&job));
        match record {
            Some(record) if attempt <= record.attempts => return false,
            Some(record) if record.status.is_final() => {
                if !self.reopen(job) {
                    return false;
                }
            }
            Some(record) => {
                if let Some(before) = record.run.filter(|_| is_placed(record.status)) {
                    self.supersede(before, attempt, agent, now_ms);
                }
            }
            None => {
                if !self.put_back(job, spec, now_ms) {
                    return false;
                }
            }
        }
        self.take_over(job, attempt, run, agent_ix, agent);
        true
    }

    /// There is a later attempt of a job that is over: a retry that this database does not know of, or somebody restarted it. `false`: its
    /// queue is gone.
    fn reopen(&mut self, id: JobId) -> bool {
        if let Some(record) = self.recalled.get(&id) {
            let Some(&queue) = self.queue_names.get(&record.spec.queue) else { return false };
            self.revive(id, queue);
        }
        let job = self.job_mut(id);
        (job.tries, job.kill, job.ended_at_ms) = (0, None, None);
        true
    }

    /// There is a later attempt, so this one was over. How it ended is its own agent's to tell.
    fn supersede(&mut self, run: RunId, attempt: u32, agent: &str, now_ms: i64) {
        if self.end_run(run, Status::Unknown, now_ms).is_none() {
            return;
        }
        let record = self.run_mut(run);
        record.reason = Some(format!(
            "it was over when attempt {attempt} was placed on {agent}, after the backup was made"
        ));
        record.witness = Some(Witness::None);
        let job = record.job;
        self.stand(job, Stand::Queued);
    }

    /// A job that was submitted after the backup, as far as the order to its agent tells.
    fn put_back(&mut self, id: JobId, spec: &RunSpec, now_ms: i64) -> bool {
        let due_ms = spec.scheduled_at_ms;
        let Ok(mut spec) = JobSpec::of_run(spec) else { return false };
        if !self.queue_names.contains_key(&spec.queue) {
            self.warn(format!(
                "queue \"{}\" of job {id} was created after the backup; created again",
                spec.queue
            ));
            let record = QueueRecord {
                name: spec.queue.clone(),
                held: false,
                slots: None,
                priority: 0,
                created_at_ms: now_ms,
            };
            self.write(Change::QueueInserted(record.clone()));
            self.add_queue(record);
        }
        let queue = self.queue_names[&spec.queue];
        if spec.idempotency_key.as_ref().is_some_and(|key| self.keys.contains_key(key)) {
            spec.idempotency_key = None; // submitted again meanwhile
        }
        self.last_job = self.last_job.max(id.0);
        let submitted_at_ms = due_ms.unwrap_or(now_ms);
        let record = JobRecord::new(id, std::sync::Arc::new(spec), submitted_at_ms);
        self.insert_job(record, queue);
        true
    }

    fn take_over(&mut self, id: JobId, attempt: u32, run: RunId, agent_ix: AgentIx, agent: &str) {
        self.stand(id, Stand::Queued); // from wherever it waited
        self.stand(id, Stand::Placed);
        self.agent_mut(agent_ix).runs.insert(run);
        let job = self.job_mut(id);
        (job.attempts, job.run, job.agent, job.reason) = (attempt, Some(run), Some(agent.to_owned()), None);
        let placed_at_ms = i64::try_from(run.wall_ms()).unwrap_or(i64::MAX);
        self.insert_run(RunRecord::placed(run, id, attempt, agent.to_owned(), placed_at_ms));
    }
}

//! Commands about jobs.

use crate::engine::Engine;
use crate::input::{Action, Rejection, Submitted};
use crate::{JobRecord, JobSpec, KillWish};
use job::{JobId, Status};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Engine {
    pub(crate) fn on_submit(
        &mut self,
        specs: Vec<JobSpec>,
        now_ms: i64,
    ) -> Result<Vec<Submitted>, Rejection> {
        let specs = self.check_submit(specs)?;
        Ok(specs.into_iter().map(|spec| self.submit_one(spec, now_ms)).collect())
    }

    /// Everything that can be refused is refused here, before anything changes.
    fn check_submit(&self, specs: Vec<JobSpec>) -> Result<Vec<JobSpec>, Rejection> {
        let mut batch: BTreeMap<String, JobSpec> = BTreeMap::new();
        let mut checked = Vec::with_capacity(specs.len());
        for mut spec in specs {
            if spec.name.is_empty() {
                spec.name = spec.default_name();
            }
            spec.check().map_err(Rejection::BadSpec)?;
            if let Some(key) = &spec.idempotency_key {
                let same = |other: &JobSpec| is_same_request(&spec, other);
                if let Some((job, before)) = self.keys.get(key) {
                    if !same(before) {
                        return Err(Rejection::KeyReused { key: key.clone(), job: *job });
                    }
                    checked.push(spec); // it will be answered with that job, whatever became of its queue
                    continue;
                }
                if batch.get(key).is_some_and(|before| !same(before)) {
                    return Err(Rejection::KeyTwice(key.clone()));
                }
                batch.insert(key.clone(), spec.clone());
            }
            self.find_queue(&spec.queue)?;
            if let Some(agent) = &spec.agent {
                self.find_agent(agent)?;
            }
            checked.push(spec);
        }
        Ok(checked)
    }

    fn submit_one(&mut self, spec: JobSpec, now_ms: i64) -> Submitted {
        let before = spec.idempotency_key.as_ref().and_then(|key| self.keys.get(key));
        if let Some((job, _)) = before {
            return Submitted { job: *job, existing: true };
        }
        let Some(&queue) = self.queue_names.get(&spec.queue) else {
            unreachable!("queue \"{}\" was there a moment ago", spec.queue)
        };
        let id = self.new_job_id();
        let held = spec.held;
        let record = JobRecord {
            id,
            spec: Arc::new(spec),
            submitted_at_ms: now_ms,
            status: if held { Status::Held } else { Status::Queued },
            agent: None,
            attempts: 0,
            run: None,
            exit_code: None,
            signal: None,
            reason: None,
            started_at_ms: None,
            ended_at_ms: None,
            kill: None,
            refusals: 0,
        };
        self.insert_job(record, queue);
        if !held && self.enqueue(id) {
            self.place_queue(queue, now_ms);
        }
        Submitted { job: id, existing: false }
    }

    pub(crate) fn on_kill(
        &mut self,
        id: JobId,
        by: String,
        grace_ms: Option<u64>,
        now_ms: i64,
    ) -> Result<(), Rejection> {
        let job = self.live(id)?;
        let Some((run, agent)) = job.run.zip(job.agent.clone()).filter(|_| is_placed(job.status)) else {
            self.cancel_waiting(id, format!("canceled by {by} before it started"), now_ms);
            return Ok(());
        };
        self.job_mut(id).kill = Some(KillWish { by: by.clone(), grace_ms, at_ms: now_ms });
        self.act(Action::Kill { agent, run, grace_ms, by });
        Ok(())
    }

    pub(crate) fn on_cancel(&mut self, id: JobId, by: &str, now_ms: i64) -> Result<(), Rejection> {
        self.must_wait(id, "canceled")?;
        self.cancel_waiting(id, format!("canceled by {by} before it started"), now_ms);
        Ok(())
    }

    pub(crate) fn on_hold(&mut self, id: JobId) -> Result<(), Rejection> {
        self.must_wait(id, "held")?;
        if self.job_mut(id).status == Status::Queued {
            self.dequeue(id);
            self.set_job_status(id, Status::Held, false);
        }
        Ok(())
    }

    pub(crate) fn on_release(&mut self, id: JobId, now_ms: i64) -> Result<(), Rejection> {
        let status = self.live(id)?.status;
        if status != Status::Held {
            return Err(Rejection::NotHeld { job: id, status });
        }
        self.set_job_status(id, Status::Queued, false);
        let queue = self.jobs[&id].queue;
        if self.enqueue(id) {
            self.place_queue(queue, now_ms);
        }
        Ok(())
    }

    /// A job without a run is over.
    pub(crate) fn cancel_waiting(&mut self, id: JobId, reason: String, now_ms: i64) {
        if self.jobs[&id].record.status == Status::Queued {
            self.dequeue(id);
        }
        let queue = self.jobs[&id].queue;
        self.queue_mut(queue).waiting -= 1;
        self.set_job_status(id, Status::Canceled, false);
        let job = self.job_mut(id);
        job.reason = Some(reason);
        job.ended_at_ms = Some(now_ms);
    }

    fn live(&self, id: JobId) -> Result<&JobRecord, Rejection> {
        let job = self.jobs.get(&id).map(|job| &job.record).ok_or(Rejection::NoSuchJob(id))?;
        if job.status.is_final() {
            return Err(Rejection::AlreadyFinal { job: id, status: job.status });
        }
        Ok(job)
    }

    fn must_wait(&self, id: JobId, verb: &'static str) -> Result<(), Rejection> {
        let job = self.live(id)?;
        if is_placed(job.status) {
            let agent = job.agent.clone().unwrap_or_default();
            return Err(Rejection::AlreadyPlaced { job: id, status: job.status, agent, verb });
        }
        Ok(())
    }
}

/// With an agent: it has a run that is not over.
fn is_placed(status: Status) -> bool {
    matches!(status, Status::Dispatched | Status::Running | Status::Suspended)
}

/// Whether two requests with the same idempotency key ask for the same thing. Who asks does not matter.
fn is_same_request(one: &JobSpec, other: &JobSpec) -> bool {
    one == &JobSpec { submitted_by: one.submitted_by.clone(), ..other.clone() }
}

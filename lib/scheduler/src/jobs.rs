//! Commands about jobs.

use crate::engine::{Engine, is_placed};
use crate::input::{Action, Change, Over, Submitted};
use crate::rejection::Rejection;
use crate::stand::Stand;
use crate::{JobRecord, JobSpec, KillWish, Wait};
use job::{JobId, Status};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Engine {
    /// What is not over, or has a part in this step, stays. So does everything while a restore waits for what agents have to tell.
    pub(crate) fn on_forget(&mut self, jobs: Vec<Over>) {
        if self.recovering.is_some() {
            return;
        }
        for Over { job, status, runs } in jobs {
            let present = self.jobs.contains_key(&job)
                || self.recalled.contains_key(&job)
                || runs.iter().any(|run| self.runs.contains_key(run));
            if status.is_final() && !present {
                self.counts.sub(status);
                self.write(Change::JobDeleted(job));
            }
        }
    }

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
            spec.check_settings().map_err(Rejection::BadSettings)?;
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
        let mut record = JobRecord::new(id, Arc::new(spec), now_ms);
        let until_ms = record.due_at_ms();
        record.wait = (until_ms > now_ms).then_some(Wait::Start { until_ms });
        record.status = match (record.spec.held, record.wait.is_some()) {
            (true, _) => Status::Held,
            (false, true) => Status::Scheduled,
            (false, false) => Status::Queued,
        };
        let status = record.status;
        self.insert_job(record, queue);
        if status == Status::Scheduled {
            self.due.insert((until_ms, id));
        }
        if status == Status::Queued && self.enqueue(id) {
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
            self.cancel_waiting(id, &by, now_ms);
            return Ok(());
        };
        self.forget_pause(id); // what stands still goes on to end
        self.job_mut(id).kill = Some(KillWish { by: by.clone(), grace_ms, at_ms: now_ms });
        self.act(Action::Kill { agent, run, grace_ms, by });
        Ok(())
    }

    pub(crate) fn on_cancel(&mut self, id: JobId, by: &str, now_ms: i64) -> Result<(), Rejection> {
        self.must_wait(id, "canceled")?;
        self.cancel_waiting(id, by, now_ms);
        Ok(())
    }

    pub(crate) fn on_hold(&mut self, id: JobId) -> Result<(), Rejection> {
        self.must_wait(id, "held")?;
        let wait = self.jobs[&id].record.wait;
        self.stand(id, Stand::Held(wait));
        Ok(())
    }

    pub(crate) fn on_release(&mut self, id: JobId, now_ms: i64) -> Result<(), Rejection> {
        let status = self.live(id)?.status;
        if status != Status::Held {
            return Err(Rejection::NotHeld { job: id, status });
        }
        let job = &self.jobs[&id];
        let (wait, queue) = (job.record.wait, job.queue);
        let waits = wait.filter(|wait| wait.until_ms().is_none_or(|until_ms| until_ms > now_ms));
        if self.stand(id, waits.map_or(Stand::Queued, Stand::Waiting)) {
            self.place_queue(queue, now_ms);
        }
        Ok(())
    }

    /// A job without a run is over.
    pub(crate) fn cancel_waiting(&mut self, id: JobId, by: &str, now_ms: i64) {
        let job = self.job_mut(id);
        let before = job.previous.filter(|_| job.tries > 0).zip(job.reason.take());
        job.reason = Some(match before {
            Some((_, before)) => format!("canceled by {by} before its next attempt; {before}"),
            None => format!("canceled by {by} before it started"),
        });
        job.ended_at_ms = Some(now_ms);
        self.stand(id, Stand::Over(Status::Canceled));
    }

    pub(crate) fn live(&self, id: JobId) -> Result<&JobRecord, Rejection> {
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

/// Whether two requests with the same idempotency key ask for the same thing. Who asks does not matter.
fn is_same_request(one: &JobSpec, other: &JobSpec) -> bool {
    one == &JobSpec { submitted_by: one.submitted_by.clone(), ..other.clone() }
}

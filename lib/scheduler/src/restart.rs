//! An operator's word about a job: do it again, give it up.

use crate::engine::{Engine, Job, QueueIx, Write, is_placed};
use crate::input::Restart;
use crate::rejection::Rejection;
use crate::stand::Stand;
use crate::{JobRecord, Wait};
use job::{JobId, RestartSafe, Status, Witness};
use std::sync::Arc;

impl Engine {
    pub(crate) fn on_restart(&mut self, restart: Restart, now_ms: i64) -> Result<(), Rejection> {
        let id = restart.job;
        let record = self.jobs.get(&id).map(|job| &job.record).or_else(|| self.recalled.get(&id));
        let record = record.ok_or(Rejection::NoSuchJob(id))?;
        check_restart(record, &restart)?;
        let queue = self.find_queue(&record.spec.queue)?;
        self.revive(id, queue);
        let why = restart.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let job = self.job_mut(id);
        let wait = job.wait.filter(|_| !job.status.is_final());
        if job.status.is_final() {
            job.tries = 0;
        }
        job.kill = None;
        job.ended_at_ms = None;
        job.reason = Some(format!("restarted by {}{why}", restart.by));
        // A pause or a decision is over with this word.
        let wait = wait.filter(|wait| matches!(wait, Wait::Start { .. }));
        let to = if restart.hold { Stand::Held(wait) } else { Stand::Queued };
        if self.stand(id, to) {
            self.place_queue(queue, now_ms);
        }
        Ok(())
    }

    /// A job that was recalled is in memory for good.
    pub(crate) fn revive(&mut self, id: JobId, queue: QueueIx) {
        let Some(record) = self.recalled.remove(&id) else { return };
        if let Some(key) = &record.spec.idempotency_key {
            self.keys.insert(key.clone(), (id, Arc::clone(&record.spec)));
        }
        let told = Some(record.status);
        self.jobs.insert(id, Job::new(record, queue, Write::Clean, told));
    }

    pub(crate) fn on_abandon(
        &mut self,
        id: JobId,
        by: &str,
        reason: &str,
        now_ms: i64,
    ) -> Result<(), Rejection> {
        let job = self.live(id)?;
        if reason.trim().is_empty() {
            return Err(Rejection::NoReason);
        }
        let (status, placed) = (job.status, job.run.filter(|_| is_placed(job.status)));
        let agent = job.agent.clone().unwrap_or_default();
        let there =
            |name: &str| self.agent_names.get(name).is_some_and(|ix| self.agents[ix].session.is_some());
        if placed.is_some() && there(&agent) {
            return Err(Rejection::AgentPresent { job: id, status, agent });
        }
        let reason = format!("abandoned by {by}: {reason}");
        let freed = placed.and_then(|run| {
            let agent = self.end_run(run, Status::Abandoned, now_ms);
            let record = self.run_mut(run);
            record.reason = Some(reason.clone());
            record.witness = Some(Witness::None);
            agent
        });
        let job = self.job_mut(id);
        job.reason = Some(reason);
        job.ended_at_ms = Some(now_ms);
        job.previous = placed.map(|_| Status::Abandoned).or(job.previous);
        let queue = self.jobs[&id].queue;
        let look = self.stand(id, Stand::Over(Status::Abandoned));
        if let Some(agent) = freed {
            self.place_agent(agent, now_ms);
        }
        if look {
            self.place_queue(queue, now_ms);
        }
        Ok(())
    }
}

/// Whether it can be restarted like this.
fn check_restart(job: &JobRecord, restart: &Restart) -> Result<(), Rejection> {
    let status = job.status;
    if !status.is_final() {
        let waits = matches!(job.wait, Some(Wait::Decision | Wait::Retry { .. }));
        return if waits { Ok(()) } else { Err(Rejection::NotOver { job: job.id, status }) };
    }
    let reason = restart.reason.as_deref().unwrap_or_default().trim();
    if restart.force && reason.is_empty() {
        return Err(Rejection::NoReason);
    }
    let safe = job.spec.policy.restart_safe != RestartSafe::NeverTwice || !may_have_executed(job);
    if safe || restart.force { Ok(()) } else { Err(Rejection::NeverTwice { job: job.id, status }) }
}

/// Whether any attempt of a job that is over may have executed.
fn may_have_executed(job: &JobRecord) -> bool {
    match job.previous {
        None | Some(Status::Canceled) => false,
        // It could not be executed, and there was no attempt before.
        Some(Status::Error) if job.attempts <= 1 => job.exit_code.is_some() || job.signal.is_some(),
        Some(_) => true,
    }
}

//! What becomes of a job when one of its attempts is over, and when its time has come.
//!
//! `job::policy` decides; here it is done. A run that is over stays what it is: only its job goes on.

use crate::engine::Engine;
use crate::stand::Stand;
use crate::{Event, EventKind, JobRecord, Object, Wait};
use job::policy::Next;
use job::{JobId, OnUnknown, Outcome, RestartSafe, RunId, Status};

/// A clock that went back by more than this was set.
const CLOCK_BACK_MS: i64 = 1_000;

impl Engine {
    /// The attempt of a job is over with this outcome: the job is over with it, or goes on. Returns whether its queue may have
    /// something new to place.
    pub(crate) fn conclude(&mut self, id: JobId, outcome: &Outcome, ended_at_ms: i64, now_ms: i64) -> bool {
        let status = outcome.status();
        let job = self.job_mut(id);
        job.tries += 1;
        job.exit_code = outcome.exit_code();
        job.signal = outcome.signal();
        job.reason = outcome.reason();
        job.previous = Some(status);
        let policy = &job.spec.policy;
        let next = if job.kill.is_some() { Next::Over } else { policy.after(outcome, job.tries) };
        let escalate = status == Status::Unknown && policy.on_unknown == OnUnknown::Escalate;
        let held = job.status == Status::Held; // a late outcome found it so
        job.reason = reason_after(job, outcome, next, escalate, now_ms);
        let to = match next {
            Next::Over => Stand::Over(status),
            Next::Again { pause_ms: 0 } if !held => Stand::Queued,
            Next::Again { .. } | Next::Ask => {
                let wait = wait_for(next, now_ms);
                if held { Stand::Held(Some(wait)) } else { Stand::Waiting(wait) }
            }
        };
        if let Stand::Over(_) = to {
            job.ended_at_ms = Some(ended_at_ms);
        }
        if escalate || next == Next::Ask {
            self.escalate(id);
        }
        self.stand(id, to)
    }

    /// The true outcome of a run came after that run had been given up. If its job waits for a next attempt because of that, the
    /// truth decides again: a planned restart of what was completed does not happen.
    pub(crate) fn conclude_late(&mut self, run: RunId, outcome: &Outcome, ended_at_ms: i64, now_ms: i64) {
        let given_up = self.runs[&run].record.status;
        let id = self.runs[&run].record.job;
        let Some(job) = self.jobs.get(&id).map(|job| &job.record) else { return };
        let waits = matches!(job.status, Status::Held | Status::Queued | Status::Waiting);
        if job.run != Some(run) || !waits || !matches!(given_up, Status::Unknown | Status::Abandoned) {
            return;
        }
        let job = self.job_mut(id);
        job.tries = job.tries.saturating_sub(1); // it is the same attempt
        let queue = self.jobs[&id].queue;
        if self.conclude(id, outcome, ended_at_ms, now_ms) {
            self.place_queue(queue, now_ms);
        }
    }

    fn escalate(&mut self, id: JobId) {
        let job = &self.jobs[&id].record;
        let reason = job.reason.as_deref().unwrap_or_default().to_owned();
        let (name, queue) = (job.spec.name.clone(), job.spec.queue.clone());
        self.warn(format!("escalation: job {id} ({name}): {reason}"));
        self.tell(Event::new(EventKind::JobEscalated, Object::Job(id), reason).in_queue(&queue));
    }

    /// Time passed: what is due goes to its queue.
    pub(crate) fn on_due(&mut self, now_ms: i64) {
        if now_ms < self.seen_ms.saturating_sub(CLOCK_BACK_MS) {
            self.shorten_pauses(now_ms);
        }
        self.seen_ms = now_ms;
        while let Some(&(_, id)) = self.due.first().filter(|(until_ms, _)| *until_ms <= now_ms) {
            let queue = self.jobs[&id].queue;
            if self.stand(id, Stand::Queued) {
                self.place_queue(queue, now_ms);
            }
        }
    }

    /// The clock was set back, perhaps while no server ran. A start time is meant by the clock; a pause or a delay must not get longer by it.
    fn shorten_pauses(&mut self, now_ms: i64) {
        let pauses: Vec<(i64, JobId)> = self.due.iter().copied().collect();
        for (until_ms, id) in pauses {
            let job = &self.jobs[&id].record;
            let latest = |span_ms: u64| now_ms.saturating_add(signed(span_ms)).min(until_ms);
            let wait = match (job.wait, &job.spec.policy.retry, job.spec.delay_ms) {
                (Some(Wait::Retry { .. }), Some(retry), _) => {
                    Wait::Retry { until_ms: latest(retry.pause_ms(job.tries)) }
                }
                (Some(Wait::Start { .. }), _, Some(delay_ms)) => Wait::Start { until_ms: latest(delay_ms) },
                (Some(Wait::Retry { .. } | Wait::Start { .. } | Wait::Decision) | None, _, _) => continue,
            };
            if job.wait != Some(wait) {
                self.stand(id, Stand::Waiting(wait));
            }
        }
    }
}

/// How a job waits for what comes next.
fn wait_for(next: Next, now_ms: i64) -> Wait {
    match next {
        Next::Again { pause_ms } => Wait::Retry { until_ms: now_ms.saturating_add(signed(pause_ms)) },
        Next::Ask | Next::Over => Wait::Decision,
    }
}

/// What people read beside the job's status after an attempt.
fn reason_after(
    job: &JobRecord,
    outcome: &Outcome,
    next: Next,
    escalate: bool,
    now_ms: i64,
) -> Option<String> {
    let own = outcome.reason();
    let policy = &job.spec.policy;
    let of = policy.retry.as_ref().map(|retry| format!(" of {}", retry.attempts_max)).unwrap_or_default();
    let attempt = || format!("attempt {}{of} ended {}", job.tries, how_it_ended(job, outcome));
    let mut text = match next {
        Next::Again { pause_ms: 0 } => format!("{}; the next one begins at once", attempt()),
        Next::Again { pause_ms } => {
            format!("{}; the next one begins at {}", attempt(), crate::why::time(now_ms + signed(pause_ms)))
        }
        Next::Ask => format!("{}; an operator has to decide whether it is executed again", attempt()),
        Next::Over
            if outcome.status() == Status::Unknown && policy.restart_safe == RestartSafe::NeverTwice =>
        {
            own.clone()?
        }
        Next::Over if job.tries > 1 && outcome.status() != Status::Completed => match &own {
            Some(own) => format!("{own}; it was attempt {}{of}", job.tries),
            None => format!("it was attempt {}{of}", job.tries),
        },
        Next::Over => own.clone()?,
    };
    if escalate {
        text.push_str("; escalated to the operators");
    }
    Some(text)
}

/// `Error (exit code 75)`.
fn how_it_ended(job: &JobRecord, outcome: &Outcome) -> String {
    let status = outcome.status();
    match (outcome.reason(), job.exit_code) {
        (Some(reason), _) => format!("{status} ({reason})"),
        (None, Some(code)) => format!("{status} (exit code {code})"),
        (None, None) => status.to_string(),
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

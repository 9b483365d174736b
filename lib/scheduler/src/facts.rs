//! What agents say about runs.

use crate::engine::{AgentIx, Engine, Run};
use crate::event::severity_of;
use crate::input::{Action, Change, FactIn};
use crate::stand::Stand;
use crate::{Event, EventKind, FactRecord, JobSpec, KeptFile, LateOutcome, Object, StrayRecord};
use job::{Never, Outcome, RunId, Status, Witness};
use protocol::message::{Captured, Ended, FactBody, RefusalKind};
use serde_json::json;

/// The first pause of an agent that had no room.
const PAUSE_MS_MIN: i64 = 5_000;
/// The longest.
const PAUSE_MS_MAX: i64 = 60_000;
/// A job that an agent took and that never started is placed again, up to this many times; a refusal for want of room does not count.
const NEVER_STARTED_ATTEMPTS_MAX: u32 = 3;

impl Engine {
    pub(crate) fn on_facts(&mut self, agent: &str, facts: Vec<FactIn>, now_ms: i64) {
        for fact in facts {
            let known = self.runs.get(&fact.run).map(|run| (run.record.agent == agent, run.record.acked_seq));
            match known {
                Some((true, acked)) if fact.seq == acked + 1 => self.on_next_fact(agent, fact, now_ms),
                Some((true, acked)) if fact.seq <= acked => self.on_known_fact(agent, &fact, acked, now_ms),
                Some((true, acked)) => {
                    let (seq, run) = (fact.seq, fact.run);
                    let reason = format!(
                        "message {seq} of run {run} came after message {acked}: those between are missing"
                    );
                    self.warn(format!("agent \"{agent}\": {reason}; not taken"));
                    self.act(Action::Resync { agent: agent.to_owned(), reason });
                    return;
                }
                Some((false, _)) => {
                    self.warn(format!(
                        "agent \"{agent}\" speaks about run {}, which was placed elsewhere",
                        fact.run
                    ));
                    self.on_stray(agent, fact, now_ms);
                }
                None => self.on_stray(agent, fact, now_ms),
            }
        }
    }

    /// It was stored before: only the acknowledgement was lost. If it is not what was stored, one of the two disks is damaged or one of the two
    /// went back in time, and nobody may take it for settled.
    fn on_known_fact(&mut self, agent: &str, fact: &FactIn, acked: u64, now_ms: i64) {
        let FactIn { run, seq, bytes, .. } = fact;
        let pending = || {
            self.out.changes.iter().rev().find_map(|change| {
                if let Change::FactInserted(known) = change
                    && (known.run, known.seq) == (*run, *seq)
                {
                    return Some(&known.bytes);
                }
                None
            })
        };
        let stored = fact.stored.as_ref().or_else(pending);
        if stored.is_none_or(|stored| stored == bytes) {
            return self.act(Action::Ack { agent: agent.to_owned(), run: *run, seq: acked });
        }
        let text = format!(
            "message {seq} of run {run} from agent \"{agent}\" is not the one that was stored under that number: the agent's disk \
             or this database is damaged, or went back in time. It is not acknowledged; `lastword job prove` shows both"
        );
        match self.agent_names.get(agent).copied() {
            Some(ix) => self.note_trouble(ix, EventKind::AgentTrouble, text, None, now_ms),
            None => self.warn(text),
        }
    }

    fn on_stray(&mut self, agent: &str, fact: FactIn, now_ms: i64) {
        self.owes_no_more(agent, fact.run);
        let FactIn { run, seq, bytes, .. } = fact;
        let fact = FactRecord { run, seq, received_at_ms: now_ms, commit: 0, committed_at_ms: None, bytes };
        self.write(Change::StrayInserted(StrayRecord { agent: agent.to_owned(), fact }));
        self.act(Action::Ack { agent: agent.to_owned(), run, seq });
    }

    fn on_next_fact(&mut self, agent: &str, fact: FactIn, now_ms: i64) {
        let FactIn { run, seq, bytes, fact, .. } = fact;
        self.run_mut(run).acked_seq = seq;
        self.write(Change::FactInserted(FactRecord {
            run,
            seq,
            received_at_ms: now_ms,
            commit: 0,
            committed_at_ms: None,
            bytes,
        }));
        self.act(Action::Ack { agent: agent.to_owned(), run, seq });
        let fact = match fact {
            Ok(fact) => fact,
            Err(e) => {
                let text = format!(
                    "message {seq} of run {run} from agent \"{agent}\" is stored and cannot be read: {e}"
                );
                self.tell(Event::new(EventKind::Damage, Object::Agent(agent.to_owned()), text.clone()));
                self.warn(text);
                return;
            }
        };
        match fact.body {
            Some(FactBody::Accepted(_)) => self.on_accepted(agent, run, fact.at_ms.unwrap_or(now_ms)),
            Some(FactBody::Started(_)) => self.on_started(run, fact.at_ms.unwrap_or(now_ms)),
            Some(FactBody::Ended(ended)) => self.on_ended(run, seq, &ended, fact.at_ms, now_ms),
            Some(FactBody::Suspended(_)) => self.on_paused(run, true),
            Some(FactBody::Resumed(_)) => self.on_paused(run, false),
            Some(FactBody::Captured(file)) => self.on_file_kept(run, file, fact.at_ms),
            // The outcome itself says who wanted the end; these are for people.
            Some(FactBody::Stopping(_) | FactBody::Note(_)) | None => {}
        }
    }

    fn on_file_kept(&mut self, run: RunId, file: Captured, kept_at_ms: Option<i64>) {
        let record = &self.runs[&run].record;
        let kept = KeptFile {
            run,
            name: file.name,
            job: record.job,
            agent: record.agent.clone(),
            bytes: file.bytes.unwrap_or(0),
            sha256: file.sha256,
            kept_at_ms,
        };
        self.write(Change::FileKept(kept));
    }

    fn on_accepted(&mut self, agent: &str, run: RunId, at_ms: i64) {
        self.run_mut(run).accepted_at_ms.get_or_insert(at_ms);
        if let Some(ix) = self.agent_names.get(agent).copied() {
            self.agent_mut(ix).pause_ms = 0;
        }
    }

    fn on_started(&mut self, run: RunId, at_ms: i64) {
        let record = self.run_mut(run);
        record.started_at_ms.get_or_insert(at_ms);
        let job = record.job;
        if record.status == Status::Dispatched && self.set_run_status(run, Status::Running) {
            self.job_mut(job).started_at_ms = Some(at_ms);
            self.set_job_status(job, Status::Running);
        }
    }

    fn on_ended(&mut self, run: RunId, seq: u64, ended: &Ended, at_ms: Option<i64>, now_ms: i64) {
        let outcome = Outcome::try_from(ended).unwrap_or_else(|e| Outcome::Unknown {
            reason: format!("the agent's record of its end cannot be read: {e}"),
        });
        let record = self.run_mut(run);
        if !record.status.is_final() {
            match outcome {
                Outcome::NeverStarted { reason, why: Never::NoRoom } => {
                    let agent = record.agent.clone();
                    self.pause(&agent, now_ms);
                    self.hand_back(run, format!("agent \"{agent}\" had no room: {reason}"));
                }
                // It never executed, so it can safely be placed again; but what never starts anywhere has to end.
                Outcome::NeverStarted { reason, why: Never::Failed }
                    if self.unstarted(run) < NEVER_STARTED_ATTEMPTS_MAX =>
                {
                    self.give_back(run, format!("never started: {reason}"), now_ms);
                }
                outcome @ (Outcome::NeverStarted { .. }
                | Outcome::Ended { .. }
                | Outcome::CannotExecute { .. }
                | Outcome::Unknown { .. }) => self.finish(run, &outcome, at_ms.unwrap_or(now_ms), now_ms),
            }
            return;
        }
        let told = (record.status, record.exit_code, record.signal);
        let same = told == (outcome.status(), outcome.exit_code(), outcome.signal());
        if !same && record.late.is_none() {
            let (status, late) = (record.status, outcome.status());
            let job = record.job;
            let truth = outcome.clone();
            record.late = Some(LateOutcome { outcome, ended_at_ms: at_ms, received_at_ms: now_ms, seq });
            let text =
                format!("run {run} was {status}; its true outcome came late: {late}. It is shown beside");
            let data =
                json!({"run_id": run.to_string(), "status": status.name(), "late_status": late.name()});
            self.tell(Event::new(EventKind::RunLateOutcome, Object::Job(job), text.clone()).with(data));
            self.warn(text);
            self.conclude_late(run, &truth, at_ms.unwrap_or(now_ms), now_ms);
        }
    }

    /// How many attempts of the run's job were taken by an agent and came to nothing, this one included.
    fn unstarted(&self, run: RunId) -> u32 {
        let record = &self.runs[&run].record;
        let others = self.jobs.get(&record.job).map_or(0, |job| job.record.refusals + job.record.tries);
        record.attempt.saturating_sub(others)
    }

    /// The run is over; what becomes of its job is decided by the job's policy.
    pub(crate) fn finish(&mut self, run: RunId, outcome: &Outcome, ended_at_ms: i64, now_ms: i64) {
        let status = outcome.status();
        let Some(agent_ix) = self.end_run(run, status, ended_at_ms) else { return };
        let record = self.run_mut(run);
        record.exit_code = outcome.exit_code();
        record.signal = outcome.signal();
        record.witness = Some(outcome.witness());
        record.reason = outcome.reason();
        if let Outcome::Ended { end, usage, .. } = outcome {
            record.core = matches!(end, job::End::Signaled { core: true, .. });
            record.usage = usage.unwrap_or_default();
        }
        let job = record.job;
        let data = json!({"run_id": run.to_string(), "attempt": record.attempt, "agent": record.agent, "status": status.name(),
            "exit_code": record.exit_code, "signal": record.signal, "reason": record.reason,
            "witness": outcome.witness().to_string(), "cpu_ms": record.usage.cpu_ms, "max_rss_kib": record.usage.max_rss_kib});
        let text = format!(
            "attempt {} on {}: {status}, witness {}",
            record.attempt,
            record.agent,
            outcome.witness()
        );
        let queue = self.jobs[&job].queue;
        let event =
            Event::new(EventKind::RunOutcome, Object::Job(job), text).with(data).grave(severity_of(status));
        self.tell(event.in_queue(&self.queues[&queue].record.name.clone()));
        self.forget_pause(job);
        let look = self.conclude(job, outcome, ended_at_ms, now_ms);
        self.place_agent(agent_ix, now_ms);
        if look {
            self.place_queue(queue, now_ms);
        }
    }

    /// The run is over without ever having executed: its job goes back to its queue, or is over if somebody wants that.
    fn give_back(&mut self, run: RunId, reason: String, now_ms: i64) {
        let Some(agent_ix) = self.end_run(run, Status::Canceled, now_ms) else { return };
        let record = self.run_mut(run);
        record.reason = Some(reason.clone());
        record.witness = Some(Witness::None);
        let job = record.job;
        let queue = self.jobs[&job].queue;
        let record = self.job_mut(job);
        record.previous.get_or_insert(Status::Canceled);
        (record.reason, record.started_at_ms) = (Some(reason), None);
        let wish = record.kill.clone();
        let mut look = self.stand(job, Stand::Queued);
        if let Some(wish) = wish {
            self.cancel_waiting(job, &wish.by, now_ms);
            look = true; // whatever is first now
        }
        if look {
            self.place_queue(queue, now_ms);
        }
        self.place_agent(agent_ix, now_ms); // its slot is free, for whichever job is first now
    }

    /// Frees the slot; returns whose it was.
    pub(crate) fn end_run(&mut self, run: RunId, status: Status, ended_at_ms: i64) -> Option<AgentIx> {
        if !self.set_run_status(run, status) {
            return None;
        }
        let record = self.run_mut(run);
        record.ended_at_ms = Some(ended_at_ms);
        let name = record.agent.clone();
        let ix = *self.agent_names.get(&name)?;
        self.agent_mut(ix).runs.remove(&run);
        Some(ix)
    }

    pub(crate) fn on_refused(
        &mut self,
        agent: &str,
        session: u64,
        run: RunId,
        kind: RefusalKind,
        reason: &str,
        now_ms: i64,
    ) {
        self.owes_no_more(agent, run);
        if !self.is_open(agent, session, run) {
            return;
        }
        if kind == RefusalKind::Damaged {
            let reason = format!("its record was damaged: {reason}");
            return self.finish(run, &Outcome::Unknown { reason }, now_ms, now_ms);
        }
        if self.runs[&run].record.accepted_at_ms.is_some() {
            self.warn(format!(
                "agent \"{agent}\" refuses run {run}, which it had accepted: {reason}; left as it is"
            ));
            return;
        }
        match kind {
            RefusalKind::NoRoom => {
                self.pause(agent, now_ms);
                self.hand_back(run, format!("agent \"{agent}\" had no room: {reason}"));
            }
            RefusalKind::Fenced | RefusalKind::Unspecified => {
                self.tell(Event::new(EventKind::ServerFenced, Object::Agent(agent.to_owned()), reason));
                self.act(Action::Fenced { agent: agent.to_owned(), reason: reason.to_owned() });
            }
            RefusalKind::Expired | RefusalKind::Damaged => {
                let reason = format!("agent \"{agent}\" cannot tell whether it ran: {reason}");
                self.finish(run, &Outcome::Unknown { reason }, now_ms, now_ms);
            }
            RefusalKind::Invalid => {
                let reason = format!("never started: agent \"{agent}\" cannot run it: {reason}");
                self.finish(run, &Outcome::NeverStarted { reason, why: Never::Failed }, now_ms, now_ms);
            }
        }
    }

    pub(crate) fn on_no_record(&mut self, agent: &str, session: u64, run: RunId, now_ms: i64) {
        if !self.is_open(agent, session, run) {
            return;
        }
        if self.runs[&run].record.accepted_at_ms.is_none() {
            self.order_again(run);
            return;
        }
        let reason = format!("agent \"{agent}\" has no record of a run that it had accepted");
        self.finish(run, &Outcome::Unknown { reason }, now_ms, now_ms);
    }

    /// Says again what the agent is to do with a run that it does not have.
    pub(crate) fn order_again(&mut self, run: RunId) {
        let record = &self.runs[&run].record;
        let job = &self.jobs[&record.job].record;
        let agent = record.agent.clone();
        if job.kill.is_none()
            && let Some(reason) = self.too_old(&agent, &job.spec)
        {
            // It came back as an older one than the run was placed on.
            return self.hand_back(run, reason);
        }
        let action = match &job.kill {
            Some(wish) => Action::Kill { agent, run, grace_ms: wish.grace_ms, by: wish.by.clone() },
            None => Action::Start { agent, run, spec: Box::new(job.run_spec(record.attempt)) },
        };
        self.act(action);
    }

    /// An agent did not take a run, or had no room to start it: that does not count as an attempt that came to nothing.
    fn hand_back(&mut self, run: RunId, reason: String) {
        let job = self.runs[&run].record.job;
        self.job_mut(job).refusals += 1;
        self.give_back(run, reason, self.now_ms);
    }

    /// Why that agent cannot honour all that the job asks for, if it cannot.
    pub(crate) fn too_old(&self, agent: &str, spec: &JobSpec) -> Option<String> {
        let speaks = self.agents.get(self.agent_names.get(agent)?)?.protocol;
        let needs = spec.needs();
        let what = needs.beyond(speaks)?;
        let version = needs.version;
        Some(format!(
            "agent \"{agent}\" speaks protocol {speaks}, and {what} needs {version}: upgrade the agent"
        ))
    }

    /// Whether the word of this session about this run counts: it is the agent's present session, and the run is there and not over.
    fn is_open(&self, agent: &str, session: u64, run: RunId) -> bool {
        let present = self.agent_names.get(agent).is_some_and(|ix| self.agents[ix].session == Some(session));
        let open = |run: &Run| run.record.agent == agent && !run.record.status.is_final();
        present && self.runs.get(&run).is_some_and(open)
    }

    fn pause(&mut self, name: &str, now_ms: i64) {
        let Some(&ix) = self.agent_names.get(name) else { return };
        let agent = self.agent_mut(ix);
        if agent.paused_until_ms.is_some_and(|until| until > now_ms) {
            return; // several refusals of one moment are one
        }
        agent.pause_ms = (agent.pause_ms * 2).clamp(PAUSE_MS_MIN, PAUSE_MS_MAX);
        let until = now_ms + agent.pause_ms;
        let before = agent.paused_until_ms.replace(until);
        if let Some(before) = before {
            self.paused.remove(&(before, ix));
        }
        self.paused.insert((until, ix));
    }

    pub(crate) fn on_tick(&mut self, now_ms: i64) {
        self.on_due(now_ms);
        // A wall clock that was set back must not prolong a pause.
        while let Some(&(until, ix)) = self.paused.last().filter(|(until, _)| *until > now_ms + PAUSE_MS_MAX)
        {
            self.paused.remove(&(until, ix));
            self.paused.insert((now_ms, ix));
            self.agent_mut(ix).paused_until_ms = Some(now_ms);
        }
        while let Some(&(until, ix)) = self.paused.first().filter(|(until, _)| *until <= now_ms) {
            self.paused.remove(&(until, ix));
            self.agent_mut(ix).paused_until_ms = None;
            self.place_agent(ix, now_ms);
        }
    }
}

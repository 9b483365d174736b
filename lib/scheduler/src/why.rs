//! One sentence why a job is not running yet, naming the blocker.

use crate::engine::{Agent, Engine, Queue};
use crate::{FailedProof, JobRecord, Wait};
use job::{JobId, RunId, Status};
use std::cmp::Reverse;

impl Engine {
    /// Why the job does not run, or where it does. `None` if it is over or unknown: the record tells.
    pub fn why(&self, id: JobId, now_ms: i64) -> Option<String> {
        let job = self.jobs.get(&id)?;
        let record = &job.record;
        let text = match record.status {
            Status::Held => why_held(record),
            Status::Scheduled | Status::Waiting => why_waiting(record),
            Status::Queued => {
                let blocker = self.why_queued(record, &self.queues[&job.queue], now_ms);
                match &record.reason {
                    Some(reason) => format!("{blocker}; before that, {reason}"),
                    None => blocker,
                }
            }
            Status::Dispatched => self.why_dispatched(record) + &wishes(record),
            Status::Running => {
                let since = record.started_at_ms.map(|at| format!(" since {}", time(at))).unwrap_or_default();
                self.why_placed(record, "runs", &since) + &wishes(record)
            }
            // Since when is in its events, not in its record.
            Status::Suspended if record.pause.is_some() => {
                self.why_placed(record, "is suspended", "") + &wishes(record)
            }
            Status::Suspended => {
                let resume = format!("; `lastword job resume {id}` lets it go on");
                self.why_placed(record, "is suspended", "") + &resume + &wishes(record)
            }
            Status::Completed
            | Status::Error
            | Status::Killed
            | Status::Canceled
            | Status::Unknown
            | Status::Abandoned => return None,
        };
        Some(text)
    }

    fn why_queued(&self, job: &JobRecord, queue: &Queue, now_ms: i64) -> String {
        if let Some(text) = self.why_kept_back(job.id) {
            return text;
        }
        let name = &queue.record.name;
        if queue.record.held {
            return format!("queue \"{name}\" is held; `lastword queue release {name}` lets it go on");
        }
        if queue.record.slots == Some(0) {
            return format!(
                "queue \"{name}\" has no slots; `lastword queue set {name} --slots N` gives it some"
            );
        }
        if let Some(slots) = queue.record.slots.filter(|_| queue.is_full()) {
            let runs = queue.agents.iter().flat_map(|ix| &self.agents[ix].runs);
            let own = runs.filter(|run| {
                let job = self.runs.get(run).and_then(|run| self.jobs.get(&run.record.job));
                job.is_some_and(|job| job.record.spec.queue == *name)
            });
            return format!(
                "all {slots} slots of queue \"{name}\" are taken{}{}; `lastword queue set {name} --slots N` changes that",
                self.longest(own),
                before(job, queue)
            );
        }
        if let Some(pin) = &job.spec.agent {
            let Some(ix) = self.agent_names.get(pin) else {
                return format!("it may only run on agent \"{pin}\", which was removed");
            };
            if !queue.agents.contains(ix) {
                return format!(
                    "it may only run on agent \"{pin}\", which is not attached to queue \"{name}\"; \
                     `lastword queue attach {name} {pin}` does that"
                );
            }
            let blocker = self.why_not_on(&self.agents[ix], job, now_ms);
            return blocker.map_or_else(|| why_next(job, queue), |blocker| blocker + &before(job, queue));
        }
        if queue.agents.is_empty() {
            return format!(
                "no process server is attached to queue \"{name}\"; `lastword queue attach {name} AGENT` does that"
            );
        }
        let agents: Vec<&Agent> = queue.agents.iter().map(|ix| &self.agents[ix]).collect();
        let blocker = self.why_on_none(&agents, job, queue, now_ms);
        blocker.map_or_else(|| why_next(job, queue), |blocker| blocker + &before(job, queue))
    }

    /// Why none of the agents of a queue takes it; `None` if one could.
    fn why_on_none(&self, agents: &[&Agent], job: &JobRecord, queue: &Queue, now_ms: i64) -> Option<String> {
        if let [agent] = agents {
            return self.why_not_on(agent, job, now_ms);
        }
        let needs = job.spec.needs();
        if agents.iter().any(|agent| agent.is_free(now_ms) && agent.protocol >= needs.version) {
            return None;
        }
        let name = &queue.record.name;
        let connected: Vec<&&Agent> = agents.iter().filter(|agent| agent.session.is_some()).collect();
        if connected.is_empty() {
            let names = names(agents);
            return Some(format!(
                "none of the {} process servers of queue \"{name}\" is connected: {names}",
                agents.len()
            ));
        }
        let known: Vec<&&Agent> =
            connected.iter().copied().filter(|agent| agent.protocol >= needs.version).collect();
        if known.is_empty() {
            return Some(format!(
                "none of the {} connected process servers of queue \"{name}\" speaks protocol {}, which {} needs: upgrade one of them",
                connected.len(),
                needs.version,
                needs.what.join(", ")
            ));
        }
        let willing: Vec<&&&Agent> = known.iter().filter(|agent| agent.used() < agent.record.slots).collect();
        if willing.is_empty() {
            let slots: u64 = known.iter().map(|agent| u64::from(agent.record.slots)).sum();
            let away = match agents.len() - connected.len() {
                0 => String::new(),
                away => format!(", and {away} more are not connected"),
            };
            let runs = known.iter().flat_map(|agent| &agent.runs);
            let old = match connected.len() - known.len() {
                0 => String::new(),
                old => format!(", and {old} more are too old for the job's {}", needs.what.join(", ")),
            };
            return Some(format!(
                "all {slots} slots of the {} connected process servers of queue \"{name}\" are taken{away}{old}{}",
                known.len(),
                self.longest(runs)
            ));
        }
        let refusals: Vec<_> =
            willing.iter().filter_map(|agent| self.why_not_on(agent, job, now_ms)).collect();
        Some(refusals.join("; "))
    }

    /// Why this agent does not take the job; `None` if it could.
    fn why_not_on(&self, agent: &Agent, job: &JobRecord, now_ms: i64) -> Option<String> {
        let name = &agent.record.name;
        if agent.session.is_none() {
            let trouble = agent.record.trouble.as_ref();
            let trouble =
                trouble.map(|trouble| format!("; trouble with it: {}", trouble.text)).unwrap_or_default();
            return Some(format!("agent \"{name}\" is not connected{}{trouble}", absence(agent)));
        }
        if let Some(reason) = self.too_old(name, &job.spec) {
            return Some(reason);
        }
        if let Some(drain) = &agent.record.drain {
            let reason = if drain.reason.is_empty() { String::new() } else { format!(" ({})", drain.reason) };
            return Some(format!(
                "agent \"{name}\" is drained by {} since {}{reason}; `lastword agent resume {name}` lets it take runs again",
                drain.by,
                time(drain.at_ms)
            ));
        }
        if !agent.refusing.is_empty() {
            return Some(format!("agent \"{name}\" refuses new runs: {}", agent.refusing));
        }
        if agent.record.slots == 0 {
            return Some(format!(
                "agent \"{name}\" has no slots; `lastword agent set {name} --slots N` gives it some"
            ));
        }
        if agent.record.slots <= agent.used() {
            let slots = agent.record.slots;
            return Some(format!(
                "all {slots} slots of agent \"{name}\" are taken{}",
                self.longest(agent.runs.iter())
            ));
        }
        let until = agent.paused_until_ms.filter(|until| *until > now_ms)?;
        Some(format!("agent \"{name}\" had no room and is asked again at {}", time(until)))
    }

    /// Which of these runs is there longest.
    fn longest<'a>(&self, runs: impl Iterator<Item = &'a RunId>) -> String {
        let records = runs.filter_map(|run| self.runs.get(run)).map(|run| &run.record);
        match records.min_by_key(|run| (run.placed_at_ms, run.job)) {
            Some(run) => format!(", by job {} since {} the longest", run.job, time(run.placed_at_ms)),
            None => String::new(),
        }
    }

    fn why_dispatched(&self, job: &JobRecord) -> String {
        let Some((name, agent)) = self.where_it_is(job) else { return "it is dispatched".to_owned() };
        if agent.session.is_none() {
            return format!("it is dispatched to agent \"{name}\", which is not connected{}", absence(agent));
        }
        let accepted = job.run.and_then(|run| self.runs.get(&run)).and_then(|run| run.record.accepted_at_ms);
        match accepted {
            Some(at) => format!("agent \"{name}\" accepted it at {} and is about to start it", time(at)),
            None if self.holds_back(job.id) => self.why_kept_back(job.id).unwrap_or_default(),
            None => {
                let run = job.run.and_then(|run| self.runs.get(&run));
                let since =
                    run.map(|run| format!(" since {}", time(run.record.placed_at_ms))).unwrap_or_default();
                format!("it is dispatched to agent \"{name}\", which has not accepted it yet{since}")
            }
        }
    }

    /// `what`: it runs, it is suspended; `since`: since when, if that is known.
    fn why_placed(&self, job: &JobRecord, what: &str, since: &str) -> String {
        match self.where_it_is(job) {
            Some((name, agent)) if agent.session.is_none() => format!(
                "it {what} on agent \"{name}\"{since}, as far as is known: the agent is not connected{}; it will tell how the job ends",
                absence(agent)
            ),
            Some((name, _)) => format!("it {what} on agent \"{name}\"{since}"),
            None => format!("it {what}{since}"),
        }
    }

    fn where_it_is<'a>(&'a self, job: &'a JobRecord) -> Option<(&'a str, &'a Agent)> {
        let name = job.agent.as_deref()?;
        Some((name, self.agents.get(self.agent_names.get(name)?)?))
    }
}

fn why_held(job: &JobRecord) -> String {
    let release = format!("it is held; `lastword job release {}` lets it go on", job.id);
    match job.wait {
        Some(Wait::Start { until_ms }) => format!("{release}; it does not start before {}", time(until_ms)),
        Some(Wait::Retry { .. } | Wait::Decision) => format!("{release}; before that, {}", reason_of(job)),
        None => release,
    }
}

fn why_waiting(job: &JobRecord) -> String {
    let id = job.id;
    match job.wait {
        Some(Wait::Start { until_ms }) => {
            format!("it was submitted for {}: that time has not come", time(until_ms))
        }
        Some(Wait::Retry { until_ms }) => {
            let now =
                format!("`lastword job restart {id}` begins it now, `lastword job cancel {id}` ends the job");
            format!("it pauses until {} before its next attempt: {}; {now}", time(until_ms), reason_of(job))
        }
        Some(Wait::Decision) => format!(
            "it waits for an operator's decision: {}; `lastword job restart {id}` executes it again, `lastword job cancel {id}` or \
             `lastword job abandon {id} --reason TEXT` ends it",
            reason_of(job)
        ),
        None => "it waits".to_owned(),
    }
}

fn reason_of(job: &JobRecord) -> &str {
    job.reason.as_deref().unwrap_or("no reason is on record")
}

/// Who wants it to end, to stand still or to go on, which its agent has not confirmed.
fn wishes(job: &JobRecord) -> String {
    let unconfirmed = |by: &str, what: &str, at_ms: i64| {
        format!("; {by} asked {what} at {}, which its agent has not confirmed", time(at_ms))
    };
    match (&job.kill, &job.pause) {
        (Some(kill), _) => unconfirmed(&kill.by, "for its end", kill.at_ms),
        (None, Some(wish)) if wish.suspend => unconfirmed(&wish.by, "that it stands still", wish.at_ms),
        (None, Some(wish)) => unconfirmed(&wish.by, "that it goes on", wish.at_ms),
        (None, None) => String::new(),
    }
}

/// Nothing else blocks it.
fn why_next(job: &JobRecord, queue: &Queue) -> String {
    match ahead(job, queue) {
        (0, _) => "it is about to be placed".to_owned(),
        (_, text) => text,
    }
}

/// The jobs that go first, as the end of a sentence.
fn before(job: &JobRecord, queue: &Queue) -> String {
    match ahead(job, queue) {
        (0, _) => String::new(),
        (_, text) => format!(", and {text}"),
    }
}

/// How many jobs of its queue go first, and the sentence.
fn ahead(job: &JobRecord, queue: &Queue) -> (usize, String) {
    let own = (Reverse(job.spec.priority), job.id);
    let line = match &job.spec.agent {
        None => Some(&queue.unpinned),
        Some(agent) => queue.pinned.get(agent),
    };
    let first = line.map(|line| line.before(own, AHEAD_MAX + 1)).unwrap_or_default();
    let higher = first.iter().filter(|key| key.0 < own.0).count();
    let many = |n: usize| if n > AHEAD_MAX { format!("more than {AHEAD_MAX}") } else { n.to_string() };
    let (count, verb) = (first.len(), if first.len() == 1 { "job is" } else { "jobs are" });
    let higher =
        if higher == 0 { String::new() } else { format!(", {} of them by a higher priority", many(higher)) };
    (count, format!("{} {verb} before it in queue \"{}\"{higher}", many(count), queue.record.name))
}

fn absence(agent: &Agent) -> String {
    let since = match (agent.record.disconnected_at_ms, agent.record.connected_at_ms) {
        (Some(at), _) if agent.record.stopped => {
            format!(" since {}, when it was stopped on purpose", time(at))
        }
        (Some(at), _) => format!(" since {}", time(at)),
        (None, Some(_)) => " since this server started".to_owned(),
        (None, None) => " and never was".to_owned(),
    };
    let failed = agent.failed_proof.as_ref().map(|failed| {
        let FailedProof { at_ms, address, reason } = failed;
        format!("; the last try at {} {} {address} failed: {reason}", time(*at_ms), agent.way())
    });
    since + &failed.unwrap_or_default()
}

fn names(agents: &[&Agent]) -> String {
    let shown = |agent: &&Agent| match &agent.failed_proof {
        Some(failed) => format!("{} (its tries fail: {})", agent.record.name, failed.reason),
        None => agent.record.name.clone(),
    };
    let mut names: Vec<_> = agents.iter().map(shown).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let list = names.join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

/// So many jobs before another one are counted.
const AHEAD_MAX: usize = 10_000;
/// So many names are listed in a sentence.
const NAMES_MAX: usize = 5;

pub(crate) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|t| format!("{t:.3}")).unwrap_or_else(|_| format!("{ms} ms"))
}

//! One sentence why a job is not running yet, naming the blocker.

use crate::JobRecord;
use crate::engine::{Agent, Engine, Queue};
use job::{JobId, Status};

impl Engine {
    /// Why the job does not run, or where it does. `None` if it is over or unknown: the record tells.
    pub fn why(&self, id: JobId, now_ms: i64) -> Option<String> {
        let job = self.jobs.get(&id)?;
        let record = &job.record;
        let text = match record.status {
            Status::Held => format!("it is held; `lastword job release {id}` lets it go on"),
            Status::Scheduled => "its time has not come".to_owned(),
            Status::Waiting => "it waits before it goes to its queue again".to_owned(),
            Status::Queued => {
                let blocker = self.why_queued(record, &self.queues[&job.queue], now_ms);
                match &record.reason {
                    Some(reason) => format!("{blocker}; before that, {reason}"),
                    None => blocker,
                }
            }
            Status::Dispatched => self.why_dispatched(record),
            Status::Running | Status::Suspended => self.why_running(record),
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
        let name = &queue.record.name;
        if queue.record.held {
            return format!("queue \"{name}\" is held; `lastword queue release {name}` lets it go on");
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
            return self.why_not_on(&self.agents[ix], now_ms).unwrap_or_else(|| self.why_next(job, queue));
        }
        if queue.agents.is_empty() {
            return format!(
                "no process server is attached to queue \"{name}\"; `lastword queue attach {name} AGENT` does that"
            );
        }
        let agents: Vec<&Agent> = queue.agents.iter().map(|ix| &self.agents[ix]).collect();
        self.why_on_none(&agents, queue, now_ms).unwrap_or_else(|| self.why_next(job, queue))
    }

    /// Why none of the agents of a queue takes it; `None` if one could.
    fn why_on_none(&self, agents: &[&Agent], queue: &Queue, now_ms: i64) -> Option<String> {
        if let [agent] = agents {
            return self.why_not_on(agent, now_ms);
        }
        if agents.iter().any(|agent| agent.is_free(now_ms)) {
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
        let willing: Vec<&&&Agent> =
            connected.iter().filter(|agent| agent.used() < agent.record.slots).collect();
        if willing.is_empty() {
            let slots: u64 = connected.iter().map(|agent| u64::from(agent.record.slots)).sum();
            let away = match agents.len() - connected.len() {
                0 => String::new(),
                away => format!(", and {away} more are not connected"),
            };
            return Some(format!(
                "all {slots} slots of the {} connected process servers of queue \"{name}\" are taken{away}",
                connected.len()
            ));
        }
        let refusals: Vec<_> = willing.iter().filter_map(|agent| self.why_not_on(agent, now_ms)).collect();
        Some(refusals.join("; "))
    }

    /// Why this agent takes no run; `None` if it could.
    fn why_not_on(&self, agent: &Agent, now_ms: i64) -> Option<String> {
        let name = &agent.record.name;
        if agent.session.is_none() {
            return Some(format!("agent \"{name}\" is not connected{}", absence(agent)));
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
        if agent.record.slots <= agent.used() {
            return Some(format!("all {} slots of agent \"{name}\" are taken", agent.record.slots));
        }
        let until = agent.paused_until_ms.filter(|until| *until > now_ms)?;
        Some(format!("agent \"{name}\" had no room and is asked again at {}", time(until)))
    }

    /// Nothing blocks it.
    fn why_next(&self, job: &JobRecord, queue: &Queue) -> String {
        match queue.head {
            Some((_, head)) if head != job.id && job.spec.agent.is_none() => {
                format!("job {head} is before it in queue \"{}\"", queue.record.name)
            }
            Some(_) | None => "it is about to be placed".to_owned(),
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
            None => format!("it is dispatched to agent \"{name}\", which has not accepted it yet"),
        }
    }

    fn why_running(&self, job: &JobRecord) -> String {
        let since = job.started_at_ms.map(|at| format!(" since {}", time(at))).unwrap_or_default();
        match self.where_it_is(job) {
            Some((name, agent)) if agent.session.is_none() => format!(
                "it runs on agent \"{name}\"{since}, as far as is known: the agent is not connected{}; it will tell how the job ends",
                absence(agent)
            ),
            Some((name, _)) => format!("it runs on agent \"{name}\"{since}"),
            None => format!("it runs{since}"),
        }
    }

    fn where_it_is<'a>(&'a self, job: &'a JobRecord) -> Option<(&'a str, &'a Agent)> {
        let name = job.agent.as_deref()?;
        Some((name, self.agents.get(self.agent_names.get(name)?)?))
    }
}

fn absence(agent: &Agent) -> String {
    match (agent.record.disconnected_at_ms, agent.record.connected_at_ms) {
        (Some(at), _) if agent.record.stopped => {
            format!(" since {}, when it was stopped on purpose", time(at))
        }
        (Some(at), _) => format!(" since {}", time(at)),
        (None, Some(_)) => " since this server started".to_owned(),
        (None, None) => " and never was".to_owned(),
    }
}

fn names(agents: &[&Agent]) -> String {
    let mut names: Vec<_> = agents.iter().map(|agent| agent.record.name.as_str()).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let list = names.join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

/// So many names are listed in a sentence.
const NAMES_MAX: usize = 5;

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|t| format!("{t:.3}")).unwrap_or_else(|_| format!("{ms} ms"))
}

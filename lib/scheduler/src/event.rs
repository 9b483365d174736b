//! Events: what happened, told to whoever follows. Each is a [`Change`] of the batch that made it true, so nobody is told of
//! something that was not committed, and nothing that was committed goes untold.
//!
//! To tell of something from inside the engine is one line:
//! `self.tell(Event::new(EventKind::QueueHeld, Object::Queue(name), "nothing is taken from it any more"));`
//! The status of a job needs none: [`Engine::take`] tells of every job whose status is another one than last time. A status that was
//! passed through inside one batch was never committed, and is not told.

use crate::JobRecord;
use crate::engine::Engine;
use crate::input::Change;
use job::{JobId, Status};
use serde_json::{Map, Value, json};
use std::fmt;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A job.
    Job(JobId),
    /// An agent.
    Agent(String),
    /// A queue.
    Queue(String),
    /// The server itself.
    Server,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Job(id) => write!(f, "job/{id}"),
            Object::Agent(name) => write!(f, "agent/{name}"),
            Object::Queue(name) => write!(f, "queue/{name}"),
            Object::Server => f.write_str("server"),
        }
    }
}

impl std::str::FromStr for Object {
    type Err = String;
    fn from_str(text: &str) -> Result<Object, String> {
        let named = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
        let object = match text.split_once('/') {
            Some(("job", id)) => id.parse().ok().map(|id| Object::Job(JobId(id))),
            Some(("agent", name)) => named(name).map(Object::Agent),
            Some(("queue", name)) => named(name).map(Object::Queue),
            None if text == "server" => Some(Object::Server),
            Some(_) | None => None,
        };
        object.ok_or_else(|| {
            format!("\"{text}\" names nothing; write job/1042, agent/NAME, queue/NAME or server")
        })
    }
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Somebody should look at it some time.
    Warning,
    /// Somebody should look at it now.
    Error,
}

impl Severity {
    /// All, the least first.
    pub const ALL: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Error];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// The kinds of events, each with its stable name: the part before the dot is its family.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal, $severity:ident;)+) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl EventKind {
            /// All of them.
            pub const ALL: &[EventKind] = &[$(EventKind::$kind),+];

            /// Its name, which never changes.
            pub fn name(self) -> &'static str {
                match self { $(EventKind::$kind => $name),+ }
            }

            /// How much it matters if nothing else is said.
            pub fn severity(self) -> Severity {
                match self { $(EventKind::$kind => Severity::$severity),+ }
            }
        }
    };
}

kinds! {
    /// A job has another status, or is new.
    JobStatus = "job.status", Info;
    /// Somebody has to decide about a job.
    JobEscalated = "job.escalated", Error;
    /// A run has its outcome.
    RunOutcome = "run.outcome", Info;
    /// The true outcome of a run came after it had been given up as Unknown.
    RunLateOutcome = "run.late-outcome", Warning;
    /// An agent was made known.
    AgentAdded = "agent.added", Info;
    /// An agent was removed.
    AgentRemoved = "agent.removed", Info;
    /// Somebody changed an agent.
    AgentChanged = "agent.changed", Info;
    /// An agent has a link.
    AgentConnected = "agent.connected", Info;
    /// An agent's link broke.
    AgentLost = "agent.lost", Warning;
    /// An agent was stopped on purpose.
    AgentStopped = "agent.stopped", Info;
    /// An agent was not let in.
    AgentRefused = "agent.refused", Error;
    /// Somebody does not prove to be the agent, for the first time since the agent connected.
    AgentUnproven = "agent.unproven", Warning;
    /// Two hosts use one identity.
    AgentTwoIdentities = "agent.two-identities", Error;
    /// An agent's data root or record is not what it should be: it went back in time, or a message of it changed.
    AgentTrouble = "agent.trouble", Error;
    /// An agent takes no new runs, and says why.
    AgentRefusing = "agent.refusing", Warning;
    /// An agent takes runs again.
    AgentTaking = "agent.taking", Info;
    /// An agent is being drained: it gets no new runs.
    AgentDraining = "agent.draining", Info;
    /// The draining of an agent is over: it gets runs again.
    AgentResumed = "agent.resumed", Info;
    /// A queue was created.
    QueueCreated = "queue.created", Info;
    /// A queue was removed.
    QueueRemoved = "queue.removed", Info;
    /// Somebody changed a queue.
    QueueChanged = "queue.changed", Info;
    /// Nothing is taken from a queue any more.
    QueueHeld = "queue.held", Info;
    /// Things are taken from a queue again.
    QueueReleased = "queue.released", Info;
    /// The server was started.
    ServerStarted = "server.started", Info;
    /// An agent obeys another server.
    ServerFenced = "server.fenced", Error;
    /// There is too little room on the server's disk.
    DiskLow = "disk.low", Error;
    /// There is room on the server's disk again.
    DiskEnough = "disk.enough", Info;
    /// A file that was kept of a job is in the server's file store.
    FileStored = "file.stored", Info;
    /// A file that was kept of a job cannot be had any more.
    FileLost = "file.lost", Warning;
    /// The file store has lost a file; it is fetched again, if its agent has it still.
    FileMissing = "file.missing", Warning;
    /// The file store cannot be used: files stay with their agents.
    FileStoreAway = "file.store-away", Warning;
    /// The file store can be used again.
    FileStoreBack = "file.store-back", Info;
    /// A record is damaged.
    Damage = "damage.found", Error;
}

impl EventKind {
    /// The kind of that name.
    pub fn of_name(name: &str) -> Option<EventKind> {
        EventKind::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The part of its name before the dot.
    pub fn family(self) -> &'static str {
        self.name().split('.').next().unwrap_or_default()
    }
}

/// Something that happened, before it has its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// To what.
    pub object: Object,
    /// The queue that it concerns, so that a queue can be followed.
    pub queue: Option<String>,
    /// For people, without the object.
    pub text: String,
    /// For machines: a JSON object.
    pub data: Map<String, Value>,
}

impl Event {
    /// An event with the severity of its kind and no data.
    pub fn new(kind: EventKind, object: Object, text: impl Into<String>) -> Event {
        let queue = match &object {
            Object::Queue(name) => Some(name.clone()),
            Object::Job(_) | Object::Agent(_) | Object::Server => None,
        };
        Event { kind, severity: kind.severity(), object, queue, text: text.into(), data: Map::new() }
    }

    /// With these data; what is no JSON object is none.
    pub fn with(self, data: Value) -> Event {
        match data {
            Value::Object(data) => Event { data, ..self },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => self,
        }
    }

    /// As grave as this.
    pub fn grave(self, severity: Severity) -> Event {
        Event { severity, ..self }
    }

    /// Followed with this queue.
    pub fn in_queue(self, queue: &str) -> Event {
        Event { queue: Some(queue.to_owned()), ..self }
    }
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Counts from 1, without a gap.
    pub number: u64,
    /// When, the server's wall clock.
    pub at_ms: i64,
    /// What happened.
    pub event: Event,
}

/// A selection of events. What is empty selects everything; of several words one is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of these kinds or families: `job.status`, `agent`.
    pub kinds: Vec<String>,
    /// About these jobs.
    pub jobs: Vec<JobId>,
    /// Of these queues and their jobs.
    pub queues: Vec<String>,
    /// About these objects.
    pub objects: Vec<Object>,
}

impl EventFilter {
    /// Whether the event is among them.
    pub fn takes(&self, event: &Event) -> bool {
        let (kind, family) = (event.kind.name(), event.kind.family());
        let of_kind = |wanted: &String| wanted == kind || wanted == family;
        let of_job = |wanted: &JobId| event.object == Object::Job(*wanted);
        (self.kinds.is_empty() || self.kinds.iter().any(of_kind))
            && (self.jobs.is_empty() || self.jobs.iter().any(of_job))
            && (self.queues.is_empty() || self.queues.iter().any(|queue| event.queue.as_ref() == Some(queue)))
            && (self.objects.is_empty() || self.objects.contains(&event.object))
    }
}

impl Engine {
    /// Something happened outside the engine.
    pub fn happened(&mut self, event: Event, now_ms: i64) {
        self.now_ms = now_ms;
        self.tell(event);
    }

    /// Tells whoever follows: the event is stored with the next batch. Its moment is that of the latest input.
    pub(crate) fn tell(&mut self, event: Event) {
        self.last_event += 1;
        let record = EventRecord { number: self.last_event, at_ms: self.now_ms, event };
        self.out.changes.push(Change::Event(record));
    }
}

/// A job has another status.
pub(crate) fn of_status(job: &JobRecord) -> Event {
    let place = job.agent.as_ref().map(|agent| format!(" on {agent}")).unwrap_or_default();
    let reason = job.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let text = match job.exit_code {
        Some(code) => format!("{}{place}, exit code {code}{reason}", job.status),
        None => format!("{}{place}{reason}", job.status),
    };
    let data = json!({"status": job.status.name(), "name": job.spec.name, "queue": job.spec.queue, "agent": job.agent,
        "attempt": job.attempts, "exit_code": job.exit_code, "signal": job.signal, "reason": job.reason});
    Event::new(EventKind::JobStatus, Object::Job(job.id), text)
        .in_queue(&job.spec.queue)
        .grave(severity_of(job.status))
        .with(data)
}

/// How much it matters that something came to this status.
pub(crate) fn severity_of(status: Status) -> Severity {
    match status {
        Status::Unknown => Severity::Error,
        Status::Error | Status::Abandoned => Severity::Warning,
        Status::Scheduled
        | Status::Held
        | Status::Queued
        | Status::Waiting
        | Status::Dispatched
        | Status::Running
        | Status::Suspended
        | Status::Completed
        | Status::Killed
        | Status::Canceled => Severity::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kinds_are_unique_and_have_a_family() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::of_name(kind.name()), Some(*kind));
            assert!(kind.name().starts_with(&format!("{}.", kind.family())), "{kind:?}");
        }
    }

    #[test]
    fn objects_are_written_and_read() {
        for object in
            [Object::Job(JobId(7)), Object::Agent("a".into()), Object::Queue("q".into()), Object::Server]
        {
            assert_eq!(object.to_string().parse(), Ok(object));
        }
        for wrong in ["", "job/", "job/x", "agent/", "thing/1"] {
            assert!(wrong.parse::<Object>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_filter_takes_what_fits_each_of_its_parts() {
        let event = Event::new(EventKind::JobStatus, Object::Job(JobId(7)), "").in_queue("q");
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let with = |kinds: &[&str], jobs: &[u64], queues: &[&str]| EventFilter {
            kinds: own(kinds),
            jobs: jobs.iter().copied().map(JobId).collect(),
            queues: own(queues),
            objects: Vec::new(),
        };
        for fits in
            [with(&[], &[], &[]), with(&["job"], &[6, 7], &["q"]), with(&["agent", "job.status"], &[], &[])]
        {
            assert!(fits.takes(&event), "{fits:?}");
        }
        for other in [with(&["jo"], &[], &[]), with(&[], &[8], &[]), with(&["job"], &[7], &["r"])] {
            assert!(!other.takes(&event), "{other:?}");
        }
    }
}

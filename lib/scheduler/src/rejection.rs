//! Why a command cannot be done, in words that say what to do instead.

use job::{JobId, RunId, Status};
use protocol::Malformed;

/// Why a command cannot be done. The text says what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such job among those that are not final.
    #[error("there is no job {0}")]
    NoSuchJob(JobId),
    /// No such queue.
    #[error("there is no queue \"{0}\"; create it with `lastword queue create {0}`")]
    NoSuchQueue(String),
    /// No such agent.
    #[error("there is no agent \"{0}\"; see `lastword agent list`")]
    NoSuchAgent(String),
    /// That name is taken.
    #[error("there is already {0} \"{1}\"")]
    NameTaken(&'static str, String),
    /// Not a name.
    #[error(
        "\"{1}\" cannot be the name of {0}: 1 to 64 letters, digits, dots, hyphens and underscores are allowed, the first a letter or digit"
    )]
    BadName(&'static str, String),
    /// The job is over.
    #[error("job {job} is already over: {status}")]
    AlreadyFinal {
        /// Which.
        job: JobId,
        /// How it ended.
        status: Status,
    },
    /// The job was given to an agent already.
    #[error(
        "job {job} is {status} on agent \"{agent}\" and cannot be {verb}; `lastword job kill {job}` ends it"
    )]
    AlreadyPlaced {
        /// Which.
        job: JobId,
        /// Where it stands.
        status: Status,
        /// Where it is.
        agent: String,
        /// What was asked for ("held", "canceled").
        verb: &'static str,
    },
    /// Only a running job can be suspended.
    #[error("job {job} is {status}, not running; only a running job can be suspended")]
    NotRunning {
        /// Which.
        job: JobId,
        /// Where it stands.
        status: Status,
    },
    /// Only a suspended job can be resumed.
    #[error("job {job} is {status}, not suspended")]
    NotSuspended {
        /// Which.
        job: JobId,
        /// Where it stands.
        status: Status,
    },
    /// It is being killed.
    #[error("job {job} is being killed and cannot be suspended")]
    AboutToEnd {
        /// Which.
        job: JobId,
    },
    /// The run does not fit into what is known.
    #[error("run {0} does not fit into what is known of its job; its messages are kept as strays")]
    NotAdopted(RunId),
    /// Only a held job can be released.
    #[error("job {job} is {status}, not held")]
    NotHeld {
        /// Which.
        job: JobId,
        /// Where it stands.
        status: Status,
    },
    /// Only what is over, or waits for it, can be restarted.
    #[error(
        "job {job} is {status}: only a job that is over, or waits for its next attempt, can be restarted"
    )]
    NotOver {
        /// Which.
        job: JobId,
        /// Where it stands.
        status: Status,
    },
    /// It may have been executed, and must not be executed twice.
    #[error(
        "job {job} is {status} and may have been executed, and its setting is restart_safe = never_twice; `lastword job restart {job} --force --reason TEXT` executes it again all the same"
    )]
    NeverTwice {
        /// Which.
        job: JobId,
        /// How it ended.
        status: Status,
    },
    /// What is done against the rules needs a reason.
    #[error("a reason is needed for this: `--reason TEXT`")]
    NoReason,
    /// A job whose agent is there is not given up.
    #[error(
        "job {job} is {status} on agent \"{agent}\", which is connected: `lastword job kill {job}` ends it; only a job whose agent is away can be abandoned"
    )]
    AgentPresent {
        /// Which.
        job: JobId,
        /// Where it stands.
        status: Status,
        /// Where it is.
        agent: String,
    },
    /// The settings contradict each other, or a name cannot be used.
    #[error("the job cannot be accepted: {0}")]
    BadSettings(String),
    /// The spec cannot be run anywhere.
    #[error("the job cannot be accepted: {0}")]
    BadSpec(Malformed),
    /// The same key for something else.
    #[error("idempotency key \"{key}\" belongs to job {job}, which was another request")]
    KeyReused {
        /// The key.
        key: String,
        /// Its job.
        job: JobId,
    },
    /// The same key for two different jobs of one request.
    #[error("idempotency key \"{0}\" stands at two different jobs of this request")]
    KeyTwice(String),
    /// The queue has jobs.
    #[error("queue \"{queue}\" still has {jobs} jobs that are not over; kill them or wait for them")]
    QueueInUse {
        /// Which.
        queue: String,
        /// How many.
        jobs: u64,
    },
    /// The agent has runs.
    #[error(
        "agent \"{agent}\" still has {runs} runs; wait for them, kill them, or remove it by force: then they become Unknown"
    )]
    AgentInUse {
        /// Which.
        agent: String,
        /// How many.
        runs: u64,
    },
    /// A number is out of its range.
    #[error("{what} must be {range}")]
    OutOfRange {
        /// Which.
        what: &'static str,
        /// What is allowed.
        range: String,
    },
}

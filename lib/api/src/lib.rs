//! The types of the REST interface, shared by the server and the command line client.
//!
//! Requests refuse unknown fields; answers may grow fields, so a client ignores what it does not know. Durations are texts
//! such as `1h30m` ([`Span`]), times are RFC 3339 in UTC with milliseconds ([`Time`]). Texts are UTF-8, as JSON demands: a command
//! or a script that is not UTF-8 cannot be submitted here; wrap it in a script on the host.

#![forbid(unsafe_code)]

mod access;
mod agent;
mod job;
mod operate;
mod policy;
mod proof;
mod queue;
mod record;
mod server;
mod span;
mod status;
mod time;

pub use ::job::Status;

pub use ::job::span::ParseSpanError;
pub use access::{Token, TokenList, TokenMade, TokenNew, User, UserAdd, UserList};
pub use agent::{
    Agent, AgentAdd, AgentChange, AgentDrain, AgentDrainRequest, AgentFailedProof, AgentList, Ping,
};
pub use job::{
    BATCH_JOBS_MAX, BatchSubmit, Counts, FileState, Gathering, Job, JobFile, JobFiles, JobList, JobSubmit,
    JobSubmitted, JobSummary, Kill, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, LateOutcome, Run, Why,
};
pub use operate::{
    Backup, BackupList, BackupMake, Check, Finding, Operation, OperationList, Progress, Recovery,
    SUPPORT_LINES_MAX, SupportBundleMake,
};
pub use policy::{Factor, JobAbandon, JobRestart, RestartPolicy, Retry, RetryOn, UnknownPolicy};
pub use proof::{Proof, RunProof, Step, View};
pub use queue::{Attachment, Queue, QueueChange, QueueCreate, QueueList};
pub use record::{Audit, AuditList, Event, EventList};
pub use server::{FilesStatus, Health, Problem, ServerStatus};
pub use span::Span;
pub use status::JobStatus;
pub use time::Time;

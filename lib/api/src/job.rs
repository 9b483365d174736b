//! Jobs and their runs.

use crate::{JobStatus, RestartPolicy, Retry, Span, Time, UnknownPolicy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// At most this many jobs in one batch.
pub const BATCH_JOBS_MAX: usize = 10_000;
/// At most this many jobs in one page of a list.
pub const LIST_LIMIT_MAX: u32 = 1_000;
/// So many jobs are in a page where nobody said otherwise.
pub const LIST_LIMIT_DEFAULT: u32 = 100;

/// A request to run something once. Exactly one of `command` and `script` says what; with `script`, `command` holds its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobSubmit {
    /// Program and arguments; no shell is involved. With `script`: the script's arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["/bin/true"]))]
    pub command: Vec<String>,
    /// The text of a script to run instead of a program; its first line may name the interpreter (`#!`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// A name for people; made from the command if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The queue to wait in; `default` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Run on this agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Run as this user of the host; the agent's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Working directory (absolute); the run's own private directory if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// File mode mask of its process, octal; the agent's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "027")]
    pub umask: Option<String>,
    /// Niceness of its process, -20 to 19; the agent's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// Resource limits of its process by name (`nofile`, `as`, `core`, `cpu`, …): `SOFT` or `SOFT:HARD`, numbers or `unlimited`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"nofile": "1024:4096", "core": "0"}))]
    pub limits: BTreeMap<String, String>,
    /// Environment variables beyond the standard ones.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Parameters, which the job finds as `LASTWORD_PARAM_<NAME>`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// How much each of its two output files may hold, and what happens beyond: `10M`, `10M:keep-ends`, `10M:kill`, `10M:truncate`; the
    /// agent's own limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<String>,
    /// What becomes of processes that it leaves behind: `kill` (if absent), `wait` or `ignore`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<String>,
    /// Files to keep after its end: patterns, relative to the working directory or absolute, with `*`, `?` and `**`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["report/*.pdf"]))]
    pub capture: Vec<String>,
    /// End it after this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Between the soft signal and SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// Higher goes first; 0 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Start out held: it does not run before it is released.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Start it at this time, not before; a time in the past is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Time>,
    /// Start it this long after its submission, not before; not beside `start_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// Whether, when and how often a failed attempt is repeated; never if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What is done when nobody can say how an attempt ended; `none` if absent. `restart` needs `restart_safe` to allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<UnknownPolicy>,
    /// Whether it may be executed a second time if the first may have executed; `never_twice` if absent. With `ask` an
    /// operator decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_safe: Option<RestartPolicy>,
    /// A second request with the same key creates nothing and answers with the first one's job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// Many jobs in one transaction: all are created or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchSubmit {
    /// At most 10,000.
    pub jobs: Vec<JobSubmit>,
}

/// The numbers of the jobs of a batch, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobSubmitted {
    /// The jobs' numbers.
    pub ids: Vec<u64>,
}

/// A job with all its runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// Its name for people.
    pub name: String,
    /// Where it stands.
    pub status: JobStatus,
    /// The queue it waits or waited in.
    pub queue: String,
    /// The agent of its latest run, else the one it is bound to.
    pub agent: Option<String>,
    /// The exit code of its last run, if that exited by itself.
    pub exit_code: Option<u8>,
    /// The signal that ended its last run, if one did.
    pub signal: Option<u8>,
    /// It was ended because its time was over.
    pub timed_out: bool,
    /// Why it is in this status, where that needs a reason.
    pub reason: Option<String>,
    /// When it was submitted.
    pub submitted_at: Time,
    /// When its latest run started.
    pub started_at: Option<Time>,
    /// When its last run ended.
    pub ended_at: Option<Time>,
    /// Its attempts, first to last.
    pub runs: Vec<Run>,
    /// Its parameters.
    pub params: BTreeMap<String, String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The script's text, if it is one.
    pub script: Option<String>,
    /// The user it runs as; the agent's own if absent.
    pub user: Option<String>,
    /// Its working directory, if one was asked for.
    pub cwd: Option<String>,
    /// File mode mask of its process, octal, if one was asked for.
    pub umask: Option<String>,
    /// Niceness of its process, if one was asked for.
    pub nice: Option<i32>,
    /// Resource limits of its process that were asked for.
    pub limits: BTreeMap<String, String>,
    /// Environment variables beyond the standard ones.
    pub env: BTreeMap<String, String>,
    /// How much each of its two output files may hold, if it said so.
    #[serde(default)]
    pub output_limit: Option<String>,
    /// What becomes of processes that it leaves behind.
    #[serde(default)]
    pub leftovers: Option<String>,
    /// Patterns of files to keep after its end.
    #[serde(default)]
    pub capture: Vec<String>,
    /// It is ended after this long.
    pub timeout: Option<Span>,
    /// Between the soft signal and SIGKILL.
    pub grace: Option<Span>,
    /// Higher goes first.
    pub priority: i32,
    /// Who submitted it.
    pub submitted_by: String,
    /// The key under which it was submitted, if any.
    pub idempotency_key: Option<String>,
    /// Somebody wants it to end; stays until it has.
    pub kill_requested_by: Option<String>,
    /// What it waits for beside a slot: `start` (its time), `retry` (the pause before its next attempt), `decision` (an operator's).
    #[serde(default)]
    pub waits_for: Option<String>,
    /// When that is over by itself.
    #[serde(default)]
    pub waits_until: Option<Time>,
    /// It does not start before this time, if one was asked for.
    #[serde(default)]
    pub start_at: Option<Time>,
    /// How failed attempts are repeated, if they are.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// What is done when nobody can say how an attempt ended.
    #[serde(default)]
    pub on_unknown: UnknownPolicy,
    /// Whether it may be executed a second time if the first may have executed.
    #[serde(default)]
    pub restart_safe: RestartPolicy,
    /// Somebody wants it to stand still; stays until it does.
    #[serde(default)]
    pub suspend_requested_by: Option<String>,
    /// Somebody wants it to go on; stays until it does.
    #[serde(default)]
    pub resume_requested_by: Option<String>,
}

/// One attempt at a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Its identifier, a UUIDv7.
    pub run_id: String,
    /// 1 for the first.
    pub attempt: u32,
    /// The agent it was placed on.
    pub agent: String,
    /// Where it stands.
    pub status: JobStatus,
    /// Its exit code, if it exited by itself.
    pub exit_code: Option<u8>,
    /// The signal that ended it, if one did.
    pub signal: Option<u8>,
    /// Who saw its end: `job-processor`, `monitor`, `pidfd` or `none`.
    pub witness: Option<String>,
    /// Why it is in this status, where that needs a reason.
    pub reason: Option<String>,
    /// When it was placed on its agent (the server's clock).
    pub placed_at: Option<Time>,
    /// When its process started (the agent's clock).
    pub started_at: Option<Time>,
    /// When its process ended (the agent's clock).
    pub ended_at: Option<Time>,
    /// CPU time of its processes, milliseconds: of all of them where the run had a control group, else of the main process and the
    /// children that it waited for.
    pub cpu_ms: Option<u64>,
    /// Of that, in user mode, milliseconds.
    #[serde(default)]
    pub user_ms: Option<u64>,
    /// Of that, in the kernel, milliseconds.
    #[serde(default)]
    pub system_ms: Option<u64>,
    /// Peak resident set of its largest process, KiB.
    pub max_rss_kib: Option<u64>,
    /// The most memory that its processes had together, KiB; where the host counts it.
    #[serde(default)]
    pub memory_peak_kib: Option<u64>,
    /// Bytes read from devices.
    #[serde(default)]
    pub read_bytes: Option<u64>,
    /// Bytes written to devices.
    #[serde(default)]
    pub written_bytes: Option<u64>,
    /// Processes of it that the kernel killed for want of memory; where the host counts them.
    #[serde(default)]
    pub oom_kills: Option<u64>,
    /// Context switches of the main process and the children that it waited for.
    #[serde(default)]
    pub context_switches: Option<u64>,
    /// The most processes that it had at once; where the host counts them.
    #[serde(default)]
    pub processes_peak: Option<u64>,
    /// The true outcome that arrived after the run had been given up as Unknown. It does not change the status.
    pub late_outcome: Option<LateOutcome>,
}

/// A true outcome that came too late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LateOutcome {
    /// The status it would have given the run.
    pub status: JobStatus,
    /// The exit code, if it exited by itself.
    pub exit_code: Option<u8>,
    /// The signal that ended it, if one did.
    pub signal: Option<u8>,
    /// What there is to say about it.
    pub reason: Option<String>,
}

/// The files that were kept of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobFiles {
    /// Of which attempt.
    pub attempt: u32,
    /// By name.
    pub items: Vec<JobFile>,
}

/// A file that was kept of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobFile {
    /// The path below the working directory, or the absolute path without its first slash.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
    /// When it was kept (the agent's clock).
    pub kept_at: Option<Time>,
    /// Where it is.
    #[serde(default)]
    pub state: FileState,
    /// When it came into the server's file store, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_at: Option<Time>,
    /// Why it is lost or removed, or why it was not fetched yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where a file is that was kept of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileState {
    /// With the agent that kept it; it can be read while that is connected.
    #[default]
    WithAgent,
    /// In the server's file store.
    Stored,
    /// Nowhere, as far as is known: neither its agent nor the file store can give it.
    Lost,
    /// Nowhere: retention has removed it from the file store.
    Removed,
}

impl FileState {
    /// Whether somebody can give it, perhaps later.
    pub fn may_be_read(self) -> bool {
        matches!(self, FileState::WithAgent | FileState::Stored)
    }

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            FileState::WithAgent => "with the agent",
            FileState::Stored => "stored",
            FileState::Lost => "lost",
            FileState::Removed => "removed",
        }
    }
}

/// A job in a list: without its runs and what it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobSummary {
    /// Its number.
    pub id: u64,
    /// Its name for people.
    pub name: String,
    /// Where it stands.
    pub status: JobStatus,
    /// The queue it waits or waited in.
    pub queue: String,
    /// The agent of its latest run, else the one it is bound to.
    pub agent: Option<String>,
    /// The exit code of its last run, if that exited by itself.
    pub exit_code: Option<u8>,
    /// The signal that ended its last run, if one did.
    pub signal: Option<u8>,
    /// Why it is in this status, where that needs a reason.
    pub reason: Option<String>,
    /// When it was submitted.
    pub submitted_at: Time,
    /// When its latest run started.
    pub started_at: Option<Time>,
    /// When its last run ended.
    pub ended_at: Option<Time>,
}

/// A page of jobs, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// The jobs.
    pub items: Vec<JobSummary>,
    /// Ask again with this as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// How many jobs there are in each status, in the order of a job's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"Queued": 3, "Running": 1, "Completed": 1042}), value_type = BTreeMap<String, u64>)]
pub struct Counts(pub BTreeMap<JobStatus, u64>);

/// How a job is to be ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kill {
    /// Between the soft signal and SIGKILL; the job's own if absent, 0 for SIGKILL at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
}

/// What keeps a job from running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The job's number.
    pub id: u64,
    /// Where it stands.
    pub status: JobStatus,
    /// One sentence that names the blocker.
    pub why: String,
}

//! Of runs: what to run, and the durable facts that stand in logs and databases.

use prost::{Enumeration, Message, Oneof};

/// What to run: travels in [`Start`](super::Start) and stands in the head of the run's log.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunSpec {
    /// The job's number.
    #[prost(uint64, optional, tag = "1")]
    pub job_id: Option<u64>,
    /// 1 for the first attempt.
    #[prost(uint32, optional, tag = "2")]
    pub attempt: Option<u32>,
    /// The job's name for people.
    #[prost(string, tag = "3")]
    pub job_name: String,
    /// The queue it was taken from.
    #[prost(string, tag = "4")]
    pub queue: String,
    /// The agent it was placed on.
    #[prost(string, tag = "5")]
    pub agent: String,
    /// Who submitted it.
    #[prost(string, tag = "6")]
    pub submitted_by: String,
    /// Program and arguments as bytes. With a script: the arguments of the script.
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub command: Vec<Vec<u8>>,
    /// The text of a script to run instead of a program.
    #[prost(bytes = "vec", optional, tag = "8")]
    pub script: Option<Vec<u8>>,
    /// Environment beyond the agent's standard one.
    #[prost(message, repeated, tag = "9")]
    pub env: Vec<Pair>,
    /// Parameters: shown to the job as `LASTWORD_PARAM_<NAME>`.
    #[prost(message, repeated, tag = "10")]
    pub params: Vec<Pair>,
    /// Working directory; the run's own `work/` if absent.
    #[prost(string, optional, tag = "11")]
    pub cwd: Option<String>,
    /// User to run as; the agent's own if absent.
    #[prost(string, optional, tag = "12")]
    pub user: Option<String>,
    /// Stop it after this long (`CLOCK_BOOTTIME`), milliseconds.
    #[prost(uint64, optional, tag = "13")]
    pub timeout_ms: Option<u64>,
    /// Between the soft signal and SIGKILL, milliseconds.
    #[prost(uint64, optional, tag = "14")]
    pub grace_ms: Option<u64>,
    /// The same for all attempts of a job, for the job's own use.
    #[prost(string, tag = "15")]
    pub idempotency_key: String,
    /// How the attempt before ended, empty for the first.
    #[prost(string, tag = "16")]
    pub previous_outcome: String,
    /// When it was due.
    #[prost(int64, optional, tag = "17")]
    pub scheduled_at_ms: Option<i64>,
    /// The file mode mask of its process; the agent's own if absent.
    #[prost(uint32, optional, tag = "18")]
    pub umask: Option<u32>,
    /// The niceness of its process; the agent's own if absent.
    #[prost(sint32, optional, tag = "19")]
    pub nice: Option<i32>,
    /// Resource limits of its process.
    #[prost(message, repeated, tag = "20")]
    pub limits: Vec<Limit>,
    /// How much each of its output files may hold; no limit if absent.
    #[prost(message, optional, tag = "21")]
    pub output_limit: Option<OutputLimit>,
    /// What becomes of processes that it leaves behind; they are ended if absent.
    #[prost(enumeration = "LeftoversKind", optional, tag = "22")]
    pub leftovers: Option<i32>,
    /// Files to keep after its end: patterns, relative to the working directory or absolute.
    #[prost(string, repeated, tag = "23")]
    pub capture: Vec<String>,
    /// The lowest protocol version whose agents honour all of this; an agent that speaks no such version refuses it. 1 if absent.
    #[prost(uint32, optional, tag = "24")]
    pub needs: Option<u32>,
}

/// How much an output file may hold, and what happens beyond that. For each of the two files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct OutputLimit {
    /// Bytes.
    #[prost(uint64, optional, tag = "1")]
    pub bytes_max: Option<u64>,
    /// What happens beyond.
    #[prost(enumeration = "OutputPolicyKind", optional, tag = "2")]
    pub policy: Option<i32>,
}

/// What happens to an output file that grows beyond its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum OutputPolicyKind {
    /// Not said: as [`OutputPolicyKind::KeepEnds`].
    Unspecified = 0,
    /// The first and the last half of the limit stay; what is between becomes a hole. Offsets stay true.
    KeepEnds = 1,
    /// The run is ended.
    Kill = 2,
    /// What is beyond is cut off again and again.
    Truncate = 3,
}

/// What becomes of processes that a job leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum LeftoversKind {
    /// Not said: as [`LeftoversKind::Kill`].
    Unspecified = 0,
    /// They are ended.
    Kill = 1,
    /// They are waited for, up to a limit, then ended.
    Wait = 2,
    /// They go on.
    Ignore = 3,
}

/// A resource limit (`setrlimit(2)`). A value that is absent means unlimited.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Limit {
    /// Of what: `nofile`, `as`, …
    #[prost(string, tag = "1")]
    pub resource: String,
    /// What holds at first.
    #[prost(uint64, optional, tag = "2")]
    pub soft: Option<u64>,
    /// Up to which the process may raise it.
    #[prost(uint64, optional, tag = "3")]
    pub hard: Option<u64>,
}

/// A name and a value.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Pair {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// One durable message of a run: written once by whoever owns the log, sent unchanged, kept by the server unchanged.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Fact {
    /// The agent's wall clock when it was written.
    #[prost(int64, optional, tag = "1")]
    pub at_ms: Option<i64>,
    /// What happened.
    #[prost(oneof = "FactBody", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub body: Option<FactBody>,
}

/// What happened to a run.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum FactBody {
    /// The agent has it on disk and will start it.
    #[prost(message, tag = "2")]
    Accepted(Accepted),
    /// Its process exists; written before the start gate opens.
    #[prost(message, tag = "3")]
    Started(Started),
    /// Its outcome, the last word.
    #[prost(message, tag = "4")]
    Ended(Ended),
    /// Something worth telling people (leftovers were killed, cannot be killed, …).
    #[prost(message, tag = "5")]
    Note(Note),
    /// It was told to end; written before the first signal, so that whoever records the outcome knows why.
    #[prost(message, tag = "6")]
    Stopping(Stopping),
    /// Its processes are to stand still; written before they are stopped.
    #[prost(message, tag = "7")]
    Suspended(Suspended),
    /// They may go on; written before they do.
    #[prost(message, tag = "8")]
    Resumed(Resumed),
    /// A file of the job was kept; written after its bytes were durable.
    #[prost(message, tag = "9")]
    Captured(Captured),
}

/// The job's processes stand still. Its time limit does not count meanwhile.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Suspended {
    /// Who asked, for people.
    #[prost(string, tag = "1")]
    pub by: String,
    /// `CLOCK_BOOTTIME`, milliseconds: from here on its time does not count.
    #[prost(uint64, optional, tag = "2")]
    pub boottime_ms: Option<u64>,
}

/// The job's processes go on.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Resumed {
    /// Who asked, for people.
    #[prost(string, tag = "1")]
    pub by: String,
    /// `CLOCK_BOOTTIME`, milliseconds: from here on its time counts again.
    #[prost(uint64, optional, tag = "2")]
    pub boottime_ms: Option<u64>,
}

/// A file that was kept.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Captured {
    /// Its name among the run's kept files: the path below the working directory, or the absolute path without its first slash.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its length.
    #[prost(uint64, optional, tag = "2")]
    pub bytes: Option<u64>,
    /// SHA-256 of its content, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub sha256: Vec<u8>,
}

/// Why a run was told to end.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Stopping {
    /// Who asked, if somebody did.
    #[prost(string, optional, tag = "1")]
    pub killed_by: Option<String>,
    /// The time limit that was over, if one was, milliseconds.
    #[prost(uint64, optional, tag = "2")]
    pub timed_out_after_ms: Option<u64>,
}

/// The run directory is durable.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Accepted {
    /// The boot in which it was accepted.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub boot_id: Option<Vec<u8>>,
}

/// The identity of the started process: enough to know it again and never to mistake another for it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Started {
    /// Process id.
    #[prost(uint32, optional, tag = "1")]
    pub pid: Option<u32>,
    /// Field 22 of `/proc/PID/stat`: start time in clock ticks since boot.
    #[prost(uint64, optional, tag = "2")]
    pub start_ticks: Option<u64>,
    /// Inode number of its pidfd on pidfs (unique per boot, Linux ≥ 6.9); 0 where the kernel has none.
    #[prost(uint64, optional, tag = "3")]
    pub pidfd_inode: Option<u64>,
    /// The boot it belongs to.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub boot_id: Option<Vec<u8>>,
    /// Its control group below the v2 mount point, if it has one.
    #[prost(string, optional, tag = "5")]
    pub cgroup: Option<String>,
    /// `CLOCK_BOOTTIME` at the start, milliseconds: time-outs count from here.
    #[prost(uint64, optional, tag = "6")]
    pub boottime_ms: Option<u64>,
    /// Process id of the job-processor, for people.
    #[prost(uint32, optional, tag = "7")]
    pub job_processor_pid: Option<u32>,
}

/// The outcome of a run. See `job::Outcome`, to which it converts.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ended {
    /// How it ended.
    #[prost(enumeration = "EndKind", optional, tag = "1")]
    pub kind: Option<i32>,
    /// With [`EndKind::Exited`].
    #[prost(uint32, optional, tag = "2")]
    pub exit_code: Option<u32>,
    /// With [`EndKind::Signaled`].
    #[prost(uint32, optional, tag = "3")]
    pub signal: Option<u32>,
    /// With [`EndKind::Signaled`].
    #[prost(bool, tag = "4")]
    pub core: bool,
    /// Who saw it.
    #[prost(enumeration = "WitnessKind", optional, tag = "5")]
    pub witness: Option<i32>,
    /// Who asked for the end, if somebody did.
    #[prost(string, optional, tag = "6")]
    pub killed_by: Option<String>,
    /// The time limit that was over, if one was, milliseconds.
    #[prost(uint64, optional, tag = "7")]
    pub timed_out_after_ms: Option<u64>,
    /// Why, for the kinds that need it.
    #[prost(string, tag = "8")]
    pub reason: String,
    /// CPU time, milliseconds.
    #[prost(uint64, optional, tag = "9")]
    pub cpu_ms: Option<u64>,
    /// Peak resident set, KiB.
    #[prost(uint64, optional, tag = "10")]
    pub max_rss_kib: Option<u64>,
    /// With [`EndKind::NeverStarted`]: somebody asked for it.
    #[prost(bool, tag = "11")]
    pub canceled: bool,
    /// CPU time in user mode, milliseconds.
    #[prost(uint64, optional, tag = "12")]
    pub user_ms: Option<u64>,
    /// CPU time in the kernel, milliseconds.
    #[prost(uint64, optional, tag = "13")]
    pub system_ms: Option<u64>,
    /// The most memory that all its processes together had, KiB.
    #[prost(uint64, optional, tag = "14")]
    pub memory_peak_kib: Option<u64>,
    /// Bytes read from devices.
    #[prost(uint64, optional, tag = "15")]
    pub read_bytes: Option<u64>,
    /// Bytes written to devices.
    #[prost(uint64, optional, tag = "16")]
    pub written_bytes: Option<u64>,
    /// Processes of it that the kernel killed for want of memory.
    #[prost(uint64, optional, tag = "17")]
    pub oom_kills: Option<u64>,
    /// Context switches of its main process and the children that this waited for.
    #[prost(uint64, optional, tag = "18")]
    pub context_switches: Option<u64>,
    /// The most processes that it had at once.
    #[prost(uint64, optional, tag = "19")]
    pub processes_peak: Option<u64>,
    /// With [`EndKind::NeverStarted`]: the host had no room for it just then.
    #[prost(bool, tag = "20")]
    pub no_room: bool,
}

/// The kinds of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum EndKind {
    /// Not said: damaged or from a newer version.
    Unspecified = 0,
    /// `exit(code)`.
    Exited = 1,
    /// Ended by a signal.
    Signaled = 2,
    /// The command could not be executed.
    CannotExecute = 3,
    /// Never started and never will.
    NeverStarted = 4,
    /// Started, and nobody saw the end.
    Unknown = 5,
}

/// Who saw the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum WitnessKind {
    /// Nobody.
    None = 0,
    /// The job-processor's wait.
    JobProcessor = 1,
    /// The monitor's wait.
    Monitor = 2,
    /// A held pidfd.
    Pidfd = 3,
}

/// Something worth telling people.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Note {
    /// The text.
    #[prost(string, tag = "1")]
    pub text: String,
}

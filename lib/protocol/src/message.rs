//! What is said on the wire and kept on disk, as protobuf (prost, derive only).
//!
//! Rules: a number is never used again for something else; a field that must be known is `optional` here and checked
//! where it is read; unknown fields are ignored; unknown kinds of frames are refused politely. Golden bytes of every message are
//! in `golden/`.
//!
//! Ids are bytes (16); times named `*_at_ms` are wall-clock milliseconds since 1970 for display; durations `*_ms`.

use prost::{Enumeration, Message, Oneof};

/// What to run: travels in [`Start`] and stands in the head of the run's log.
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
    #[prost(oneof = "FactBody", tags = "2, 3, 4, 5, 6")]
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

/// First word of either side on a new connection, before anything is trusted.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AuthHello {
    /// The highest protocol version that the speaker knows.
    #[prost(uint32, optional, tag = "1")]
    pub version_max: Option<u32>,
    /// The lowest.
    #[prost(uint32, optional, tag = "2")]
    pub version_min: Option<u32>,
    /// Which part it plays.
    #[prost(enumeration = "RoleKind", optional, tag = "3")]
    pub role: Option<i32>,
    /// The agent's name (from the agent), the node's name (from the server).
    #[prost(string, tag = "4")]
    pub name: String,
    /// 32 random bytes, new for every connection.
    #[prost(bytes = "vec", tag = "5")]
    pub nonce: Vec<u8>,
}

/// The two parts that are played on a connection, whoever dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum RoleKind {
    /// Not said.
    Unspecified = 0,
    /// A network-processor.
    Agent = 1,
    /// A central server.
    Server = 2,
}

/// The proof that the speaker knows the shared secret: HMAC-SHA256, see `handshake`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AuthProof {
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub tag: Vec<u8>,
}

/// The agent's account of itself, first after the proofs. The inventory may need several frames: `more` is set on all but the last.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AgentHello {
    /// The data root's identity.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub agent_id: Option<Vec<u8>>,
    /// Counts the starts of the network-processor on this data root.
    #[prost(uint64, optional, tag = "2")]
    pub incarnation: Option<u64>,
    /// The host's boot.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub boot_id: Option<Vec<u8>>,
    /// The highest epoch that it has seen.
    #[prost(uint64, optional, tag = "4")]
    pub epoch: Option<u64>,
    /// The program's version, for people.
    #[prost(string, tag = "5")]
    pub software: String,
    /// The host's name, kernel and machine, for people.
    #[prost(string, tag = "6")]
    pub platform: String,
    /// Every run that it has and the server has not settled.
    #[prost(message, repeated, tag = "7")]
    pub inventory: Vec<InventoryItem>,
    /// Another part of the inventory follows.
    #[prost(bool, tag = "8")]
    pub more: bool,
    /// The server's database and position that were last acknowledged to this agent, if any.
    #[prost(message, optional, tag = "9")]
    pub last_acked: Option<Position>,
    /// The agent takes no new runs, and why (disk full, drained); empty if it takes them.
    #[prost(string, tag = "10")]
    pub refusing: String,
}

/// A place in the history of one server database.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Position {
    /// 16 random bytes that the database got when it was created.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub database_id: Option<Vec<u8>>,
    /// Number of the commit. A server that is behind what it once acknowledged went back in time.
    #[prost(uint64, optional, tag = "2")]
    pub commit: Option<u64>,
}

/// One run that the agent has.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct InventoryItem {
    /// Which.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub run_id: Option<Vec<u8>>,
    /// The last message in its log; 0 while it is prepared.
    #[prost(uint64, optional, tag = "2")]
    pub last_seq: Option<u64>,
}

/// The server's answer to the last part of the agent's account.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ServerHello {
    /// Its term of office.
    #[prost(uint64, optional, tag = "1")]
    pub epoch: Option<u64>,
    /// 16 random bytes of this start of the server: an equal epoch from another one is refused.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub incarnation: Option<Vec<u8>>,
    /// Where its database stands.
    #[prost(message, optional, tag = "3")]
    pub position: Option<Position>,
    /// What it has of the runs in the inventory: the rest is to be sent.
    #[prost(message, repeated, tag = "4")]
    pub known: Vec<RunPosition>,
    /// Runs that it believes to be with this agent though the inventory lacks them: the agent answers each with facts or [`NoRecord`].
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub missing: Vec<Vec<u8>>,
    /// The program's version, for people.
    #[prost(string, tag = "6")]
    pub software: String,
}

/// A run and the last message of it that is meant.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunPosition {
    /// Which run.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub run_id: Option<Vec<u8>>,
    /// Up to and including this message.
    #[prost(uint64, optional, tag = "2")]
    pub seq: Option<u64>,
}

/// Start these runs. May be repeated for ever.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Start {
    /// The sender's term of office.
    #[prost(uint64, optional, tag = "1")]
    pub epoch: Option<u64>,
    /// The run.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub run_id: Option<Vec<u8>>,
    /// What to run.
    #[prost(message, optional, tag = "3")]
    pub spec: Option<RunSpec>,
}

/// End this run, or see to it that it never starts. May be repeated for ever.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Kill {
    /// The sender's term of office.
    #[prost(uint64, optional, tag = "1")]
    pub epoch: Option<u64>,
    /// The run.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub run_id: Option<Vec<u8>>,
    /// Between the soft signal and SIGKILL, milliseconds; the run's own if absent.
    #[prost(uint64, optional, tag = "3")]
    pub grace_ms: Option<u64>,
    /// Who asks, for people.
    #[prost(string, tag = "4")]
    pub by: String,
}

/// Durable messages, oldest first per run.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Facts {
    /// The messages.
    #[prost(message, repeated, tag = "1")]
    pub facts: Vec<RunFact>,
}

/// One message of one run; `fact` is the [`Fact`] as it stands on the agent's disk.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunFact {
    /// Which run.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub run_id: Option<Vec<u8>>,
    /// Its number in the run's log, from 1.
    #[prost(uint64, optional, tag = "2")]
    pub seq: Option<u64>,
    /// The encoded [`Fact`].
    #[prost(bytes = "vec", tag = "3")]
    pub fact: Vec<u8>,
}

/// Committed: up to and including these.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Acks {
    /// Per run, cumulative.
    #[prost(message, repeated, tag = "1")]
    pub acks: Vec<RunPosition>,
    /// Where the database stood after that commit.
    #[prost(message, optional, tag = "2")]
    pub position: Option<Position>,
}

/// The agent did not take a run; nothing of it is on its disk.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Refused {
    /// Which run.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub run_id: Option<Vec<u8>>,
    /// What the server may do next.
    #[prost(enumeration = "RefusalKind", optional, tag = "2")]
    pub kind: Option<i32>,
    /// Why, for people.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// What the server may do with a refused run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum RefusalKind {
    /// Not said: treat as [`RefusalKind::Fenced`].
    Unspecified = 0,
    /// No room or draining: never executed, place it elsewhere or later.
    NoRoom = 1,
    /// The sender's epoch is over: it must stop being primary.
    Fenced = 2,
    /// Older than the retention of settled runs: the agent cannot tell whether it ran.
    Expired = 3,
    /// The spec cannot be run here (bad user, bad field): another attempt would fare the same.
    Invalid = 4,
}

/// "I have no record of this run": it was never received here.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NoRecord {
    /// Which run.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub run_id: Option<Vec<u8>>,
}

/// Read a range of a run's output, or its ledger.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Query {
    /// Chosen by the server; the answer carries it.
    #[prost(uint64, optional, tag = "1")]
    pub query_id: Option<u64>,
    /// Which run.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub run_id: Option<Vec<u8>>,
    /// What is asked.
    #[prost(oneof = "QueryBody", tags = "3, 4")]
    pub body: Option<QueryBody>,
}

/// What a server can ask about a run.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum QueryBody {
    /// Bytes of an output file.
    #[prost(message, tag = "3")]
    Output(OutputRange),
    /// Every record of the log, as the agent has it.
    #[prost(message, tag = "4")]
    Ledger(LedgerQuery),
}

/// A range of an output file.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OutputRange {
    /// Which file.
    #[prost(enumeration = "StreamKind", optional, tag = "1")]
    pub stream: Option<i32>,
    /// From this byte.
    #[prost(uint64, optional, tag = "2")]
    pub offset: Option<u64>,
    /// At most this many bytes.
    #[prost(uint32, optional, tag = "3")]
    pub bytes_max: Option<u32>,
}

/// The output files of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum StreamKind {
    /// Not said.
    Unspecified = 0,
    /// `out`.
    Stdout = 1,
    /// `err`.
    Stderr = 2,
}

/// Asks for the agent's ledger of a run.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct LedgerQuery {}

/// The answer to a [`Query`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Answer {
    /// That of the query.
    #[prost(uint64, optional, tag = "1")]
    pub query_id: Option<u64>,
    /// What was found.
    #[prost(oneof = "AnswerBody", tags = "2, 3, 4")]
    pub body: Option<AnswerBody>,
}

/// What an agent answers.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum AnswerBody {
    /// Bytes of an output file.
    #[prost(message, tag = "2")]
    Output(OutputData),
    /// The ledger.
    #[prost(message, tag = "3")]
    Ledger(Ledger),
    /// Why not, for people.
    #[prost(string, tag = "4")]
    Failed(String),
}

/// A piece of output.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct OutputData {
    /// From this byte.
    #[prost(uint64, optional, tag = "1")]
    pub offset: Option<u64>,
    /// The bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
    /// The size of the file now.
    #[prost(uint64, optional, tag = "3")]
    pub size: Option<u64>,
    /// The run has ended and its processes are gone: the file will not grow.
    #[prost(bool, tag = "4")]
    pub complete: bool,
}

/// What the agent has of a run.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Ledger {
    /// `live`, `settled`, `quarantined` or `no record`.
    #[prost(string, tag = "1")]
    pub place: String,
    /// Whether a job-processor holds the log's lock.
    #[prost(bool, tag = "2")]
    pub locked: bool,
    /// Every record, by number.
    #[prost(message, repeated, tag = "3")]
    pub records: Vec<RunFact>,
    /// Up to here the server acknowledged.
    #[prost(uint64, optional, tag = "4")]
    pub acked_seq: Option<u64>,
}

/// A beat: answered by [`Pong`] with the same number.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Ping {
    /// Any number.
    #[prost(uint64, optional, tag = "1")]
    pub number: Option<u64>,
}

/// The answer to [`Ping`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Pong {
    /// That of the ping.
    #[prost(uint64, optional, tag = "1")]
    pub number: Option<u64>,
}

/// The last frame before a connection is closed on purpose.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Goodbye {
    /// Why, for people and traces.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// The speaker stops in a controlled manner (as against: it does not want this connection).
    #[prost(bool, tag = "2")]
    pub stopping: bool,
}

/// "I do not know this kind of frame"; the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Unsupported {
    /// The kind that was received.
    #[prost(uint32, optional, tag = "1")]
    pub kind: Option<u32>,
}

/// The agent's state changed while connected (takes runs again, or no more).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AgentState {
    /// As in [`AgentHello`].
    #[prost(string, tag = "1")]
    pub refusing: String,
}

/// A request on a run's control socket (`ctl.sock`), from the network-processor to the job-processor.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Control {
    /// What is asked.
    #[prost(oneof = "ControlBody", tags = "1")]
    pub body: Option<ControlBody>,
}

/// What can be asked of a job-processor.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum ControlBody {
    /// End the job.
    #[prost(message, tag = "1")]
    Stop(Stop),
}

/// End the job: soft signal, grace, SIGKILL to all that is left.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Stop {
    /// Between the soft signal and SIGKILL, milliseconds; the run's own if absent.
    #[prost(uint64, optional, tag = "1")]
    pub grace_ms: Option<u64>,
    /// Who asks, for people.
    #[prost(string, tag = "2")]
    pub by: String,
}

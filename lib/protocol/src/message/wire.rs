//! On a connection: the handshake, the accounts, commands, deliveries, questions; and a run's control socket. Streams of output are beside it.

use super::{RunSpec, StreamKind};
use prost::{Enumeration, Message, Oneof};

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
    /// The databases from whose backups this one was restored, the latest first: what they acknowledged may be missing here.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub ancestors: Vec<Vec<u8>>,
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
    #[prost(message, optional, boxed, tag = "3")]
    pub spec: Option<Box<RunSpec>>,
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

/// Let this run stand still. Told until the agent recorded it, or the run is over.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Suspend {
    /// The sender's term of office.
    #[prost(uint64, optional, tag = "1")]
    pub epoch: Option<u64>,
    /// The run.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub run_id: Option<Vec<u8>>,
    /// Who asks, for people.
    #[prost(string, tag = "3")]
    pub by: String,
}

/// Let this run go on. Told until the agent recorded it, or the run is over.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Resume {
    /// The sender's term of office.
    #[prost(uint64, optional, tag = "1")]
    pub epoch: Option<u64>,
    /// The run.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub run_id: Option<Vec<u8>>,
    /// Who asks, for people.
    #[prost(string, tag = "3")]
    pub by: String,
}

/// Durable messages, oldest first per run.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Facts {
    /// The messages.
    #[prost(message, repeated, tag = "1")]
    pub facts: Vec<RunFact>,
}

/// One message of one run; `fact` is the [`Fact`](super::Fact) as it stands on the agent's disk.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunFact {
    /// Which run.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub run_id: Option<Vec<u8>>,
    /// Its number in the run's log, from 1.
    #[prost(uint64, optional, tag = "2")]
    pub seq: Option<u64>,
    /// The encoded [`Fact`](super::Fact).
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
    /// Something about this agent that its operator should read; empty mostly. Older agents do not show it.
    #[prost(string, tag = "3")]
    pub notice: String,
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
    /// The agent had accepted it, and the record of it on its disk is damaged: nobody can tell how it ended.
    Damaged = 5,
}

/// "I have no record of this run": it was never received here.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NoRecord {
    /// Which run.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub run_id: Option<Vec<u8>>,
}

/// Read a range of a run's output or of a file that was kept of it, or its ledger; or hear that its files are stored.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Query {
    /// Chosen by the server; the answer carries it.
    #[prost(uint64, optional, tag = "1")]
    pub query_id: Option<u64>,
    /// Which run.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub run_id: Option<Vec<u8>>,
    /// What is asked.
    #[prost(oneof = "QueryBody", tags = "3, 4, 5, 6")]
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
    /// Bytes of a captured file; answered as [`AnswerBody::Output`].
    #[prost(message, tag = "5")]
    File(FileRange),
    /// The server needs the run's captured files no more; answered as [`AnswerBody::Noted`].
    #[prost(message, tag = "6")]
    FilesStored(FilesStored),
}

/// The server has every captured file of the run that it knows of, or knows that it will never have it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct FilesStored {
    /// So many names it knows. If the run has more, the word is too early.
    #[prost(uint64, optional, tag = "1")]
    pub files: Option<u64>,
}

/// What the agent made of [`FilesStored`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Noted {
    /// It is on disk: the files may go like any output. Else there are more files than the server knows, or there may be.
    #[prost(bool, tag = "1")]
    pub complete: bool,
}

/// A range of a captured file.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FileRange {
    /// Its name, as [`Captured`](super::Captured) says it.
    #[prost(string, tag = "1")]
    pub name: String,
    /// From this byte.
    #[prost(uint64, optional, tag = "2")]
    pub offset: Option<u64>,
    /// At most this many bytes.
    #[prost(uint32, optional, tag = "3")]
    pub bytes_max: Option<u32>,
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
    #[prost(oneof = "AnswerBody", tags = "2, 3, 4, 5")]
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
    /// What became of a word of the server.
    #[prost(message, tag = "5")]
    Noted(Noted),
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
    /// What was to be run: the [`RunSpec`] in the head of the log; absent if there is no record.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub spec: Option<Vec<u8>>,
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
    /// Whatever a database that went back in time may lack was sent on this connection.
    #[prost(bool, tag = "2")]
    pub caught_up: bool,
    /// All that can be read was sent, but these runs (at most 1,000 are named) cannot be: nobody can tell what they were. Not beside `caught_up`.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub untellable: Vec<Vec<u8>>,
}

/// A request on a run's control socket (`ctl.sock`), from the network-processor to the job-processor.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Control {
    /// What is asked.
    #[prost(oneof = "ControlBody", tags = "1, 2, 3")]
    pub body: Option<ControlBody>,
}

/// What can be asked of a job-processor.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum ControlBody {
    /// End the job.
    #[prost(message, tag = "1")]
    Stop(Stop),
    /// Let the job stand still. Answered when that is on disk and done.
    #[prost(message, tag = "2")]
    Suspend(PauseOrder),
    /// Let it go on. Answered when that is on disk and done.
    #[prost(message, tag = "3")]
    Resume(PauseOrder),
}

/// Who wants a job to stand still or to go on.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PauseOrder {
    /// Who asks, for people.
    #[prost(string, tag = "1")]
    pub by: String,
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

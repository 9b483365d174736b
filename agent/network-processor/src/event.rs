//! Everything that can happen to the agent, in one queue: one owner of the table of runs, one order of events.

use crate::disk::{Recalled, Seen};
use crate::launch::{Launched, NotLaunched};
use crate::resend::Resent;
use crate::retention::Done;
use crate::room::Room;
use crate::session::Raised;
use crate::users::NotResolved;
use config::AgentConfig;
use job::RunId;
use job::output::Watch;
use link::{Link, LinkError};
use protocol::Frame;
use spool::{NotKept, PrepareError};

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A server proved itself.
    Linked(Box<Link>),
    /// A frame came over that session.
    Frame(u64, Box<Frame>),
    /// That session is over.
    Unlinked(u64, LinkError),
    /// Somebody recorded something in this run's log.
    Woken(RunId),
    /// A run was prepared and its job-processor started, or not.
    Prepared(RunId, Result<Launched, NotPrepared>),
    /// Another job-processor was started for a run, or could not be.
    Relaunched(RunId, Result<Launched, NotLaunched>),
    /// A log was read.
    Read(RunId, Box<Result<Seen, spool::LedgerError>>),
    /// A job-processor ended.
    JobProcessorGone(RunId),
    /// The process of an adopted job ended.
    JobGone(RunId),
    /// A stop was delivered to a job-processor, or not.
    StopDelivered(RunId, bool),
    /// A suspend or resume was carried out, or could not be.
    Paused(RunId, bool),
    /// An adopted run was suspended (`true`) or resumed by us, or that could not be written down.
    PausedAdopted(RunId, bool, Result<(), String>),
    /// Files of a job were kept in the place of its job-processor, or could not be.
    FilesKept(RunId, Result<(), NotKept>),
    /// It was looked at what these runs left behind; of each whether something is left that is waited for.
    LeftoversSeen(Vec<(RunId, bool)>),
    /// The output files of an adopted run were looked at; with a text: it is to be ended, and who asks.
    OutputSeen(RunId, Watch, Option<String>),
    /// An outcome was recorded here (or was there already): `Ok`; or could not be now.
    Recorded(RunId, Result<(), String>),
    /// The monitor said whether it is the witness of the run; `None`: there is no monitor.
    Asked(RunId, Option<bool>),
    /// Which process is the monitor.
    MonitorSeen(Option<u32>),
    /// That monitor was handed the pidfd of an adopted job, or none was.
    MonitorTold(RunId, Option<u32>),
    /// The record of a run that is not live was looked for.
    Recalled(RunId, Recalled),
    /// These settled runs are about to be sent again in that session, up to those messages.
    Resending(u64, Vec<(RunId, u64)>),
    /// Every settled run was sent again in that session, or not.
    Resent(u64, Resent),
    /// A round of retention is over.
    Swept(std::io::Result<Done>),
    /// The disk was looked at.
    Room(std::io::Result<Room>),
    /// The secret files were looked at.
    SecretsSeen,
    /// What was last acknowledged is in the identity file, or not.
    Saved(std::io::Result<()>),
    /// The fence was raised for a server that wants to be obeyed, or not.
    Raised(Box<Raised>),
    /// The configuration was read anew.
    Reloaded(Result<Box<AgentConfig>, String>),
    /// A run was moved aside, or could not be.
    Moved(RunId, std::io::Result<()>),
    /// Runs were moved to the settled ones, or could not be.
    Settled(Vec<(RunId, std::io::Result<()>)>),
    /// Time passed.
    Tick,
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

/// Why a run was not prepared.
#[derive(Debug)]
pub(crate) enum NotPrepared {
    /// It is there already, on another shelf.
    Settled,
    /// It is in quarantine.
    Quarantined,
    /// Its directory is there, though it was not in the table.
    Present,
    /// It is as old as what was removed, so nobody can tell whether it ran.
    Expired,
    /// It is there and whole, but its name may not be durable: it is not refused any more, and not started yet.
    Unsynced(std::io::Error),
    /// No new runs are taken; why.
    Refusing(String),
    /// It cannot have its user.
    User(NotResolved),
    /// It could not be written.
    Failed(PrepareError),
}

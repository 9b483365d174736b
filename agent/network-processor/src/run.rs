//! The table of live runs: what the network-processor knows of each. Disk and processes are the truth; this is the view.

use job::output::{OutputLimit, Watch};
use job::{Leftovers, StopCause, supervise};
use os::pidfd::Pidfd;
use protocol::message::{Ended, Started, Stop};
use spool::Stored;

/// Who looks after the run.
#[derive(Debug)]
pub(crate) enum Keeper {
    /// Nobody yet: it is being prepared.
    Preparing,
    /// Its directory was found at the start and is being looked at.
    Unread,
    /// A job-processor with this process id.
    JobProcessor(u32),
    /// A job-processor was there and went; its log is being looked at, or it is started anew.
    Nobody,
    /// We: its job-processor died while the job ran.
    Adopted(Adopted),
    /// Nobody needs to: the outcome is on disk and all processes of ours are gone.
    Over,
    /// Its log cannot be read; it is moved aside.
    Quarantined,
}

/// A run whose job-processor died after its start.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// The job's process, until it is found to be gone.
    pub(crate) job: Option<Pidfd>,
    /// What is to be done with it.
    pub(crate) state: supervise::State,
    /// Its output limit, if it has one; `None` also while the files are looked at.
    pub(crate) output: Option<Watch>,
    /// When it was seen to be gone, `CLOCK_BOOTTIME` milliseconds.
    pub(crate) gone_ms: Option<u64>,
    /// The monitor that holds a pidfd of it too.
    pub(crate) monitor: Option<u32>,
    /// A question to the monitor or a recording is under way.
    pub(crate) busy: bool,
}

/// One live run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) keeper: Keeper,
    /// Every message, oldest first: a server whose database goes back in time may ask for all of them again.
    pub(crate) messages: Vec<Stored>,
    /// The last message that was ever seen.
    pub(crate) last_seq: u64,
    /// The boot in which it was accepted, as its log says.
    pub(crate) accepted_boot: Option<Vec<u8>>,
    pub(crate) started: Option<Started>,
    pub(crate) ended: Option<Ended>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) grace_ms: Option<u64>,
    pub(crate) output_limit: Option<OutputLimit>,
    pub(crate) leftovers: Leftovers,
    /// Files of it are to be kept, and that may not be done yet.
    pub(crate) capture: Capture,
    pub(crate) keeping: Keeping,
    /// The job's process while it runs: the last rung of the evidence ladder.
    pub(crate) job: Option<Pidfd>,
    /// Why it was told to end, as its log says.
    pub(crate) stop_cause: Option<StopCause>,
    /// Somebody wants it to end; kept until it did.
    pub(crate) stop: Option<WantedStop>,
    /// Somebody wants it to stand still or to go on; kept until that is on disk.
    pub(crate) pause: Option<WantedPause>,
    /// When it stood still, as its log says.
    pub(crate) pauses: supervise::Pauses,
    /// How many job-processors were started for it.
    pub(crate) launches: u32,
    /// Its job-processor ended well: the outcome is in its log, and all that is there is durable.
    pub(crate) is_recorded: bool,
    /// Its log is being read; and something changed since.
    pub(crate) reading: bool,
    pub(crate) dirty: bool,
    /// It is being moved to another shelf.
    pub(crate) moving: bool,
    /// Its directory was there at the start and was not read yet: servers are greeted when all of these are.
    pub(crate) awaited: bool,
    /// Its job-processor went, as far as we know, without doing anything about what the job left behind.
    pub(crate) unswept: bool,
    /// When that was found of a run that is over, `CLOCK_BOOTTIME` milliseconds.
    pub(crate) left_ms: u64,
}

/// Where the keeping of files stands that a job's spec asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capture {
    /// Its log was not read yet.
    Unread,
    /// None are asked for, or it is done.
    Nothing,
    /// To be done, by its job-processor or else by us.
    Due,
    /// We are at it.
    Trying,
}

/// When it is tried to keep files, `CLOCK_BOOTTIME` milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keeping {
    /// When it was tried first.
    pub(crate) since_ms: Option<u64>,
    /// Not before.
    pub(crate) again_at_ms: u64,
    /// The last pause between two tries.
    pub(crate) pause_ms: u64,
}

/// A stop that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct WantedStop {
    pub(crate) stop: Stop,
    /// Where its delivery to the job-processor stands.
    pub(crate) delivery: Delivery,
}

/// A suspend or resume that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct WantedPause {
    pub(crate) suspend: bool,
    pub(crate) by: String,
    pub(crate) delivery: Delivery,
}

/// Where the delivery of an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// To be tried.
    Due,
    /// Under way.
    Trying,
    /// The job-processor has it.
    Done,
}

impl Run {
    /// Whether it was accepted in another boot than this one: then its data root may be a copy, whose other half started the run long ago. The
    /// server tells hosts apart, so an accepted run waits until it has let this one in (decision 0007).
    pub(crate) fn is_of_another_boot(&self, boot_id: &[u8]) -> bool {
        self.accepted_boot.as_deref().is_some_and(|accepted| accepted != boot_id)
    }

    pub(crate) fn new(keeper: Keeper) -> Run {
        Run {
            keeper,
            messages: Vec::new(),
            last_seq: 0,
            accepted_boot: None,
            started: None,
            ended: None,
            timeout_ms: None,
            grace_ms: None,
            output_limit: None,
            leftovers: Leftovers::default(),
            capture: Capture::Unread,
            keeping: Keeping::default(),
            job: None,
            stop_cause: None,
            stop: None,
            pause: None,
            pauses: supervise::Pauses::default(),
            launches: 0,
            is_recorded: false,
            reading: false,
            dirty: false,
            moving: false,
            awaited: false,
            unswept: false,
            left_ms: 0,
        }
    }

    /// Whether a job-processor is (or may be) at work.
    pub(crate) fn is_kept(&self) -> bool {
        match self.keeper {
            Keeper::Preparing
            | Keeper::Unread
            | Keeper::JobProcessor(_)
            | Keeper::Nobody
            | Keeper::Adopted(_) => true,
            Keeper::Over | Keeper::Quarantined => false,
        }
    }
}

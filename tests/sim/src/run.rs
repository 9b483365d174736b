//! What the network-processor knows of a live run: mirrors `agent/network-processor/src/run.rs`.

use crate::queue::Ms;
use job::{StopCause, supervise};
use protocol::message::{Ended, Started, Stop};
use spool::{Ledger, Stored};

/// Who looks after the run.
#[derive(Clone, Debug)]
pub(crate) enum Keeper {
    Preparing,
    Unread,
    JobProcessor(u32),
    Nobody,
    Adopted(Adopted),
    Over,
    Quarantined,
}

/// A run whose job-processor died after its start.
#[derive(Clone, Debug)]
pub(crate) struct Adopted {
    /// The job's process, as far as its descriptor could be had.
    pub(crate) job: Option<u32>,
    pub(crate) state: supervise::State,
    pub(crate) gone_ms: Option<Ms>,
    /// The monitor that watches it too.
    pub(crate) monitor: Option<u64>,
    pub(crate) is_busy: bool,
}

/// Where the delivery of a stop stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Due,
    Trying,
    Done,
}

/// One live run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) keeper: Keeper,
    pub(crate) messages: Vec<Stored>,
    pub(crate) last_seq: u64,
    pub(crate) accepted_boot: Option<Vec<u8>>,
    pub(crate) started: Option<Started>,
    pub(crate) ended: Option<Ended>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) grace_ms: Option<u64>,
    pub(crate) job: Option<u32>,
    pub(crate) stop_cause: Option<StopCause>,
    pub(crate) stop: Option<(Stop, Delivery)>,
    pub(crate) launches: u32,
    /// Its job-processor ended well.
    pub(crate) is_recorded: bool,
    pub(crate) is_reading: bool,
    pub(crate) is_dirty: bool,
    pub(crate) is_moving: bool,
    pub(crate) is_awaited: bool,
}

impl Run {
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
            job: None,
            stop_cause: None,
            stop: None,
            launches: 0,
            is_recorded: false,
            is_reading: false,
            is_dirty: false,
            is_moving: false,
            is_awaited: false,
        }
    }

    /// Takes over what a log says.
    pub(crate) fn take(&mut self, ledger: &Ledger) {
        let new = ledger.messages.iter().filter(|message| message.seq > self.last_seq);
        self.messages.extend(new.cloned());
        self.last_seq = self.last_seq.max(ledger.last_seq());
        self.accepted_boot = ledger.accepted.as_ref().and_then(|accepted| accepted.boot_id.clone());
        self.started.clone_from(&ledger.started);
        self.stop_cause = ledger.stop_cause();
        self.ended.clone_from(&ledger.ended);
        (self.timeout_ms, self.grace_ms) = (ledger.spec.timeout_ms, ledger.spec.grace_ms);
    }
}

//! The agent's data root: the one place where runs are prepared, recorded, settled and set aside. Shared by the monitor, the
//! network-processor and the job-processors, which meet only here.
//!
//! ```text
//! agent.lock  network-processor.lock   one of each process per data root (POSIX record locks)
//! identity                             agent id, incarnation, highest epoch: two copies, overwritten in place
//! monitor.sock  wake.sock              job-processors to the monitor; hints to the network-processor
//! runs/<run-id>/                       log, out, err, script, work/, ctl.sock
//! settled/<run-id>/                    moved here by rename when the server acknowledged everything
//! quarantine/<run-id>/                 what cannot be read; reported, never in the way of others
//! trace/                               size-rotated trace files
//! ```

#![forbid(unsafe_code)]

mod capture;
pub mod dump;
mod files;
mod identity;
mod ledger;
pub mod monitor;
pub mod nursery;
pub mod output;
mod prepare;
mod record;
mod root;
mod usage;
pub mod users;

pub use capture::{NotKept, Unwritten, capture};
pub use identity::{Fence, Identity, IdentityError};
pub use ledger::{Ledger, LedgerError, Stored, is_unexecuted, slot_of};
pub use prepare::{PrepareError, Prepared, prepare};
pub use record::{RecordError, Recorder, TakeError, record_in_place_of, wake, witnessed, woken};
pub use root::{CONTROL_SOCKET, DataRoot, MONITOR_SOCKET, RootError, RunDir, Shelf, WAKE_SOCKET};
pub use usage::usage;

/// The variable with the run's id in the environment of its job.
pub const RUN_ID_VARIABLE: &str = "LASTWORD_RUN_ID";

/// The reserved slots of a run's log.
pub const SLOT_STARTED: u32 = 0;
/// The slot of the outcome.
pub const SLOT_ENDED: u32 = 1;

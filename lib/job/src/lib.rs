//! The life of one run: identifiers, statuses, outcomes, and what a supervisor decides when.
//!
//! Pure: no clock, disk, socket or random number. Time is an argument in milliseconds
//! (`now_ms`, `CLOCK_BOOTTIME` for decisions, the wall clock only where a field says so).

#![forbid(unsafe_code)]

mod attributes;
mod capture;
mod id;
mod leftovers;
mod outcome;
pub mod output;
pub mod policy;
mod size;
pub mod span;
mod status;
pub mod supervise;
pub mod users;

pub use attributes::{AttributeError, Limit, NICE_MAX, NICE_MIN, Resource, UMASK_MAX, Umask, check_nice};
pub use capture::{
    CAPTURE_BYTES_MAX, CAPTURE_FILES_MAX, CAPTURE_PATTERN_BYTES_MAX, CAPTURE_PATTERNS_MAX,
    CapturePatternError, check_capture, name_fits,
};
pub use id::{AgentId, BootId, JobId, ParseIdError, RunId, RunIds};
pub use leftovers::{LEFTOVERS_WAIT_MS_MAX, Leftovers, ParseLeftoversError};
pub use outcome::{End, Never, Outcome, StopCause, Usage, Witness};
pub use policy::{OnUnknown, Policy, RestartSafe, Retry, RetryCause};
pub use size::Size;
pub use status::{ParseStatusError, Status};

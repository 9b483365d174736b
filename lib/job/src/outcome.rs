//! How a run ended, who saw it, and what status that makes.

use crate::Status;
use std::fmt;

/// Who saw the end. The order is that of the evidence ladder: the first that can speak, speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Witness {
    /// The job-processor's own wait.
    JobProcessor,
    /// The monitor's wait: the orphan came to it as the subreaper.
    Monitor,
    /// A pidfd that was held: by the network-processor, to which the orphan came as the nearer subreaper; or by anybody, to whom the kernel tells it
    /// (Linux ≥ 6.15).
    Pidfd,
    /// Nobody.
    None,
}

impl Witness {
    /// The name as the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Witness::JobProcessor => "job-processor",
            Witness::Monitor => "monitor",
            Witness::Pidfd => "pidfd",
            Witness::None => "none",
        }
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How the main process of a run ended, as the kernel said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// `exit(code)`, 0 to 255.
    Exited {
        /// The exit code.
        code: u8,
    },
    /// Ended by a signal.
    Signaled {
        /// The signal's number.
        signal: u8,
        /// Whether a core file was written.
        core: bool,
    },
}

impl End {
    /// From a wait status as `wait(2)` gives it (and pidfd exit information and `/proc/PID/stat` too).
    /// `None` for a status that is not an end (stopped, continued).
    pub fn from_wait_status(status: i32) -> Option<End> {
        let low = status & 0x7f;
        match low {
            0 => Some(End::Exited { code: (status >> 8 & 0xff) as u8 }),
            0x7f => None,
            signal => Some(End::Signaled { signal: signal as u8, core: status & 0x80 != 0 }),
        }
    }
}

/// Why a run was made to end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// Somebody asked; the text says who.
    Kill {
        /// Who asked, for people.
        by: String,
    },
    /// Its time was over.
    TimedOut {
        /// The limit, milliseconds.
        timeout_ms: u64,
    },
}

/// What the job's processes used, as far as the witness could tell: the kernel's account of a control group counts all that ever ran in it,
/// that of a wait only the main process and the children that it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// User and system CPU time, milliseconds.
    pub cpu_ms: Option<u64>,
    /// CPU time in user mode, milliseconds.
    pub user_ms: Option<u64>,
    /// CPU time in the kernel, milliseconds.
    pub system_ms: Option<u64>,
    /// Peak resident set of the largest process, KiB.
    pub max_rss_kib: Option<u64>,
    /// The most memory that all processes together had, KiB.
    pub memory_peak_kib: Option<u64>,
    /// Bytes read from devices.
    pub read_bytes: Option<u64>,
    /// Bytes written to devices.
    pub written_bytes: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Context switches of the main process and the children that it waited for.
    pub context_switches: Option<u64>,
    /// The most processes that there were at once.
    pub processes_peak: Option<u64>,
}

impl Usage {
    /// Takes from `better` what that has, and keeps the rest.
    #[must_use]
    pub fn or_better(self, better: Usage) -> Usage {
        Usage {
            cpu_ms: better.cpu_ms.or(self.cpu_ms),
            user_ms: better.user_ms.or(self.user_ms),
            system_ms: better.system_ms.or(self.system_ms),
            max_rss_kib: better.max_rss_kib.or(self.max_rss_kib),
            memory_peak_kib: better.memory_peak_kib.or(self.memory_peak_kib),
            read_bytes: better.read_bytes.or(self.read_bytes),
            written_bytes: better.written_bytes.or(self.written_bytes),
            oom_kills: better.oom_kills.or(self.oom_kills),
            context_switches: better.context_switches.or(self.context_switches),
            processes_peak: better.processes_peak.or(self.processes_peak),
        }
    }
}

/// What kept a run from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Never {
    /// Something that another attempt may meet again.
    Failed,
    /// The host had no room for it just then: no attempt that counts.
    NoRoom,
    /// Somebody asked for it.
    Canceled,
}

/// The outcome of a run. What is not known here is not known at all: nothing is ever invented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran and a witness saw its end.
    Ended {
        /// How.
        end: End,
        /// Why it was made to end, if it was.
        cause: Option<StopCause>,
        /// Who saw it; never [`Witness::None`].
        witness: Witness,
        /// What it used, if the witness could tell.
        usage: Option<Usage>,
    },
    /// It was started, but its command could not be executed (no such file, no permission, …): not one of its instructions ran.
    CannotExecute {
        /// What was tried and what the system said.
        reason: String,
    },
    /// It never started and never will.
    NeverStarted {
        /// Why.
        reason: String,
        /// What kept it from starting.
        why: Never,
    },
    /// It did start, and nobody saw its end.
    Unknown {
        /// The evidence: what was found, who was asked.
        reason: String,
    },
}

impl Outcome {
    /// The final status that this outcome gives its run.
    pub fn status(&self) -> Status {
        match self {
            Outcome::Ended { cause: Some(_), .. } => Status::Killed,
            Outcome::Ended { end: End::Exited { code: 0 }, cause: None, .. } => Status::Completed,
            Outcome::Ended { end: End::Exited { .. } | End::Signaled { .. }, cause: None, .. } => {
                Status::Error
            }
            Outcome::CannotExecute { .. } => Status::Error,
            Outcome::NeverStarted { why: Never::Canceled, .. } => Status::Canceled,
            Outcome::NeverStarted { why: Never::Failed | Never::NoRoom, .. } => Status::Error,
            Outcome::Unknown { .. } => Status::Unknown,
        }
    }

    /// The exit code, if it exited.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Outcome::Ended { end: End::Exited { code }, .. } => Some(*code),
            Outcome::Ended { end: End::Signaled { .. }, .. } => None,
            Outcome::CannotExecute { .. } | Outcome::NeverStarted { .. } | Outcome::Unknown { .. } => None,
        }
    }

    /// The signal, if one ended it.
    pub fn signal(&self) -> Option<u8> {
        match self {
            Outcome::Ended { end: End::Signaled { signal, .. }, .. } => Some(*signal),
            Outcome::Ended { end: End::Exited { .. }, .. } => None,
            Outcome::CannotExecute { .. } | Outcome::NeverStarted { .. } | Outcome::Unknown { .. } => None,
        }
    }

    /// Who saw it.
    pub fn witness(&self) -> Witness {
        match self {
            Outcome::Ended { witness, .. } => *witness,
            Outcome::CannotExecute { .. } => Witness::JobProcessor,
            Outcome::NeverStarted { .. } | Outcome::Unknown { .. } => Witness::None,
        }
    }

    /// What people read beside the status; `None` where the exit code says all.
    pub fn reason(&self) -> Option<String> {
        match self {
            Outcome::Ended { cause: Some(StopCause::Kill { by }), .. } => Some(format!("killed by {by}")),
            Outcome::Ended { cause: Some(StopCause::TimedOut { timeout_ms }), .. } => {
                Some(format!("timed out after {}", crate::span::text(*timeout_ms)))
            }
            Outcome::Ended { end: End::Signaled { signal, core }, cause: None, .. } => {
                Some(format!("ended by signal {signal}{}", if *core { ", core dumped" } else { "" }))
            }
            Outcome::Ended { end: End::Exited { .. }, cause: None, .. } => None,
            Outcome::CannotExecute { reason }
            | Outcome::NeverStarted { reason, .. }
            | Outcome::Unknown { reason } => Some(reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_are_read_as_the_kernel_writes_them() {
        assert_eq!(End::from_wait_status(7 << 8), Some(End::Exited { code: 7 }));
        assert_eq!(End::from_wait_status(0), Some(End::Exited { code: 0 }));
        assert_eq!(End::from_wait_status(9), Some(End::Signaled { signal: 9, core: false }));
        assert_eq!(End::from_wait_status(11 | 0x80), Some(End::Signaled { signal: 11, core: true }));
        assert_eq!(End::from_wait_status(0x137f), None);
    }

    #[test]
    fn only_exit_code_zero_without_a_stop_is_completed() {
        let ended =
            |end, cause| Outcome::Ended { end, cause, witness: Witness::JobProcessor, usage: None }.status();
        assert_eq!(ended(End::Exited { code: 0 }, None), Status::Completed);
        assert_eq!(ended(End::Exited { code: 7 }, None), Status::Error);
        assert_eq!(ended(End::Signaled { signal: 9, core: false }, None), Status::Error);
        assert_eq!(
            ended(End::Exited { code: 0 }, Some(StopCause::TimedOut { timeout_ms: 1 })),
            Status::Killed
        );
    }
}

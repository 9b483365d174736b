//! The statuses of a job, and which may follow which.

use std::fmt;
use std::str::FromStr;

/// Where a job stands. The order of the variants is the order of the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Its time has not come.
    Scheduled,
    /// Somebody holds it back.
    Held,
    /// Waits in its queue for a slot.
    Queued,
    /// Waits for something else than a slot (a retry's pause, a lock, an event).
    Waiting,
    /// Given to an agent; not known to have started.
    Dispatched,
    /// Its process runs.
    Running,
    /// Its process is stopped on request and can go on.
    Suspended,
    /// Final: ended with exit code 0.
    Completed,
    /// Final: ended otherwise, by itself.
    Error,
    /// Final: ended because it was to end (a user's kill, a time-out).
    Killed,
    /// Final: taken back before it started, or before its next attempt.
    Canceled,
    /// Final: no witness saw its end; the reason says why.
    Unknown,
    /// Final: given up by an operator.
    Abandoned,
}

impl Status {
    /// Every status, in the order of the stages.
    pub const ALL: [Status; 13] = [
        Status::Scheduled,
        Status::Held,
        Status::Queued,
        Status::Waiting,
        Status::Dispatched,
        Status::Running,
        Status::Suspended,
        Status::Completed,
        Status::Error,
        Status::Killed,
        Status::Canceled,
        Status::Unknown,
        Status::Abandoned,
    ];

    /// A final status never changes.
    pub fn is_final(self) -> bool {
        self >= Status::Completed
    }

    /// The name as people and the API read it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Scheduled => "Scheduled",
            Status::Held => "Held",
            Status::Queued => "Queued",
            Status::Waiting => "Waiting",
            Status::Dispatched => "Dispatched",
            Status::Running => "Running",
            Status::Suspended => "Suspended",
            Status::Completed => "Completed",
            Status::Error => "Error",
            Status::Killed => "Killed",
            Status::Canceled => "Canceled",
            Status::Unknown => "Unknown",
            Status::Abandoned => "Abandoned",
        }
    }

    /// Whether one attempt may go from `self` to `next`. A new attempt starts a new run, whose status starts anew.
    pub fn may_become(self, next: Status) -> bool {
        if self.is_final() || self == next {
            return false;
        }
        match (self, next) {
            (
                Status::Scheduled | Status::Held | Status::Queued | Status::Waiting,
                Status::Running | Status::Suspended,
            )
            | (Status::Scheduled | Status::Held | Status::Waiting, Status::Dispatched) => false,
            (Status::Held, Status::Scheduled) | (Status::Waiting, Status::Held | Status::Queued) => true,
            (Status::Queued, Status::Held) | (Status::Suspended, Status::Running) => true,
            (from, to) => from < to,
        }
    }

    /// Whether a *job* may go from `self` to `next` because its attempt is over and another follows: by itself from a placed
    /// attempt, by an operator's word from a final status. The attempt's run keeps its own final status.
    pub fn may_begin_again(self, next: Status) -> bool {
        match self {
            Status::Dispatched | Status::Running | Status::Suspended => {
                matches!(next, Status::Queued | Status::Waiting)
            }
            Status::Completed
            | Status::Error
            | Status::Killed
            | Status::Canceled
            | Status::Unknown
            | Status::Abandoned => matches!(next, Status::Queued | Status::Held),
            Status::Scheduled | Status::Held | Status::Queued | Status::Waiting => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is not the name of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseStatusError {
    /// The text that was given.
    pub text: String,
}

impl fmt::Display for ParseStatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no status is called \"{}\"; the statuses are ", self.text)?;
        for (i, status) in Status::ALL.iter().enumerate() {
            write!(f, "{}{status}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseStatusError {}

impl FromStr for Status {
    type Err = ParseStatusError;
    fn from_str(text: &str) -> Result<Self, ParseStatusError> {
        Status::ALL
            .into_iter()
            .find(|status| status.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| ParseStatusError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_status_never_changes() {
        for from in Status::ALL.into_iter().filter(|s| s.is_final()) {
            assert!(Status::ALL.into_iter().all(|to| !from.may_become(to)), "{from}");
        }
    }

    #[test]
    fn nothing_runs_that_was_not_dispatched() {
        for from in [Status::Scheduled, Status::Held, Status::Queued, Status::Waiting] {
            assert!(!from.may_become(Status::Running), "{from}");
            assert_eq!(from.may_become(Status::Dispatched), from == Status::Queued, "{from}");
        }
        assert!(Status::Dispatched.may_become(Status::Running));
        assert!(!Status::Running.may_become(Status::Dispatched));
    }

    #[test]
    fn only_what_was_placed_or_is_over_begins_again() {
        for from in Status::ALL {
            let again: Vec<Status> = Status::ALL.into_iter().filter(|to| from.may_begin_again(*to)).collect();
            let placed = [Status::Dispatched, Status::Running, Status::Suspended].contains(&from);
            let expected: &[Status] = match (placed, from.is_final()) {
                (true, _) => &[Status::Queued, Status::Waiting],
                (false, true) => &[Status::Held, Status::Queued],
                (false, false) => &[],
            };
            assert_eq!(again, expected, "{from}");
        }
    }

    #[test]
    fn names_can_be_read_back_in_any_case() {
        for status in Status::ALL {
            assert_eq!(status.name().to_lowercase().parse(), Ok(status));
        }
        assert!("Finished".parse::<Status>().is_err());
    }
}

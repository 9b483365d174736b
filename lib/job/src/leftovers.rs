//! What becomes of processes that a job leaves behind.

use std::fmt;
use std::str::FromStr;

/// Leftovers that are waited for are ended after this long, milliseconds.
pub const LEFTOVERS_WAIT_MS_MAX: u64 = 24 * 3_600_000;

/// What becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Leftovers {
    /// They are ended: soft signal, then SIGKILL.
    #[default]
    Kill,
    /// They are waited for, up to a limit, then ended.
    Wait,
    /// They go on.
    Ignore,
}

impl Leftovers {
    /// Every one.
    pub const ALL: [Leftovers; 3] = [Leftovers::Kill, Leftovers::Wait, Leftovers::Ignore];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Leftovers::Kill => "kill",
            Leftovers::Wait => "wait",
            Leftovers::Ignore => "ignore",
        }
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that is no such policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is nothing that can be done with leftovers: write kill, wait or ignore")]
pub struct ParseLeftoversError(String);

impl FromStr for Leftovers {
    type Err = ParseLeftoversError;

    fn from_str(text: &str) -> Result<Leftovers, ParseLeftoversError> {
        let known = Leftovers::ALL.into_iter().find(|known| known.name() == text);
        known.ok_or_else(|| ParseLeftoversError(text.to_owned()))
    }
}

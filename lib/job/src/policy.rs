//! What follows when an attempt at a job is over: another attempt, a person's decision, or nothing.
//!
//! | outcome of the attempt                | what decides                                                                 |
//! |---------------------------------------|------------------------------------------------------------------------------|
//! | Completed, or canceled                | nothing follows                                                              |
//! | a user's kill                         | nothing follows: it ends the retries too                                     |
//! | an exit code, a signal, a time-out    | [`Retry`], if its causes name it and it has attempts left                    |
//! | cannot be executed, never started     | [`Retry`], as exit code 255 ("failed before the program ran")                |
//! | Unknown: it may have executed         | [`RestartSafe`] first: `ask` asks, `never_twice` ends it; then [`OnUnknown`], or [`Retry`] with the cause `lost` |

use crate::{End, Never, Outcome, StopCause};
use std::fmt;
use std::str::FromStr;

/// The settings of a job for what follows its attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether, when and how often a failed attempt is followed by another.
    pub retry: Option<Retry>,
    /// What is done when nobody can say how an attempt ended.
    pub on_unknown: OnUnknown,
    /// Whether the job may be executed a second time if the first may have executed.
    pub restart_safe: RestartSafe,
}

/// How failed attempts are repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first one included.
    pub attempts_max: u32,
    /// The pause before the second attempt, milliseconds.
    pub backoff_ms: u64,
    /// The longest pause, milliseconds.
    pub backoff_max_ms: u64,
    /// Each pause is that much of the one before, per cent: 200 doubles it.
    pub factor_percent: u32,
    /// Which failures are repeated; empty: every one but `lost`.
    pub on: Vec<RetryCause>,
}

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryCause {
    /// An exit code from the first to the last, both included. 255 stands for "not executed" too.
    ExitCodes(u8, u8),
    /// A signal that nobody of us sent.
    Signal,
    /// Its time was over.
    Timeout,
    /// Nobody saw its end: the outcome is Unknown.
    Lost,
}

/// What is done about an Unknown outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// Nothing: the job is Unknown.
    #[default]
    None,
    /// The job is executed again, as far as [`RestartSafe`] allows.
    Restart,
    /// The operators are told.
    Escalate,
}

/// Whether a second execution does harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartSafe {
    /// It must not be executed a second time if the first may have executed.
    #[default]
    NeverTwice,
    /// It may be executed several times.
    AtLeastOnce,
    /// A person decides.
    Ask,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the job is over.
    Over,
    /// Another attempt after this pause.
    Again {
        /// Milliseconds; 0: at once.
        pause_ms: u64,
    },
    /// A person has to decide.
    Ask,
}

/// The most attempts that a retry may ask for.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// The longest pause between two attempts: 30 days.
pub const BACKOFF_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// The pause where none is said.
pub const BACKOFF_MS_DEFAULT: u64 = 10_000;
/// The factor where none is said: doubling.
pub const FACTOR_PERCENT_DEFAULT: u32 = 200;
/// The largest factor.
pub const FACTOR_PERCENT_MAX: u32 = 10_000;
/// A job without a retry that is restarted after each Unknown outcome is restarted up to this attempt: it may be what
/// kills its hosts.
pub const UNKNOWN_ATTEMPTS_MAX: u32 = 5;
/// So many causes can be listed.
const CAUSES_MAX: usize = 100;
/// What an attempt that was not executed counts as.
const NOT_EXECUTED: u8 = 255;

impl Policy {
    /// What follows the attempt number `tries` (from 1) that ended like this.
    pub fn after(&self, outcome: &Outcome, tries: u32) -> Next {
        let cause = match outcome {
            Outcome::Unknown { .. } => return self.after_unknown(tries),
            Outcome::Ended { cause: Some(StopCause::TimedOut { .. }), .. } => RetryCause::Timeout,
            Outcome::Ended { cause: None, end: End::Signaled { .. }, .. } => RetryCause::Signal,
            Outcome::Ended { cause: None, end: End::Exited { code }, .. } if *code != 0 => {
                RetryCause::ExitCodes(*code, *code)
            }
            Outcome::CannotExecute { .. }
            | Outcome::NeverStarted { why: Never::Failed | Never::NoRoom, .. } => {
                RetryCause::ExitCodes(NOT_EXECUTED, NOT_EXECUTED)
            }
            Outcome::Ended { .. } | Outcome::NeverStarted { why: Never::Canceled, .. } => return Next::Over,
        };
        self.retry_after(cause, tries)
    }

    fn after_unknown(&self, tries: u32) -> Next {
        match self.restart_safe {
            RestartSafe::NeverTwice => Next::Over,
            RestartSafe::Ask => Next::Ask,
            RestartSafe::AtLeastOnce => match (self.on_unknown, &self.retry) {
                (OnUnknown::Restart, Some(retry)) if tries < retry.attempts_max => {
                    Next::Again { pause_ms: retry.pause_ms(tries) }
                }
                (OnUnknown::Restart, None) if tries < UNKNOWN_ATTEMPTS_MAX => Next::Again { pause_ms: 0 },
                (OnUnknown::Restart, Some(_) | None) => Next::Over,
                (OnUnknown::None | OnUnknown::Escalate, _) => self.retry_after(RetryCause::Lost, tries),
            },
        }
    }

    fn retry_after(&self, cause: RetryCause, tries: u32) -> Next {
        match &self.retry {
            Some(retry) if tries < retry.attempts_max && retry.covers(cause) => {
                Next::Again { pause_ms: retry.pause_ms(tries) }
            }
            Some(_) | None => Next::Over,
        }
    }

    /// Checks that the settings make sense together; the error says what to change.
    pub fn check(&self) -> Result<(), String> {
        if let Some(retry) = &self.retry {
            retry.check()?;
            if retry.on.contains(&RetryCause::Lost) && self.restart_safe == RestartSafe::NeverTwice {
                return Err("retry on \"lost\" repeats a job that may have been executed: say restart_safe = at_least_once too".into());
            }
        }
        if self.on_unknown == OnUnknown::Restart && self.restart_safe == RestartSafe::NeverTwice {
            return Err("on_unknown = restart repeats a job that may have been executed: say restart_safe = at_least_once too, \
                or ask to be asked first"
                .into());
        }
        Ok(())
    }
}

impl Retry {
    /// The pause after attempt number `tries`, from 1.
    pub fn pause_ms(&self, tries: u32) -> u64 {
        let mut pause = self.backoff_ms;
        for _ in 1..tries {
            if pause >= self.backoff_max_ms || self.factor_percent <= 100 {
                break;
            }
            pause = pause.saturating_mul(u64::from(self.factor_percent)) / 100;
        }
        pause.min(self.backoff_max_ms)
    }

    fn covers(&self, cause: RetryCause) -> bool {
        if self.on.is_empty() {
            return cause != RetryCause::Lost;
        }
        self.on.iter().any(|named| match (named, cause) {
            (RetryCause::ExitCodes(first, last), RetryCause::ExitCodes(code, _)) => {
                (*first..=*last).contains(&code)
            }
            (named, cause) => *named == cause,
        })
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=ATTEMPTS_MAX).contains(&self.attempts_max) {
            return Err(format!(
                "retry: attempts_max must be 1 to {ATTEMPTS_MAX}, the first attempt included"
            ));
        }
        if self.backoff_max_ms > BACKOFF_MS_MAX || self.backoff_ms > self.backoff_max_ms {
            return Err(
                "retry: backoff must not be longer than backoff_max, and that not longer than 30d".into()
            );
        }
        if !(100..=FACTOR_PERCENT_MAX).contains(&self.factor_percent) {
            return Err("retry: factor must be 1 to 100".into());
        }
        if self.on.len() > CAUSES_MAX {
            return Err(format!("retry: at most {CAUSES_MAX} causes can be listed"));
        }
        Ok(())
    }
}

impl fmt::Display for RetryCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RetryCause::ExitCodes(first, last) if first == last => write!(f, "{first}"),
            RetryCause::ExitCodes(first, last) => write!(f, "{first}-{last}"),
            RetryCause::Signal => f.write_str("signal"),
            RetryCause::Timeout => f.write_str("timeout"),
            RetryCause::Lost => f.write_str("lost"),
        }
    }
}

impl FromStr for RetryCause {
    type Err = String;
    fn from_str(text: &str) -> Result<RetryCause, String> {
        let wrong = || {
            format!(
                "\"{text}\" is no cause of a retry: an exit code (75), a range of them (100-110), signal, timeout or lost"
            )
        };
        match text {
            "signal" => return Ok(RetryCause::Signal),
            "timeout" => return Ok(RetryCause::Timeout),
            "lost" => return Ok(RetryCause::Lost),
            _ => {}
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let code = |text: &str| text.parse::<u8>().map_err(|_| wrong());
        let (first, last) = (code(first)?, code(last)?);
        if first > last || last == 0 {
            return Err(wrong());
        }
        Ok(RetryCause::ExitCodes(first, last))
    }
}

impl OnUnknown {
    /// Every value.
    pub const ALL: [OnUnknown; 3] = [OnUnknown::None, OnUnknown::Restart, OnUnknown::Escalate];

    /// The name as people and the API have it.
    pub fn name(self) -> &'static str {
        match self {
            OnUnknown::None => "none",
            OnUnknown::Restart => "restart",
            OnUnknown::Escalate => "escalate",
        }
    }
}

impl RestartSafe {
    /// Every value.
    pub const ALL: [RestartSafe; 3] = [RestartSafe::NeverTwice, RestartSafe::AtLeastOnce, RestartSafe::Ask];

    /// The name as people and the API have it.
    pub fn name(self) -> &'static str {
        match self {
            RestartSafe::NeverTwice => "never_twice",
            RestartSafe::AtLeastOnce => "at_least_once",
            RestartSafe::Ask => "ask",
        }
    }
}

impl FromStr for OnUnknown {
    type Err = String;
    fn from_str(text: &str) -> Result<OnUnknown, String> {
        let known = OnUnknown::ALL.into_iter().find(|value| value.name() == text);
        known.ok_or_else(|| format!("\"{text}\" is not none, restart or escalate"))
    }
}

impl FromStr for RestartSafe {
    type Err = String;
    fn from_str(text: &str) -> Result<RestartSafe, String> {
        let known = RestartSafe::ALL.into_iter().find(|value| value.name() == text.replace('-', "_"));
        known.ok_or_else(|| format!("\"{text}\" is not never_twice, at_least_once or ask"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Witness;

    fn retry(on: &[RetryCause]) -> Retry {
        Retry { attempts_max: 3, backoff_ms: 10, backoff_max_ms: 35, factor_percent: 200, on: on.to_vec() }
    }

    fn ended(end: End, cause: Option<StopCause>) -> Outcome {
        Outcome::Ended { end, cause, witness: Witness::JobProcessor, usage: None }
    }

    fn exited(code: u8) -> Outcome {
        ended(End::Exited { code }, None)
    }

    fn unknown() -> Outcome {
        Outcome::Unknown { reason: "r".into() }
    }

    const SIGNALED: End = End::Signaled { signal: 11, core: false };

    #[test]
    fn pauses_grow_by_the_factor_up_to_the_longest() {
        let retry = retry(&[]);
        assert_eq!([1, 2, 3, 4, 900].map(|tries| retry.pause_ms(tries)), [10, 20, 35, 35, 35]);
        let even = Retry { factor_percent: 100, ..retry };
        assert_eq!([1, 2, 3].map(|tries| even.pause_ms(tries)), [10, 10, 10]);
    }

    #[test]
    fn a_retry_without_causes_covers_every_failure_that_is_known() {
        let policy = Policy { retry: Some(retry(&[])), ..Policy::default() };
        let timed_out = ended(SIGNALED, Some(StopCause::TimedOut { timeout_ms: 1 }));
        let cannot = Outcome::CannotExecute { reason: "r".into() };
        let never = |why| Outcome::NeverStarted { reason: "r".into(), why };
        for outcome in [exited(1), ended(SIGNALED, None), timed_out, cannot, never(Never::Failed)] {
            assert_eq!(policy.after(&outcome, 1), Next::Again { pause_ms: 10 }, "{outcome:?}");
            assert_eq!(policy.after(&outcome, 3), Next::Over, "{outcome:?}");
        }
        let killed = ended(SIGNALED, Some(StopCause::Kill { by: "me".into() }));
        for outcome in [exited(0), killed, never(Never::Canceled), unknown()] {
            assert_eq!(policy.after(&outcome, 1), Next::Over, "{outcome:?}");
        }
    }

    #[test]
    fn only_the_named_causes_are_repeated() {
        let policy = |on: &[RetryCause]| Policy { retry: Some(retry(on)), ..Policy::default() };
        let codes = policy(&[RetryCause::ExitCodes(75, 75), RetryCause::ExitCodes(100, 110)]);
        let again = |policy: &Policy, outcome: Outcome| policy.after(&outcome, 1) != Next::Over;
        assert_eq!(
            [75, 100, 105, 110, 1, 76, 111].map(|code| again(&codes, exited(code))),
            [true, true, true, true, false, false, false]
        );
        assert!(!again(&codes, ended(SIGNALED, None)));
        assert!(again(&policy(&[RetryCause::Signal]), ended(SIGNALED, None)));
        assert!(!again(&policy(&[RetryCause::Timeout]), ended(SIGNALED, None)));
    }

    #[test]
    fn an_unknown_outcome_is_never_followed_by_a_second_execution_unless_that_is_allowed() {
        let lost = Some(retry(&[RetryCause::Lost]));
        for on_unknown in OnUnknown::ALL {
            for retry in [None, Some(retry(&[])), lost.clone()] {
                let policy = |restart_safe| Policy { retry: retry.clone(), on_unknown, restart_safe };
                assert_eq!(policy(RestartSafe::NeverTwice).after(&unknown(), 1), Next::Over);
                assert_eq!(policy(RestartSafe::Ask).after(&unknown(), 1), Next::Ask);
                let expected = match (on_unknown, &retry) {
                    (OnUnknown::Restart, None) => Next::Again { pause_ms: 0 },
                    (OnUnknown::Restart, Some(_)) => Next::Again { pause_ms: 10 },
                    (_, Some(retry)) if !retry.on.is_empty() => Next::Again { pause_ms: 10 },
                    (_, Some(_) | None) => Next::Over,
                };
                assert_eq!(policy(RestartSafe::AtLeastOnce).after(&unknown(), 1), expected);
            }
        }
    }

    #[test]
    fn a_job_that_may_kill_its_hosts_is_not_restarted_for_ever() {
        let policy =
            Policy { retry: None, on_unknown: OnUnknown::Restart, restart_safe: RestartSafe::AtLeastOnce };
        assert_eq!(policy.after(&unknown(), UNKNOWN_ATTEMPTS_MAX), Next::Over);
        let policy = Policy { retry: Some(retry(&[])), ..policy };
        assert_eq!(policy.after(&unknown(), 3), Next::Over);
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let unsafe_restart = Policy { on_unknown: OnUnknown::Restart, ..Policy::default() };
        assert!(unsafe_restart.check().unwrap_err().contains("at_least_once"));
        for restart_safe in [RestartSafe::AtLeastOnce, RestartSafe::Ask] {
            assert_eq!(Policy { restart_safe, ..unsafe_restart.clone() }.check(), Ok(()));
        }
        let policy = |retry| Policy { retry: Some(retry), ..Policy::default() };
        assert!(policy(retry(&[RetryCause::Lost])).check().is_err());
        for wrong in [
            Retry { attempts_max: 0, ..retry(&[]) },
            Retry { attempts_max: ATTEMPTS_MAX + 1, ..retry(&[]) },
            Retry { backoff_ms: 36, ..retry(&[]) },
            Retry { backoff_max_ms: BACKOFF_MS_MAX + 1, ..retry(&[]) },
            Retry { factor_percent: 99, ..retry(&[]) },
        ] {
            assert!(policy(wrong.clone()).check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn causes_and_settings_are_read_as_they_are_written() {
        for text in ["75", "100-110", "signal", "timeout", "lost"] {
            assert_eq!(text.parse::<RetryCause>().unwrap().to_string(), text);
        }
        for text in ["", "0", "256", "5-3", "0-0", "x", "-1"] {
            assert!(text.parse::<RetryCause>().is_err(), "{text}");
        }
        for value in OnUnknown::ALL {
            assert_eq!(value.name().parse(), Ok(value));
        }
        for value in RestartSafe::ALL {
            assert_eq!(value.name().parse(), Ok(value));
        }
        assert_eq!("at-least-once".parse(), Ok(RestartSafe::AtLeastOnce));
    }
}

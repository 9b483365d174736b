//! What the supervisor of a running job decides: the job-processor, or the network-processor for a run it adopted.
//!
//! ```text
//!             Stop, or the time is over              the grace is over             every KILL_AGAIN_MS
//!  Running ───────────────────────────▶ Stopping ───────────────────▶ Killing ───────────────┐
//!     │                                     │                            │  ◀───────────────┘
//!     └────────────── Exited ───────────────┴────────── Exited ──────────┴──────▶ Ended
//! ```
//!
//! Happy path: `Running` until the kernel says that the process ended, then the outcome is recorded. A stop sends the soft signal to
//! the whole process tree, and SIGKILL when the grace is over; a second stop can only shorten the grace. What cannot be killed (a
//! process in uninterruptible sleep) is tried again for ever and reported once.

use crate::{End, Outcome, StopCause, Usage, Witness};

/// Between two rounds of SIGKILL, milliseconds.
pub const KILL_AGAIN_MS: u64 = 1_000;
/// After this many rounds people are told.
pub const KILLS_BEFORE_ALERT: u32 = 10;
/// Between the soft signal and SIGKILL where nobody said otherwise, milliseconds.
pub const GRACE_MS_DEFAULT: u64 = 10_000;

/// Where the job stands, for its supervisor. All times are `CLOCK_BOOTTIME` milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its process runs.
    Running {
        /// When its time is over, if it is limited.
        timeout: Option<Timeout>,
    },
    /// The soft signal was sent.
    Stopping {
        /// Why.
        cause: StopCause,
        /// When SIGKILL follows.
        kill_at_ms: u64,
    },
    /// SIGKILL was sent.
    Killing {
        /// Why.
        cause: StopCause,
        /// When it is sent again.
        again_at_ms: u64,
        /// How often it was sent.
        rounds: u32,
    },
    /// The process ended.
    Ended {
        /// How.
        end: End,
        /// Why it was told to, if it was.
        cause: Option<StopCause>,
    },
}

/// A limit of the run's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// When it is over.
    pub at_ms: u64,
    /// How long it was, milliseconds.
    pub length_ms: u64,
    /// The grace that follows, milliseconds.
    pub grace_ms: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants the job to end.
    Stop {
        /// Who, for people.
        by: String,
        /// Between the soft signal and SIGKILL, milliseconds.
        grace_ms: u64,
    },
    /// Time passed.
    Tick,
    /// A witness saw the process end.
    Exited(End),
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write down why, then send SIGTERM and SIGCONT to the process tree.
    SoftSignal(StopCause),
    /// SIGKILL everything that the job left running.
    KillTree,
    /// As `KillTree`, and tell people that it does not work.
    KillTreeAndAlert,
    /// Record the outcome.
    Record,
}

impl State {
    /// The state of a job that just started, or that was adopted.
    pub fn running(started_ms: u64, timeout_ms: Option<u64>, grace_ms: Option<u64>) -> State {
        let grace_ms = grace_ms.unwrap_or(GRACE_MS_DEFAULT);
        let timeout = timeout_ms.map(|length_ms| Timeout {
            at_ms: started_ms.saturating_add(length_ms),
            length_ms,
            grace_ms,
        });
        State::Running { timeout }
    }

    /// Decides the next state. Does nothing itself.
    #[must_use]
    pub fn on(self, event: Event, now_ms: u64) -> (State, Option<Action>) {
        match (self, event) {
            (State::Running { .. }, Event::Exited(end)) => ended(end, None),
            (State::Stopping { cause, .. } | State::Killing { cause, .. }, Event::Exited(end)) => {
                ended(end, Some(cause))
            }
            (State::Running { .. }, Event::Stop { by, grace_ms }) => {
                stop(StopCause::Kill { by }, grace_ms, now_ms)
            }
            (State::Running { timeout: Some(t) }, Event::Tick) if now_ms >= t.at_ms => {
                stop(StopCause::TimedOut { timeout_ms: t.length_ms }, t.grace_ms, now_ms)
            }
            (State::Stopping { cause, kill_at_ms }, Event::Stop { grace_ms, .. }) => {
                let kill_at_ms = kill_at_ms.min(now_ms.saturating_add(grace_ms));
                State::Stopping { cause, kill_at_ms }.on(Event::Tick, now_ms)
            }
            (State::Stopping { cause, kill_at_ms }, Event::Tick) if now_ms >= kill_at_ms => {
                kill(cause, 0, now_ms)
            }
            (State::Killing { cause, again_at_ms, rounds }, Event::Tick) if now_ms >= again_at_ms => {
                kill(cause, rounds, now_ms)
            }
            (state @ (State::Running { .. } | State::Stopping { .. }), Event::Tick) => (state, None),
            (state @ State::Killing { .. }, Event::Tick | Event::Stop { .. }) => (state, None),
            (state @ State::Ended { .. }, Event::Tick | Event::Stop { .. } | Event::Exited(_)) => {
                (state, None)
            }
        }
    }

    /// When `Tick` is due at the latest, `CLOCK_BOOTTIME` milliseconds.
    pub fn next_tick_ms(&self) -> Option<u64> {
        match self {
            State::Running { timeout } => timeout.map(|t| t.at_ms),
            State::Stopping { kill_at_ms, .. } => Some(*kill_at_ms),
            State::Killing { again_at_ms, .. } => Some(*again_at_ms),
            State::Ended { .. } => None,
        }
    }

    /// The outcome, once ended.
    pub fn outcome(&self, witness: Witness, usage: Option<Usage>) -> Option<Outcome> {
        match self {
            State::Ended { end, cause } => {
                Some(Outcome::Ended { end: *end, cause: cause.clone(), witness, usage })
            }
            State::Running { .. } | State::Stopping { .. } | State::Killing { .. } => None,
        }
    }
}

fn ended(end: End, cause: Option<StopCause>) -> (State, Option<Action>) {
    (State::Ended { end, cause }, Some(Action::Record))
}

fn stop(cause: StopCause, grace_ms: u64, now_ms: u64) -> (State, Option<Action>) {
    let action = Action::SoftSignal(cause.clone());
    (State::Stopping { cause, kill_at_ms: now_ms.saturating_add(grace_ms) }, Some(action))
}

fn kill(cause: StopCause, rounds: u32, now_ms: u64) -> (State, Option<Action>) {
    let rounds = rounds.saturating_add(1);
    let action = if rounds == KILLS_BEFORE_ALERT { Action::KillTreeAndAlert } else { Action::KillTree };
    (State::Killing { cause, again_at_ms: now_ms.saturating_add(KILL_AGAIN_MS), rounds }, Some(action))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop_event(grace_ms: u64) -> Event {
        Event::Stop { by: "alice".into(), grace_ms }
    }

    #[test]
    fn a_run_that_ignores_stop_is_killed_when_its_grace_is_over() {
        let (state, action) = State::running(0, None, None).on(stop_event(500), 1_000);
        assert_eq!(action, Some(Action::SoftSignal(StopCause::Kill { by: "alice".into() })));
        let (state, action) = state.on(Event::Tick, 1_499);
        assert_eq!(action, None);
        let (state, action) = state.on(Event::Tick, 1_500);
        assert_eq!(action, Some(Action::KillTree));
        let (state, _) = state.on(Event::Exited(End::Signaled { signal: 9, core: false }), 1_501);
        assert_eq!(
            state.outcome(Witness::JobProcessor, None).map(|o| o.status()),
            Some(crate::Status::Killed)
        );
    }

    #[test]
    fn a_run_is_stopped_when_its_time_is_over_and_the_outcome_says_so() {
        let (state, action) = State::running(100, Some(50), Some(10)).on(Event::Tick, 149);
        assert_eq!(action, None);
        assert_eq!(state.next_tick_ms(), Some(150));
        let (state, _) = state.on(Event::Tick, 150);
        let (state, _) = state.on(Event::Exited(End::Exited { code: 0 }), 151);
        let outcome = state.outcome(Witness::JobProcessor, None).unwrap();
        assert_eq!(outcome.reason().as_deref(), Some("timed out after 50ms"));
    }

    #[test]
    fn a_second_stop_can_shorten_the_grace_but_never_lengthen_it() {
        let (state, _) = State::running(0, None, None).on(stop_event(10_000), 0);
        let (state, action) = state.on(stop_event(60_000), 1);
        assert_eq!((state.next_tick_ms(), action), (Some(10_000), None));
        let (_, action) = state.on(stop_event(0), 2);
        assert_eq!(action, Some(Action::KillTree));
    }

    #[test]
    fn what_cannot_be_killed_is_tried_for_ever_and_reported_once() {
        let (mut state, _) = State::running(0, None, None).on(stop_event(0), 0);
        let mut alerts = 0;
        let mut now_ms = 0;
        for _ in 0..100 {
            now_ms = state.next_tick_ms().unwrap();
            let (next, action) = state.on(Event::Tick, now_ms);
            alerts += u32::from(action == Some(Action::KillTreeAndAlert));
            state = next;
        }
        assert_eq!(alerts, 1);
        assert!(now_ms >= 98 * KILL_AGAIN_MS);
    }

    #[test]
    fn an_end_is_recorded_once() {
        let (state, action) = State::running(0, None, None).on(Event::Exited(End::Exited { code: 7 }), 5);
        assert_eq!(action, Some(Action::Record));
        let (after, action) = state.clone().on(Event::Exited(End::Exited { code: 0 }), 6);
        assert_eq!((after, action), (state, None));
    }
}

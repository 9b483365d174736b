//! What the supervisor of a running job decides: the job-processor, or the network-processor for a run it adopted.
//!
//! ```text
//!  Suspended ──────────── Stop ─────────────┐
//!   │  ▲                                    │
//!  Resume │ Suspend                         ▼
//!   ▼  │      Stop, or the time is over              the grace is over             every KILL_AGAIN_MS
//!  Running ───────────────────────────▶ Stopping ───────────────────▶ Killing ───────────────┐
//!     │                                     │                            │  ◀───────────────┘
//!     └────────────── Exited ───────────────┴────────── Exited ──────────┴──────▶ Ended
//! ```
//!
//! Happy path: `Running` until the kernel says that the process ended, then the outcome is recorded. A stop sends the soft signal to
//! the whole process tree, and SIGKILL when the grace is over; a second stop can only shorten the grace. What cannot be killed (a
//! process in uninterruptible sleep) is tried again for ever and reported once.
//!
//! A suspended run stands still and so does its time limit. Only a stop, a resume or its end lead out of that.

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
    /// It stands still on request.
    Suspended {
        /// When its time would be over if it had gone on.
        timeout: Option<Timeout>,
        /// Since when.
        since_ms: u64,
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

impl Timeout {
    fn later(self, by_ms: u64) -> Timeout {
        Timeout { at_ms: self.at_ms.saturating_add(by_ms), ..self }
    }
}

/// When a run stood still, as its log tells: enough for whoever takes over its supervision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pauses {
    /// Since when it stands still now.
    since_ms: Option<u64>,
    /// How long it stood still before.
    before_ms: u64,
}

impl Pauses {
    /// The log says: it was to stand still then (`CLOCK_BOOTTIME` milliseconds). A writer that does not say when gets no credit.
    pub fn on_suspended(&mut self, at_ms: Option<u64>) {
        self.since_ms.get_or_insert(at_ms.unwrap_or(u64::MAX));
    }

    /// The log says: it went on then.
    pub fn on_resumed(&mut self, at_ms: Option<u64>) {
        if let Some(since_ms) = self.since_ms.take() {
            self.before_ms += at_ms.unwrap_or(0).saturating_sub(since_ms);
        }
    }

    /// Whether it stands still now.
    pub fn is_suspended(&self) -> bool {
        self.since_ms.is_some()
    }
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
    /// Somebody wants the job to stand still.
    Suspend {
        /// Who, for people.
        by: String,
    },
    /// Somebody wants it to go on.
    Resume {
        /// Who, for people.
        by: String,
    },
    /// Time passed.
    Tick,
    /// A witness saw the process end.
    Exited(End),
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write down why, then send SIGTERM and SIGCONT to the process tree, which may stand still.
    SoftSignal(StopCause),
    /// Write down who wants it, then stop the whole process tree.
    Freeze {
        /// Who, for people.
        by: String,
    },
    /// Write down who wants it, then let the whole process tree go on.
    Thaw {
        /// Who, for people.
        by: String,
    },
    /// SIGKILL everything that the job left running.
    KillTree,
    /// As `KillTree`, and tell people that it does not work.
    KillTreeAndAlert,
    /// Record the outcome.
    Record,
}

impl State {
    /// The state of a job that was started then and is taken over now, as its log tells.
    pub fn adopted(started_ms: u64, timeout_ms: Option<u64>, grace_ms: Option<u64>, pauses: Pauses) -> State {
        let counts_from_ms = started_ms.saturating_add(pauses.before_ms);
        match (State::running(counts_from_ms, timeout_ms, grace_ms), pauses.since_ms) {
            (State::Running { timeout }, Some(since_ms)) => State::Suspended { timeout, since_ms },
            (state, _) => state,
        }
    }

    /// The state of a job that just started.
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
            (State::Running { .. } | State::Suspended { .. }, Event::Exited(end)) => ended(end, None),
            (State::Stopping { cause, .. } | State::Killing { cause, .. }, Event::Exited(end)) => {
                ended(end, Some(cause))
            }
            (State::Running { timeout }, Event::Suspend { by }) => {
                (State::Suspended { timeout, since_ms: now_ms }, Some(Action::Freeze { by }))
            }
            (State::Suspended { timeout, since_ms }, Event::Resume { by }) => {
                let stood_ms = now_ms.saturating_sub(since_ms);
                (State::Running { timeout: timeout.map(|t| t.later(stood_ms)) }, Some(Action::Thaw { by }))
            }
            (State::Running { .. } | State::Suspended { .. }, Event::Stop { by, grace_ms }) => {
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
            // It has what it wants, or there is nothing left to pause.
            (
                state @ (State::Running { .. } | State::Stopping { .. }),
                Event::Tick | Event::Resume { .. },
            )
            | (state @ State::Suspended { .. }, Event::Tick | Event::Suspend { .. })
            | (state @ State::Stopping { .. }, Event::Suspend { .. })
            | (
                state @ State::Killing { .. },
                Event::Tick | Event::Stop { .. } | Event::Suspend { .. } | Event::Resume { .. },
            )
            | (
                state @ State::Ended { .. },
                Event::Tick
                | Event::Stop { .. }
                | Event::Exited(_)
                | Event::Suspend { .. }
                | Event::Resume { .. },
            ) => (state, None),
        }
    }

    /// When `Tick` is due at the latest, `CLOCK_BOOTTIME` milliseconds.
    pub fn next_tick_ms(&self) -> Option<u64> {
        match self {
            State::Running { timeout } => timeout.map(|t| t.at_ms),
            State::Suspended { .. } => None,
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
            State::Running { .. }
            | State::Suspended { .. }
            | State::Stopping { .. }
            | State::Killing { .. } => None,
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

    fn suspend() -> Event {
        Event::Suspend { by: "alice".into() }
    }

    fn resume() -> Event {
        Event::Resume { by: "bob".into() }
    }

    #[test]
    fn the_time_limit_does_not_count_while_a_run_stands_still() {
        let (state, action) = State::running(0, Some(1_000), None).on(suspend(), 400);
        assert_eq!(action, Some(Action::Freeze { by: "alice".into() }));
        assert_eq!(state.next_tick_ms(), None);
        let (state, action) = state.on(Event::Tick, 1_000_000);
        assert_eq!(action, None);
        let (state, action) = state.on(resume(), 1_000_000);
        assert_eq!(action, Some(Action::Thaw { by: "bob".into() }));
        assert_eq!(state.next_tick_ms(), Some(1_000_600));
        let (_, action) = state.on(Event::Tick, 1_000_600);
        assert_eq!(action, Some(Action::SoftSignal(StopCause::TimedOut { timeout_ms: 1_000 })));
    }

    #[test]
    fn whoever_takes_over_knows_from_the_log_that_it_stands_still_and_what_time_is_left() {
        let mut pauses = Pauses::default();
        pauses.on_suspended(Some(100));
        pauses.on_suspended(Some(150)); // told twice
        pauses.on_resumed(Some(300));
        pauses.on_resumed(Some(999));
        let state = State::adopted(0, Some(1_000), None, pauses);
        assert_eq!(state.next_tick_ms(), Some(1_200));
        pauses.on_suspended(Some(700));
        assert!(pauses.is_suspended());
        let (state, _) = State::adopted(0, Some(1_000), None, pauses).on(resume(), 5_000);
        assert_eq!(state.next_tick_ms(), Some(5_500)); // 500 of 1,000 were used up to 700
    }

    #[test]
    fn a_run_that_stands_still_can_be_stopped_and_one_that_is_stopped_cannot_be_suspended() {
        let (state, _) = State::running(0, None, None).on(suspend(), 1);
        assert_eq!(state.clone().on(suspend(), 2), (state.clone(), None));
        let (state, action) = state.on(stop_event(10), 3);
        assert!(matches!(action, Some(Action::SoftSignal(_))));
        for event in [suspend(), resume()] {
            assert_eq!(state.clone().on(event, 4), (state.clone(), None));
        }
        assert_eq!(state.on(Event::Tick, 13).1, Some(Action::KillTree));
    }

    #[test]
    fn a_run_that_ends_while_it_stands_still_has_its_outcome() {
        let (state, _) = State::running(0, None, None).on(suspend(), 1);
        let (_, action) = state.on(Event::Exited(End::Signaled { signal: 9, core: false }), 2);
        assert_eq!(action, Some(Action::Record));
        let state = State::running(0, None, None);
        assert_eq!(state.clone().on(resume(), 1), (state, None));
    }

    #[test]
    fn an_end_is_recorded_once() {
        let (state, action) = State::running(0, None, None).on(Event::Exited(End::Exited { code: 7 }), 5);
        assert_eq!(action, Some(Action::Record));
        let (after, action) = state.clone().on(Event::Exited(End::Exited { code: 0 }), 6);
        assert_eq!((after, action), (state, None));
    }
}

//! Clocks. Decisions use `CLOCK_BOOTTIME` (goes on while the host sleeps, cannot be set). The wall clock is for display, for moments that people
//! name, and for what is removed by its age; of the last, [`aging_ms`] believes no leap at once.
//!
//! In debug builds `LASTWORD_TEST_CLOCK_FILE` names a file with a number of seconds by which the wall clock of the process is wrong. It is
//! read each time, so that a test can set the clock while programs run.

use rustix::time::{ClockId, clock_gettime};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// A step of the wall clock by more than this, against `CLOCK_BOOTTIME`, is a leap, milliseconds.
const LEAP_MS_MIN: i64 = 60_000;
/// A leap forward that has lasted for so long is believed, milliseconds: by then somebody has noticed that the clock is wrong.
const LEAP_BELIEVED_MS: u64 = 24 * 3_600_000;

/// `CLOCK_BOOTTIME` in milliseconds.
pub fn boottime_ms() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The wall clock, milliseconds since 1970; before 1970 it is 0.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_add(wrong_by_ms()).max(0)
}

#[cfg(debug_assertions)]
fn wrong_by_ms() -> i64 {
    use std::sync::OnceLock;
    static FILE: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
    let Some(file) = FILE.get_or_init(|| std::env::var_os("LASTWORD_TEST_CLOCK_FILE")) else { return 0 };
    let seconds = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i64>().ok());
    seconds.unwrap_or(0).saturating_mul(1_000)
}

#[cfg(not(debug_assertions))]
#[inline(always)]
fn wrong_by_ms() -> i64 {
    0
}

/// The wall clock as it counts for what is removed by its age, milliseconds since 1970. A leap back counts at once. A leap forward while this
/// process runs counts when it has lasted for a day: until then this clock goes on as if there had been none, so that a clock that was set wrong
/// for an hour ages nothing. A process notices leaps from its first call on.
pub fn aging_ms() -> i64 {
    static AGING: Mutex<Option<Aging>> = Mutex::new(None);
    let (wall_ms, boottime_ms) = (wall_ms(), boottime_ms());
    let mut aging = AGING.lock().unwrap_or_else(PoisonError::into_inner);
    aging.get_or_insert_with(|| Aging::new(wall_ms, boottime_ms)).now_ms(wall_ms, boottime_ms)
}

/// By how much the wall clock is ahead of `CLOCK_BOOTTIME`: as it is believed, and as it was found.
#[derive(Debug)]
struct Aging {
    believed_ms: i64,
    /// Found so, since then.
    leapt: Option<(i64, u64)>,
}

impl Aging {
    fn new(wall_ms: i64, boottime_ms: u64) -> Aging {
        Aging { believed_ms: ahead_ms(wall_ms, boottime_ms), leapt: None }
    }

    fn now_ms(&mut self, wall_ms: i64, boottime_ms: u64) -> i64 {
        let found_ms = ahead_ms(wall_ms, boottime_ms);
        if found_ms.saturating_sub(self.believed_ms) < LEAP_MS_MIN {
            (self.believed_ms, self.leapt) = (found_ms, None);
        } else {
            let same =
                self.leapt.filter(|(leapt_ms, _)| leapt_ms.abs_diff(found_ms) < LEAP_MS_MIN.unsigned_abs());
            let since_ms = same.map_or(boottime_ms, |(_, since_ms)| since_ms);
            self.leapt = Some((found_ms, since_ms));
            if boottime_ms.saturating_sub(since_ms) >= LEAP_BELIEVED_MS {
                (self.believed_ms, self.leapt) = (found_ms, None);
            }
        }
        self.believed_ms.saturating_add(signed(boottime_ms))
    }
}

fn ahead_ms(wall_ms: i64, boottime_ms: u64) -> i64 {
    wall_ms.saturating_sub(signed(boottime_ms))
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_000_000_000;
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn a_leap_forward_ages_nothing_until_it_has_lasted_for_a_day() {
        let mut aging = Aging::new(NOW_MS, 0);
        let mut at = |hours: u64, wrong_ms: i64| {
            let passed_ms = hours * HOUR_MS;
            aging.now_ms(NOW_MS + signed(passed_ms) + wrong_ms, passed_ms) - NOW_MS - signed(passed_ms)
        };
        assert_eq!(at(0, 0), 0);
        assert_eq!((at(1, YEAR_MS), at(24, YEAR_MS)), (0, 0));
        assert_eq!(at(25, YEAR_MS), YEAR_MS, "somebody means it");
        assert_eq!(at(26, 0), 0, "back at once");
        assert_eq!(
            (at(27, YEAR_MS), at(28, 0), at(29, YEAR_MS), at(52, YEAR_MS)),
            (0, 0, 0, 0),
            "begun anew"
        );
    }

    #[test]
    fn a_clock_that_is_set_right_bit_by_bit_is_believed() {
        let mut aging = Aging::new(NOW_MS, 0);
        for second in 0..3_600_i64 {
            // One second too fast in each.
            let wall_ms = NOW_MS + second * 2_000;
            assert_eq!(aging.now_ms(wall_ms, second.unsigned_abs() * 1_000), wall_ms);
        }
    }
}

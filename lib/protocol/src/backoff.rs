//! When to dial again: for ever, soon at first, then with full jitter, so that those who were cut off together do not come back together.

/// The first retries come after between these two, milliseconds: three of them within a second.
const EARLY_MS: (u64, u64) = (50, 300);
const EARLY_RETRIES: u32 = 3;
/// The range of the first retry with full jitter; it doubles with every failure.
const LATER_MS: u64 = 1_000;
/// No pause is longer.
pub const PAUSE_MS_MAX: u64 = 60_000;
/// A connection that lived this long after its proofs was a good one: the next retries are early ones again.
pub const GOOD_AFTER_MS: u64 = 2_000;

/// Counts the failures since the last good connection.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Nothing failed yet.
    pub fn new() -> Backoff {
        Backoff::default()
    }

    /// An attempt failed, or a connection ended that had lived `lived_ms` after its proofs (0: there were none). How many
    /// milliseconds to wait before the next attempt; `random` is any random word.
    pub fn on_over(&mut self, lived_ms: u64, random: u64) -> u64 {
        if lived_ms >= GOOD_AFTER_MS {
            self.failures = 0;
        } else if lived_ms > 0 {
            // The peer was there and knew us: it is being restarted, or does not want us now. Not at once, but soon.
            self.failures = self.failures.min(EARLY_RETRIES);
        }
        self.failures = self.failures.saturating_add(1);
        let (low, high) = match self.failures {
            0..=EARLY_RETRIES => EARLY_MS,
            later => (EARLY_MS.0, PAUSE_MS_MAX.min(LATER_MS << (later - EARLY_RETRIES).min(16))),
        };
        low + random % (high - low + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_retries_come_within_a_second() {
        let mut backoff = Backoff::new();
        let worst: u64 = (0..3)
            .map(|_| {
                let worst = (0..=300).map(|random| backoff.clone().on_over(0, random)).max().unwrap();
                backoff.on_over(0, 0);
                worst
            })
            .sum();
        assert!(worst <= 1_000, "{worst}");
    }

    #[test]
    fn pauses_grow_to_the_cap_and_never_beyond() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u64> =
            (0..10_000u64).map(|n| backoff.on_over(0, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        assert!(pauses.iter().all(|ms| (50..=PAUSE_MS_MAX).contains(ms)));
        assert!(pauses.iter().any(|ms| *ms > PAUSE_MS_MAX * 9 / 10));
        assert!(pauses[20..].iter().any(|ms| *ms < PAUSE_MS_MAX / 10), "full jitter reaches down");
    }

    #[test]
    fn a_connection_that_lived_makes_the_next_retry_early_and_a_short_one_never_late() {
        let mut backoff = Backoff::new();
        let longest = |backoff: &Backoff, lived_ms| {
            (0..=PAUSE_MS_MAX).map(|random| backoff.clone().on_over(lived_ms, random)).max()
        };
        (0..20).for_each(|_| {
            backoff.on_over(0, 0);
        });
        assert_eq!(longest(&backoff, 0), Some(PAUSE_MS_MAX));
        assert_eq!(longest(&backoff, 1), Some(2 * LATER_MS));
        assert_eq!(longest(&backoff, GOOD_AFTER_MS), Some(EARLY_MS.1));
        for _ in 0..20 {
            assert!(
                backoff.on_over(GOOD_AFTER_MS - 1, u64::MAX - 7) <= 2 * LATER_MS,
                "a peer that is restarted again and again"
            );
        }
    }
}

//! Spans of time as people write them: `10s`, `500ms`, `1h30m`.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::fmt;
use std::str::FromStr;

/// A span of time in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    ms: u64,
}

impl Duration {
    /// From whole milliseconds.
    pub const fn from_ms(ms: u64) -> Duration {
        Duration { ms }
    }

    /// Whole milliseconds.
    pub const fn as_ms(self) -> u64 {
        self.ms
    }

    /// As the standard library has it.
    pub const fn std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.ms)
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.std()
    }
}

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The text is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// Nothing was written.
    #[error("a duration is empty; write it like \"10s\", \"500ms\" or \"1h30m\"")]
    Empty,
    /// A number without its unit.
    #[error(
        "the duration \"{text}\" has a number without a unit; write \"{text}s\" for seconds or \"{text}ms\" for milliseconds"
    )]
    NoUnit {
        /// The whole text.
        text: String,
    },
    /// A unit that is none.
    #[error("the duration \"{text}\" has an unknown unit \"{unit}\"; the units are d, h, m, s, ms")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// What stands for a unit.
        unit: String,
    },
    /// Units that are not in falling order.
    #[error("the duration \"{text}\" is out of order; write larger units first, each once, like \"1h30m\"")]
    Disorder {
        /// The whole text.
        text: String,
    },
    /// No digits where a number must be.
    #[error("\"{text}\" is not a duration; write it like \"10s\", \"500ms\" or \"1h30m\"")]
    NoNumber {
        /// The whole text.
        text: String,
    },
    /// More milliseconds than 64 bits hold.
    #[error("the duration \"{text}\" is too long")]
    TooLong {
        /// The whole text.
        text: String,
    },
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(given: &str) -> Result<Self, ParseDurationError> {
        let text = || given.to_owned();
        let mut rest = given.trim();
        if rest.is_empty() {
            return Err(ParseDurationError::Empty);
        }
        if rest == "0" {
            return Ok(Duration::default());
        }
        let (mut total, mut last) = (0u64, u64::MAX);
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits == 0 {
                return Err(ParseDurationError::NoNumber { text: text() });
            }
            let (number, after) = rest.split_at(digits);
            let letters = after.len() - after.trim_start_matches(|c: char| !c.is_ascii_digit()).len();
            let (unit, after) = after.split_at(letters);
            if unit.is_empty() {
                return Err(ParseDurationError::NoUnit { text: text() });
            }
            let unit_ms = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
            let unit_ms = unit_ms
                .ok_or_else(|| ParseDurationError::UnknownUnit { text: text(), unit: unit.to_owned() })?;
            if unit_ms >= last {
                return Err(ParseDurationError::Disorder { text: text() });
            }
            last = unit_ms;
            let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms));
            total = part
                .and_then(|part| total.checked_add(part))
                .ok_or_else(|| ParseDurationError::TooLong { text: text() })?;
            rest = after;
        }
        Ok(Duration { ms: total })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ms == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.ms;
        for (unit, unit_ms) in UNITS {
            if rest >= unit_ms {
                write!(f, "{}{unit}", rest / unit_ms)?;
                rest %= unit_ms;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Duration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration in quotes like \"10s\", \"500ms\" or \"1h30m\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them_and_write_as_they_are_read() {
        let pairs =
            [("500ms", 500), ("10s", 10_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("1m1ms", 60_001)];
        for (text, ms) in pairs {
            assert_eq!(text.parse(), Ok(Duration::from_ms(ms)));
            assert_eq!(Duration::from_ms(ms).to_string(), text);
        }
        assert_eq!("0".parse(), Ok(Duration::from_ms(0)));
        assert_eq!("90s".parse::<Duration>().map(|d| d.to_string()), Ok("1m30s".to_owned()));
    }

    #[test]
    fn what_is_no_duration_is_told_how_to_become_one() {
        let says = |text: &str, what: &str| {
            let error = text.parse::<Duration>().expect_err(text).to_string();
            assert!(error.contains(what), "{text}: {error}");
        };
        says("", "empty");
        says("10", "write \"10s\" for seconds");
        says("10x", "unknown unit \"x\"; the units are d, h, m, s, ms");
        says("30m1h", "larger units first");
        says("1s1s", "larger units first");
        says("soon", "is not a duration");
        says("-1s", "is not a duration");
        says("1.5s", "unknown unit \".\"");
        says("99999999999999999999s", "too long");
        says("9999999999999999d", "too long");
    }
}

//! A moment in JSON: RFC 3339, UTC, milliseconds.

use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A wall-clock moment, for people: `2026-11-22T09:00:00.123Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Milliseconds since 1970.
    pub ms: i64,
}

impl From<i64> for Time {
    fn from(ms: i64) -> Time {
        Time { ms }
    }
}

impl Time {
    /// As `2026-11-22 09:00:00`, UTC.
    pub fn to_seconds(self) -> String {
        self.format("%Y-%m-%d %H:%M:%S")
    }

    /// As `2026-11-22 09:00:00.123`, UTC.
    pub fn to_millis(self) -> String {
        self.format("%Y-%m-%d %H:%M:%S%.3f")
    }

    /// A clock that was set to an impossible year is shown at the end of the calendar, not refused.
    fn format(self, format: &str) -> String {
        let stamp = Timestamp::from_millisecond(self.ms);
        let nearest = if self.ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
        stamp.unwrap_or(nearest).strftime(format).to_string()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.format("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

impl FromStr for Time {
    type Err = String;
    fn from_str(text: &str) -> Result<Time, String> {
        let stamp: Timestamp = text.parse().map_err(|e| {
            format!("\"{text}\" is not a time such as 2026-11-23T02:00Z or 2026-11-23T02:00:00+01:00: {e}")
        })?;
        Ok(Time { ms: stamp.as_millisecond() })
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples(["2026-11-22T09:00:00.123Z"])
            .into()
    }
}

impl ToSchema for Time {
    fn name() -> Cow<'static, str> {
        "Time".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds_and_read_back() {
        let time = Time { ms: 1_763_776_000_023 };
        assert_eq!(time.to_string(), "2025-11-22T01:46:40.023Z");
        assert_eq!(time.to_seconds(), "2025-11-22 01:46:40");
        assert_eq!(serde_json::from_str::<Time>(&serde_json::to_string(&time).unwrap()).unwrap(), time);
        assert_eq!(serde_json::from_str::<Time>("\"2025-11-22T02:46:40.023+01:00\"").unwrap(), time);
    }

    #[test]
    fn seconds_need_not_be_said_but_the_zone_must() {
        assert_eq!("2025-11-22T01:46Z".parse(), Ok(Time { ms: 1_763_775_960_000 }));
        assert_eq!("2025-11-22T02:46+01:00".parse(), Ok(Time { ms: 1_763_775_960_000 }));
        for text in ["2025-11-22T01:46", "tomorrow", ""] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_impossible_clock_is_still_shown() {
        assert!(Time { ms: i64::MAX }.to_string().starts_with("9999-"));
        assert_eq!(Time { ms: 0 }.to_string(), "1970-01-01T00:00:00.000Z");
    }
}

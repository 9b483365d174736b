//! A span of time as people write it.
//!
//! Grammar: one or more `NUMBER UNIT` without blanks, larger units first is not demanded; units are `d`, `h`, `m`, `s`, `ms`; a
//! number may have a decimal part (`1.5s`). A bare `0` is allowed; any other number needs its unit, because `90` could be meant as
//! seconds or as minutes. In JSON a number is milliseconds.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A span of time in milliseconds; reads and writes `90s`, `1h30m`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Its length, milliseconds.
    pub ms: u64,
}

/// The text is not a span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSpanError {
    text: String,
}

impl fmt::Display for ParseSpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a span of time; write for example 90s, 1h30m or 500ms", self.text)
    }
}

impl std::error::Error for ParseSpanError {}

/// A longer span (about 1,000 years) is refused, so that sums with times of day never overflow.
const SPAN_MS_MAX: u64 = 1_000 * 366 * DAY_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const SECOND_MS: u64 = 1_000;

impl FromStr for Span {
    type Err = ParseSpanError;
    fn from_str(text: &str) -> Result<Span, ParseSpanError> {
        let error = || ParseSpanError { text: text.chars().take(40).collect() };
        if text == "0" {
            return Ok(Span { ms: 0 });
        }
        let mut rest = text;
        let mut ms = 0u64;
        while !rest.is_empty() || ms == 0 && rest.len() == text.len() {
            let (part, tail) = first_part(rest).ok_or_else(error)?;
            ms = ms.checked_add(part).filter(|ms| *ms <= SPAN_MS_MAX).ok_or_else(error)?;
            rest = tail;
        }
        Ok(Span { ms })
    }
}

/// Reads `1.5s` off the head of a text: its milliseconds and what follows.
fn first_part(text: &str) -> Option<(u64, &str)> {
    let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let (unit, rest) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
    let unit_ms = match unit {
        "ms" => 1,
        "s" => SECOND_MS,
        "m" => MINUTE_MS,
        "h" => HOUR_MS,
        "d" => DAY_MS,
        _ => return None,
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if decimals.is_empty() || decimals.len() > 9 {
        return None;
    }
    let scale = 10u64.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    let decimal_ms = u128::from(decimals.parse::<u64>().ok()?) * u128::from(unit_ms) / u128::from(scale);
    let ms = whole.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    Some((ms.checked_add(u64::try_from(decimal_ms).ok()?)?, rest))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ms == 0 {
            return f.pad("0s");
        }
        let mut text = String::new();
        let mut rest = self.ms;
        for (unit_ms, unit) in [(HOUR_MS, "h"), (MINUTE_MS, "m"), (SECOND_MS, "s"), (1, "ms")] {
            if rest >= unit_ms {
                text.push_str(&format!("{}{unit}", rest / unit_ms));
                rest %= unit_ms;
            }
        }
        f.pad(&text)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a span of time such as \"1h30m\", or a number of milliseconds")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: Error>(self, ms: u64) -> Result<Span, E> {
                if ms <= SPAN_MS_MAX {
                    Ok(Span { ms })
                } else {
                    Err(E::custom("the span of time is too long"))
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl PartialSchema for Span {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "A span of time: 90s, 1h30m, 500ms. Requests may also give a number of milliseconds.",
            ))
            .examples(["1h30m"])
            .into()
    }
}

impl ToSchema for Span {
    fn name() -> Cow<'static, str> {
        "Span".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        let cases = [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("2d", 172_800_000),
            ("1h500ms", 3_600_500),
            ("0", 0),
            ("0s", 0),
            ("0.25h", 900_000),
        ];
        for (text, ms) in cases {
            assert_eq!(text.parse(), Ok(Span { ms }), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "90",
            "s",
            "1x",
            "-1s",
            "1 s",
            "1.s",
            ".5s",
            "1h30",
            "1..5s",
            "99999999999999999999s",
            "9999999d",
            "é",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for ms in [0, 1, 999, 1_000, 61_001, 5_400_000, 90_061_007] {
            let span = Span { ms };
            assert_eq!(span.to_string().parse(), Ok(span), "{span}");
            let json = serde_json::to_string(&span).unwrap();
            assert_eq!(serde_json::from_str::<Span>(&json).unwrap(), span);
        }
        assert_eq!(Span { ms: 5_400_000 }.to_string(), "1h30m");
        assert_eq!(serde_json::from_str::<Span>("1500").unwrap(), Span { ms: 1_500 });
        assert!(serde_json::from_str::<Span>("-1").is_err());
    }
}

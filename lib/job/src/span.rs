//! Spans of time as people write them: `90s`, `1h30m`, `500ms`, `1.5s`. The one reader and writer of them, for configuration files,
//! REST, the command line and reasons.
//!
//! Grammar: one or more `NUMBER UNIT` without blanks, larger units first and each once; the units are `d`, `h`, `m`, `s`, `ms`; a number
//! may have up to nine decimals. A bare `0` is allowed; any other number needs its unit, because `90` could be meant as seconds or as
//! minutes.

use std::fmt;

/// A longer span (about 1,000 years) is refused, so that sums with times of day never overflow.
pub const SPAN_MS_MAX: u64 = 1_000 * 366 * 86_400_000;

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Of a number.
const DECIMALS_MAX: usize = 9;
/// Of the text that an error repeats.
const SHOWN_CHARS_MAX: usize = 40;

/// The text is no span of time. Says how to write one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSpanError {
    text: String,
    what: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrong {
    Empty,
    NoNumber,
    NoUnit,
    UnknownUnit(String),
    Disorder,
    TooLong,
}

impl fmt::Display for ParseSpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        match &self.what {
            Wrong::Empty => f.write_str("a span of time is empty; write for example 90s, 1h30m or 500ms"),
            Wrong::NoNumber => {
                write!(f, "\"{text}\" is not a span of time; write for example 90s, 1h30m or 500ms")
            }
            Wrong::NoUnit => {
                write!(f, "the span of time \"{text}\" has a number without a unit; write for example ")?;
                write!(f, "\"{text}s\" for seconds or \"{text}ms\" for milliseconds")
            }
            Wrong::UnknownUnit(unit) => {
                write!(
                    f,
                    "the span of time \"{text}\" has an unknown unit \"{unit}\"; the units are d, h, m, s, ms"
                )
            }
            Wrong::Disorder => {
                write!(
                    f,
                    "the span of time \"{text}\" is out of order; write larger units first, each once, like 1h30m"
                )
            }
            Wrong::TooLong => write!(f, "the span of time \"{text}\" is too long"),
        }
    }
}

impl std::error::Error for ParseSpanError {}

/// Reads a span: its length in milliseconds.
pub fn parse(text: &str) -> Result<u64, ParseSpanError> {
    let wrong = |what| ParseSpanError { text: text.chars().take(SHOWN_CHARS_MAX).collect(), what };
    if text.is_empty() {
        return Err(wrong(Wrong::Empty));
    }
    if text == "0" {
        return Ok(0);
    }
    let (mut total_ms, mut last_ms, mut rest) = (0u64, u64::MAX, text);
    while !rest.is_empty() {
        let (number, unit, tail) = first_part(rest).map_err(wrong)?;
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let unit_ms = known.ok_or_else(|| wrong(Wrong::UnknownUnit(unit.to_owned())))?.1;
        if unit_ms >= last_ms {
            return Err(wrong(Wrong::Disorder));
        }
        last_ms = unit_ms;
        let part_ms = length_ms(number, unit_ms).map_err(wrong)?;
        total_ms = total_ms.saturating_add(part_ms);
        rest = tail;
    }
    if total_ms <= SPAN_MS_MAX { Ok(total_ms) } else { Err(wrong(Wrong::TooLong)) }
}

/// Parts `1.5s…` into number, unit and the rest.
fn first_part(text: &str) -> Result<(&str, &str, &str), Wrong> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let (number, after) = text.split_at(text.find(|c: char| !is_number(c)).unwrap_or(text.len()));
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Wrong::NoNumber);
    }
    let (unit, rest) = after.split_at(after.find(is_number).unwrap_or(after.len()));
    if unit.is_empty() { Err(Wrong::NoUnit) } else { Ok((number, unit, rest)) }
}

fn length_ms(number: &str, unit_ms: u64) -> Result<u64, Wrong> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let well_formed = !decimals.is_empty()
        && decimals.len() <= DECIMALS_MAX
        && decimals.bytes().all(|byte| byte.is_ascii_digit());
    if !well_formed {
        return Err(Wrong::NoNumber);
    }
    let whole_ms = whole.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).ok_or(Wrong::TooLong)?;
    let billionths = format!("{decimals:0<DECIMALS_MAX$}").parse::<u64>().map_err(|_| Wrong::NoNumber)?;
    let decimal_ms = u128::from(billionths) * u128::from(unit_ms) / 1_000_000_000;
    whole_ms.checked_add(u64::try_from(decimal_ms).map_err(|_| Wrong::TooLong)?).ok_or(Wrong::TooLong)
}

/// Writes a span so that [`parse`] reads the same.
pub fn text(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut rest = ms;
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        if rest >= unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    text
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
            assert_eq!(parse(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for ms in [0, 1, 999, 1_000, 61_001, 5_400_000, 90_061_007, SPAN_MS_MAX] {
            assert_eq!(parse(&text(ms)), Ok(ms));
        }
        assert_eq!((text(5_400_000), text(90_000_000)), ("1h30m".into(), "1d1h".into()));
    }

    #[test]
    fn what_is_no_span_is_told_how_to_become_one() {
        let says = |text: &str, what: &str| {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(what), "{text}: {error}");
        };
        says("", "empty");
        says("90", "write for example \"90s\" for seconds");
        says("1h30", "a number without a unit");
        says("10x", "unknown unit \"x\"; the units are d, h, m, s, ms");
        says("1 s", "unknown unit");
        says("30m1h", "larger units first");
        says("1s1s", "larger units first");
        for text in ["soon", "-1s", ".5s", "1.s", "1..5s", "s", "\u{e9}"] {
            says(text, "is not a span of time");
        }
        says("99999999999999999999s", "too long");
        says("9999999d", "too long");
    }
}

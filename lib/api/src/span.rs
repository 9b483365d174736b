//! A span of time in JSON: as people write it ([`job::span`] has the grammar), or a number of milliseconds.

use job::span::{self, ParseSpanError, SPAN_MS_MAX};
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

impl FromStr for Span {
    type Err = ParseSpanError;
    fn from_str(text: &str) -> Result<Span, ParseSpanError> {
        span::parse(text).map(|ms| Span { ms })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&span::text(self.ms))
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

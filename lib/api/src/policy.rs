//! What follows a job's attempts: retries, Unknown outcomes, an operator's word.

use crate::Span;
use job::policy::{BACKOFF_MS_DEFAULT, FACTOR_PERCENT_DEFAULT};
use job::{OnUnknown, RestartSafe, RetryCause};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{OneOfBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// How failed attempts are repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first one included.
    #[schema(example = 3)]
    pub attempts_max: u32,
    /// The pause before the second attempt; 10 s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Span>,
    /// The longest pause; all pauses are alike if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_max: Option<Span>,
    /// Each pause is so many times the one before, up to `backoff_max`; 2 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<Factor>,
    /// What is repeated: exit codes (`75`, `"100-110"`), `"signal"`, `"timeout"`, `"lost"` (the outcome is Unknown). Absent or
    /// empty: everything but `"lost"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<RetryOn>,
}

impl From<Retry> for job::Retry {
    fn from(retry: Retry) -> job::Retry {
        let backoff_ms = retry.backoff.map_or(BACKOFF_MS_DEFAULT, |backoff| backoff.ms);
        job::Retry {
            attempts_max: retry.attempts_max,
            backoff_ms,
            backoff_max_ms: retry.backoff_max.map_or(backoff_ms, |longest| longest.ms),
            factor_percent: retry.factor.map_or(FACTOR_PERCENT_DEFAULT, |factor| factor.percent),
            on: retry.on.into_iter().map(|on| on.0).collect(),
        }
    }
}

impl From<&job::Retry> for Retry {
    fn from(retry: &job::Retry) -> Retry {
        Retry {
            attempts_max: retry.attempts_max,
            backoff: Some(Span { ms: retry.backoff_ms }),
            backoff_max: Some(Span { ms: retry.backoff_max_ms }),
            factor: Some(Factor { percent: retry.factor_percent }),
            on: retry.on.iter().copied().map(RetryOn).collect(),
        }
    }
}

/// A factor: in JSON a number, here in hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor {
    /// Per cent.
    pub percent: u32,
}

impl Serialize for Factor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.percent) / 100.0)
    }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Factor, D::Error> {
        let factor = f64::deserialize(deserializer)?;
        if !(1.0..=100.0).contains(&factor) {
            return Err(D::Error::custom("factor must be a number from 1 to 100"));
        }
        Ok(Factor { percent: (factor * 100.0).round() as u32 })
    }
}

impl PartialSchema for Factor {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Number).minimum(Some(1)).maximum(Some(100)).into()
    }
}

impl ToSchema for Factor {
    fn name() -> Cow<'static, str> {
        "Factor".into()
    }
}

/// A kind of failure that is repeated: in JSON a number, or a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOn(pub RetryCause);

impl Serialize for RetryOn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            RetryCause::ExitCodes(first, last) if first == last => serializer.serialize_u8(first),
            RetryCause::ExitCodes(..) | RetryCause::Signal | RetryCause::Timeout | RetryCause::Lost => {
                serializer.collect_str(&self.0)
            }
        }
    }
}

impl<'de> Deserialize<'de> for RetryOn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RetryOn, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Code(u64),
            Text(String),
        }
        let text = match Either::deserialize(deserializer)? {
            Either::Code(code) => code.to_string(),
            Either::Text(text) => text,
        };
        text.parse().map(RetryOn).map_err(D::Error::custom)
    }
}

impl PartialSchema for RetryOn {
    fn schema() -> RefOr<Schema> {
        let code = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(255));
        let text =
            ObjectBuilder::new().schema_type(Type::String).examples(["100-110", "signal", "timeout", "lost"]);
        OneOfBuilder::new().item(code).item(text).into()
    }
}

impl ToSchema for RetryOn {
    fn name() -> Cow<'static, str> {
        "RetryOn".into()
    }
}

/// A setting of [`job`] that is written as its name.
macro_rules! setting {
    ($(#[$about:meta])* $name:ident($inner:ty), $title:literal) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<$name, String> {
                text.parse().map($name)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.0.name())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.name())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let names = <$inner>::ALL.map(<$inner>::name);
                ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                $title.into()
            }
        }
    };
}

setting!(
    /// What is done about an Unknown outcome.
    UnknownPolicy(OnUnknown),
    "UnknownPolicy"
);
setting!(
    /// Whether a second execution does harm.
    RestartPolicy(RestartSafe),
    "RestartPolicy"
);

/// How a job is to be restarted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobRestart {
    /// Hold it first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Also if it must not be executed twice (`restart_safe` is `never_twice`) and may have been executed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Why, for people; needed with `force`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a job is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobAbandon {
    /// For people; stays with the job.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_read_as_it_is_written() {
        let json = r#"{"attempts_max":3,"backoff":"10s","backoff_max":"5m","factor":1.5,"on":[75,"100-110","signal"]}"#;
        let retry: Retry = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&retry).unwrap(), json);
        let inner = job::Retry::from(retry.clone());
        assert_eq!((inner.backoff_ms, inner.backoff_max_ms, inner.factor_percent), (10_000, 300_000, 150));
        assert_eq!(Retry::from(&inner), retry);
    }

    #[test]
    fn what_is_not_said_is_usual() {
        let retry: Retry = serde_json::from_str(r#"{"attempts_max":2}"#).unwrap();
        let inner = job::Retry::from(retry);
        assert_eq!((inner.backoff_ms, inner.backoff_max_ms, inner.on.len()), (10_000, 10_000, 0));
        for wrong in [
            r#"{"attempts_max":2,"factor":0.5}"#,
            r#"{"attempts_max":2,"on":["x"]}"#,
            r#"{"attempts_max":2,"on":[256]}"#,
            r#"{"backoff":"1s"}"#,
        ] {
            assert!(serde_json::from_str::<Retry>(wrong).is_err(), "{wrong}");
        }
        assert_eq!(serde_json::from_str::<RestartPolicy>("\"ask\"").unwrap().0, RestartSafe::Ask);
        assert!(serde_json::from_str::<UnknownPolicy>("\"maybe\"").is_err());
    }
}

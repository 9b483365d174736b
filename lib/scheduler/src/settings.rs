//! The settings of a job that concern the server only, as bytes for the database: a message of its own, so that they never travel to
//! an agent, and so that an older server passes over what it does not know.

use crate::JobSpec;
use job::{OnUnknown, Policy, RestartSafe, Retry, RetryCause};
use prost::Message;
use protocol::Malformed;

/// Numbers are never used again for something else.
#[derive(Clone, PartialEq, Eq, Message)]
struct Settings {
    #[prost(int64, optional, tag = "1")]
    start_at_ms: Option<i64>,
    #[prost(uint64, optional, tag = "2")]
    delay_ms: Option<u64>,
    /// The name: [`OnUnknown::name`]; empty for the usual one.
    #[prost(string, tag = "3")]
    on_unknown: String,
    /// The name: [`RestartSafe::name`]; empty for the usual one.
    #[prost(string, tag = "4")]
    restart_safe: String,
    #[prost(message, optional, tag = "5")]
    retry: Option<RetrySettings>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RetrySettings {
    #[prost(uint32, tag = "1")]
    attempts_max: u32,
    #[prost(uint64, tag = "2")]
    backoff_ms: u64,
    #[prost(uint64, tag = "3")]
    backoff_max_ms: u64,
    #[prost(uint32, tag = "4")]
    factor_percent: u32,
    /// As people write them: [`RetryCause`]'s text.
    #[prost(string, repeated, tag = "5")]
    on: Vec<String>,
}

/// `None` if everything is as usual.
pub(crate) fn encode(spec: &JobSpec) -> Option<Vec<u8>> {
    let policy = &spec.policy;
    let name = |usual: bool, name: &str| if usual { String::new() } else { name.to_owned() };
    let settings = Settings {
        start_at_ms: spec.start_at_ms,
        delay_ms: spec.delay_ms,
        on_unknown: name(policy.on_unknown == OnUnknown::default(), policy.on_unknown.name()),
        restart_safe: name(policy.restart_safe == RestartSafe::default(), policy.restart_safe.name()),
        retry: policy.retry.as_ref().map(|retry| RetrySettings {
            attempts_max: retry.attempts_max,
            backoff_ms: retry.backoff_ms,
            backoff_max_ms: retry.backoff_max_ms,
            factor_percent: retry.factor_percent,
            on: retry.on.iter().map(ToString::to_string).collect(),
        }),
    };
    (settings != Settings::default()).then(|| settings.encode_to_vec())
}

/// Adds to `spec` what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8], spec: JobSpec) -> Result<JobSpec, Malformed> {
    let wrong = |what: String| Malformed::Undecodable { message: "Settings", what };
    let settings = Settings::decode(bytes).map_err(|e| wrong(e.to_string()))?;
    let retry = settings.retry.map(|retry| {
        let on = retry.on.iter().map(|cause| cause.parse()).collect::<Result<Vec<RetryCause>, _>>()?;
        Ok::<Retry, String>(Retry {
            attempts_max: retry.attempts_max,
            backoff_ms: retry.backoff_ms,
            backoff_max_ms: retry.backoff_max_ms,
            factor_percent: retry.factor_percent,
            on,
        })
    });
    let policy = Policy {
        retry: retry.transpose().map_err(wrong)?,
        on_unknown: known(&settings.on_unknown).map_err(wrong)?,
        restart_safe: known(&settings.restart_safe).map_err(wrong)?,
    };
    Ok(JobSpec { start_at_ms: settings.start_at_ms, delay_ms: settings.delay_ms, policy, ..spec })
}

fn known<T: std::str::FromStr<Err = String> + Default>(name: &str) -> Result<T, String> {
    if name.is_empty() { Ok(T::default()) } else { name.parse() }
}

//! What follows a job's attempts, as it is said on the command line.

use api::{RestartPolicy, Retry, RetryOn, Span, UnknownPolicy};
use clap::Args;
use std::str::FromStr;

/// The options of a submission that say what follows its attempts.
#[derive(Debug, Args)]
pub(super) struct Policy {
    /// At most so many attempts in all: one that fails is followed by another.
    #[arg(long, value_name = "ATTEMPTS")]
    retry: Option<u32>,
    /// The pause between two attempts (10 s if absent), or the first and the longest of pauses that double: 10s..5m.
    #[arg(long, value_name = "SPAN[..SPAN]", requires = "retry")]
    retry_backoff: Option<Backoff>,
    /// Repeat only these: exit codes (75), ranges of them (100-110), signal, timeout, lost (nobody saw its end). Absent: every
    /// failure but lost.
    #[arg(long, value_name = "CAUSE,…", value_delimiter = ',', requires = "retry", value_parser = read_cause)]
    retry_on: Vec<RetryOn>,
    /// When nobody can say how an attempt ended: none (the job is Unknown), restart, escalate (tell the operators).
    #[arg(long, value_name = "WHAT")]
    pub(super) on_unknown: Option<UnknownPolicy>,
    /// Whether it may be executed again if it may have been executed: never_twice, at_least_once, ask (an operator decides).
    #[arg(long, value_name = "RULE")]
    pub(super) restart_safe: Option<RestartPolicy>,
}

impl Policy {
    /// What is asked for; `None` without `--retry`.
    pub(super) fn retry(&self) -> Option<Retry> {
        let backoff = self.retry_backoff;
        self.retry.map(|attempts_max| Retry {
            attempts_max,
            backoff: backoff.map(|backoff| backoff.first),
            backoff_max: backoff.and_then(|backoff| backoff.longest),
            factor: None,
            on: self.retry_on.clone(),
        })
    }
}

/// Pauses: `10s`, `10s..5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backoff {
    first: Span,
    longest: Option<Span>,
}

impl FromStr for Backoff {
    type Err = String;
    fn from_str(text: &str) -> Result<Backoff, String> {
        let span = |text: &str| text.parse::<Span>().map_err(|e| e.to_string());
        match text.split_once("..") {
            None => Ok(Backoff { first: span(text)?, longest: None }),
            Some((first, longest)) => Ok(Backoff { first: span(first)?, longest: Some(span(longest)?) }),
        }
    }
}

fn read_cause(text: &str) -> Result<RetryOn, String> {
    text.parse().map(RetryOn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_one_span_or_the_first_and_the_longest() {
        let ms = |text: &str| {
            let backoff = text.parse::<Backoff>().unwrap();
            (backoff.first.ms, backoff.longest.map(|longest| longest.ms))
        };
        assert_eq!(ms("10s"), (10_000, None));
        assert_eq!(ms("10s..5m"), (10_000, Some(300_000)));
        for wrong in ["", "10", "10s..", "..5m", "10s-5m"] {
            assert!(wrong.parse::<Backoff>().is_err(), "{wrong}");
        }
    }
}

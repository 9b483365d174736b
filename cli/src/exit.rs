//! Exit codes: those of sysexits for our own failures, and the one that a job's outcome gives.

use crate::client::CallError;
use api::{Job, Status};
use std::fmt;
use std::io;

/// Wrong usage (`EX_USAGE`).
pub(crate) const USAGE: u8 = 64;
/// What was asked is refused as it stands (`EX_DATAERR`).
pub(crate) const REFUSED: u8 = 65;
/// No such job, agent, queue or input file, or no more (`EX_NOINPUT`).
pub(crate) const NOT_FOUND: u8 = 66;
/// The server does not answer (`EX_UNAVAILABLE`).
pub(crate) const AWAY: u8 = 69;
/// Something that should not happen; also: the outcome of a job is unknown (`EX_SOFTWARE`).
pub(crate) const SOFTWARE: u8 = 70;
/// A file cannot be created (`EX_CANTCREAT`).
pub(crate) const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed (`EX_IOERR`).
pub(crate) const IO: u8 = 74;
/// It may work later (`EX_TEMPFAIL`).
pub(crate) const LATER: u8 = 75;
/// The server's answer makes no sense (`EX_PROTOCOL`).
pub(crate) const PROTOCOL: u8 = 76;
/// The token was refused (`EX_NOPERM`).
pub(crate) const TOKEN: u8 = 77;
/// A setting cannot be used (`EX_CONFIG`).
pub(crate) const CONFIG: u8 = 78;
/// The job ran out of its time, as timeout(1) has it.
pub(crate) const TIMED_OUT: u8 = 124;
/// Ctrl-C: 128 + SIGINT.
pub(crate) const DETACHED: u8 = 130;
/// Whoever read our output is gone: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;
/// Not one instruction of the job ran.
pub(crate) const NEVER_EXECUTED: u8 = 255;

const SIGTERM: u8 = 15;

/// A failure of ours with its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What was tried, on what, what to do.
    pub(crate) text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// The failure with that code and text.
pub(crate) fn failure(code: u8, text: impl Into<String>) -> anyhow::Error {
    Failure { code, text: text.into() }.into()
}

/// Prints an error in one line and says with which code to end.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    let code = code_of(error);
    if code != BROKEN_PIPE {
        eprintln!("lastword: {error:#}");
    }
    code
}

fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.code;
        }
        if let Some(call) = cause.downcast_ref::<CallError>() {
            return call.exit_code();
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return if io.kind() == io::ErrorKind::BrokenPipe { BROKEN_PIPE } else { IO };
        }
    }
    SOFTWARE
}

/// The exit code that a job's outcome gives; `None` while it has none.
pub(crate) fn of_job(job: &Job) -> Option<u8> {
    let signaled = job.signal.map(|signal| 128u8.saturating_add(signal));
    match job.status.0 {
        Status::Scheduled
        | Status::Held
        | Status::Queued
        | Status::Waiting
        | Status::Dispatched
        | Status::Running
        | Status::Suspended => None,
        Status::Completed => Some(0),
        Status::Error => Some(job.exit_code.or(signaled).unwrap_or(NEVER_EXECUTED)),
        Status::Killed if job.timed_out => Some(TIMED_OUT),
        Status::Killed => Some(signaled.or(job.exit_code).filter(|code| *code != 0).unwrap_or(128 + SIGTERM)),
        Status::Canceled => Some(NEVER_EXECUTED),
        Status::Unknown | Status::Abandoned => Some(SOFTWARE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(status: Status, exit_code: Option<u8>, signal: Option<u8>, timed_out: bool) -> Option<u8> {
        let job = Job { status: status.into(), exit_code, signal, timed_out, ..crate::job::tests::job() };
        of_job(&job)
    }

    #[test]
    fn the_exit_code_is_that_of_the_job() {
        assert_eq!(code(Status::Completed, Some(0), None, false), Some(0));
        assert_eq!(code(Status::Error, Some(7), None, false), Some(7));
        assert_eq!(code(Status::Error, Some(255), None, false), Some(255));
        assert_eq!(code(Status::Error, None, Some(9), false), Some(137));
        assert_eq!(code(Status::Killed, None, Some(15), false), Some(143));
    }

    #[test]
    fn a_job_that_was_ended_never_looks_like_success() {
        assert_eq!(code(Status::Killed, Some(0), None, false), Some(143));
        assert_eq!(code(Status::Killed, Some(3), None, false), Some(3));
        assert_eq!(code(Status::Killed, Some(0), None, true), Some(124));
        assert_eq!(code(Status::Killed, None, Some(9), true), Some(124));
        assert_eq!(code(Status::Canceled, None, None, false), Some(255));
    }

    #[test]
    fn what_never_ran_and_what_nobody_saw_have_codes_of_their_own() {
        assert_eq!(code(Status::Error, None, None, false), Some(255));
        assert_eq!(code(Status::Unknown, None, None, false), Some(70));
        assert_eq!(code(Status::Abandoned, None, None, false), Some(70));
    }

    #[test]
    fn a_job_without_an_outcome_gives_no_exit_code() {
        for status in Status::ALL.into_iter().filter(|status| !status.is_final()) {
            assert_eq!(code(status, None, None, false), None, "{status}");
        }
    }

    #[test]
    fn failures_of_the_client_keep_to_sysexits() {
        let error = failure(TOKEN, "no").context("while asking");
        assert_eq!(code_of(&error), TOKEN);
        assert_eq!(code_of(&anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe))), BROKEN_PIPE);
        assert_eq!(code_of(&anyhow::anyhow!("?")), SOFTWARE);
    }
}

//! Jobs: submit, look, wait, end.

mod list;
mod logs;
mod prove;
mod show;
mod submit;
mod wait;

use crate::client::Client;
use crate::output::{Output, line};
use api::{Job, Kill, Span, Why};
use clap::Subcommand;
use std::str::FromStr;

/// The number of a job, perhaps with that of an attempt: `1042`, `1042.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobRef {
    id: u64,
    attempt: Option<u32>,
}

impl FromStr for JobRef {
    type Err = String;
    fn from_str(text: &str) -> Result<JobRef, String> {
        let (id, attempt) = match text.split_once('.') {
            Some((id, attempt)) => (id, Some(attempt.parse::<u32>().ok().filter(|n| *n > 0))),
            None => (text, None),
        };
        match (id.parse::<u64>().ok().filter(|id| *id > 0), attempt) {
            (Some(id), None) => Ok(JobRef { id, attempt: None }),
            (Some(id), Some(Some(attempt))) => Ok(JobRef { id, attempt: Some(attempt) }),
            (None, _) | (_, Some(None)) => Err("a job is named by its number, such as 1042".to_owned()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Submit a job.
    Submit(Box<submit::Submit>),
    /// List jobs, newest first.
    List(list::List),
    /// Show jobs with their runs.
    #[command(after_help = "Example:\n  lastword job show 1042 -o json | jq '.runs[].witness'")]
    Show {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
    },
    /// Print what a job wrote.
    Logs(logs::Logs),
    /// Wait until jobs have ended; exit as the first of them that did not succeed.
    #[command(after_help = "\
Example:
  lastword job wait 1042; echo $?
Goes on waiting while the server is away. Ctrl-C ends the waiting, never the job.")]
    Wait {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
    },
    /// End jobs: soft signal, then SIGKILL when the grace is over. One that does not run yet never will.
    #[command(after_help = "Example:\n  lastword job kill 1042 --grace 30s")]
    Kill {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
        /// Between the soft signal and SIGKILL; 0 for SIGKILL at once.
        #[arg(long, value_name = "SPAN")]
        grace: Option<Span>,
        /// Return when the jobs have ended, not when the order is on record.
        #[arg(long)]
        wait: bool,
    },
    /// Keep jobs that do not run yet from running.
    Hold {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
    },
    /// End the hold of jobs.
    Release {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
    },
    /// Take back jobs that were not given to an agent yet.
    Cancel {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
    },
    /// Say in one sentence why a job does not run yet, or what became of it.
    #[command(after_help = "Example:\n  lastword job why 1042")]
    Why {
        /// Its number.
        job: JobRef,
    },
    /// Print the evidence: what server and agent each have on record, step by step, side by side.
    #[command(after_help = "Example:\n  lastword job prove 1042")]
    Prove {
        /// Its number.
        job: JobRef,
    },
}

impl Verb {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        match self {
            Verb::Submit(submit) => submit.run(client, output),
            Verb::List(list) => list.run(client, output),
            Verb::Logs(logs) => logs.run(client),
            Verb::Wait { jobs } => wait::run(client, output, &jobs),
            Verb::Prove { job } => prove::run(client, output, job),
            Verb::Show { jobs } => {
                for job in jobs {
                    show::print(&get(client, job)?, output)?;
                }
                Ok(0)
            }
            Verb::Kill { jobs, grace, wait } => {
                change(client, output, &jobs, "kill", &Kill { grace })?;
                if wait { wait::run(client, output, &jobs).map(|_| 0) } else { Ok(0) }
            }
            Verb::Hold { jobs } => change(client, output, &jobs, "hold", &serde_json::json!({})),
            Verb::Release { jobs } => change(client, output, &jobs, "release", &serde_json::json!({})),
            Verb::Cancel { jobs } => change(client, output, &jobs, "cancel", &serde_json::json!({})),
            Verb::Why { job } => {
                let why: Why = client.get(&path(job.id, "/why"))?;
                output.one(&why, &why.id.to_string(), |_| why.why.clone())?;
                Ok(0)
            }
        }
    }
}

/// Does the same with each job; the first refusal ends it, what was done before it stays done.
fn change<B: serde::Serialize>(
    client: &Client,
    output: &Output,
    jobs: &[JobRef],
    verb: &str,
    body: &B,
) -> anyhow::Result<u8> {
    for job in jobs {
        let job: Job = client.post(&path(job.id, &format!("/{verb}")), body, true)?;
        if output.is_json() {
            show::print(&job, output)?;
        } else {
            line(&job.id.to_string())?;
        }
    }
    Ok(0)
}

fn get(client: &Client, job: JobRef) -> Result<Job, crate::client::CallError> {
    client.get(&path(job.id, ""))
}

fn path(job: u64, rest: &str) -> String {
    format!("/api/v1/jobs/{job}{rest}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use api::{Status, Time};

    /// A job without an outcome.
    pub(crate) fn job() -> Job {
        Job {
            id: 1042,
            name: "true".into(),
            status: Status::Queued.into(),
            queue: "default".into(),
            agent: None,
            exit_code: None,
            signal: None,
            timed_out: false,
            reason: None,
            submitted_at: Time { ms: 0 },
            started_at: None,
            ended_at: None,
            runs: Vec::new(),
            params: Default::default(),
            command: vec!["/bin/true".into()],
            script: None,
            user: None,
            cwd: None,
            env: Default::default(),
            timeout: None,
            grace: None,
            priority: 0,
            submitted_by: "admin".into(),
            idempotency_key: None,
            kill_requested_by: None,
        }
    }

    #[test]
    fn jobs_are_named_by_number_and_attempt() {
        assert_eq!("1042".parse(), Ok(JobRef { id: 1042, attempt: None }));
        assert_eq!("1042.2".parse(), Ok(JobRef { id: 1042, attempt: Some(2) }));
        for wrong in ["", "0", "x", "1.", "1.0", "-1", "1.2.3"] {
            assert!(wrong.parse::<JobRef>().is_err(), "{wrong}");
        }
    }
}

//! Jobs: submit, look, wait, end.

mod files;
mod list;
mod logs;
mod policy;
mod prove;
mod show;
mod submit;
mod wait;

pub(crate) use files::save;

use crate::client::{Call, CallError, Client};
use crate::exit::{self, failure};
use crate::output::{Output, line};
use crate::watch::Watch;
use anyhow::Context;
use api::{Job, JobAbandon, JobRestart, Kill, Span, Status, Why};
use clap::Subcommand;
use serde::Serialize;
use serde_json::json;
use std::str::FromStr;
use ureq::http::Method;

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
    /// List or fetch the files that were kept of a job.
    Files(files::Files),
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
    /// Let running jobs stand still. Their time limits do not count, their slots stay taken.
    #[command(after_help = "\
Example:
  lastword job suspend 1042
Prints the number when the order is on record; `lastword job show 1042` says when it stands still.")]
    Suspend {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
    },
    /// Let suspended jobs go on.
    #[command(after_help = "Example:\n  lastword job resume 1042")]
    Resume {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
    },
    /// Keep jobs that do not run yet from running.
    #[command(after_help = "Example:\n  lastword job hold 1042 1043")]
    Hold {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
    },
    /// End the hold of jobs.
    #[command(after_help = "Example:\n  lastword job release 1042 1043")]
    Release {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
    },
    /// Take back jobs that were not given to an agent yet, or that wait for their next attempt.
    #[command(after_help = "Example:\n  lastword job cancel 1042")]
    Cancel {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
    },
    /// Do jobs again that are over, or that wait for this decision: a new attempt under the same number.
    #[command(after_help = "\
Examples:
  lastword job restart 1042
  lastword job restart 1042 --force --reason 'checked: the transfer never began'
A job whose rule is restart_safe = never_twice (the usual one) and that may have been executed needs --force.")]
    Restart {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
        /// Hold them first.
        #[arg(long)]
        hold: bool,
        /// Also what must not be executed twice and may have been executed. Needs --reason, which stays with the job.
        #[arg(long)]
        force: bool,
    },
    /// Give up jobs whose agent will never come back. Needs --reason, which stays with the job. What comes later is recorded beside them.
    #[command(after_help = "Example:\n  lastword job abandon 1042 --reason 'host1 was scrapped'")]
    Abandon {
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
    /// Follow a job: each of its statuses and outcomes, until it has ended.
    #[command(after_help = "Example:\n  lastword job watch 1042 -o jsonl")]
    Watch {
        /// Their numbers.
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<JobRef>,
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
            Verb::Files(files) => files.run(client, output),
            Verb::Wait { jobs } => wait::run(client, output, &jobs),
            Verb::Watch { jobs } => {
                let jobs = jobs.iter().map(|job| job.id).collect();
                Watch { jobs, queues: Vec::new(), kinds: Vec::new(), after: None }.run(client, output)
            }
            Verb::Prove { job } => prove::run(client, output, job),
            Verb::Show { jobs } => {
                for job in jobs {
                    show::print(&get(client, job)?, output)?;
                }
                Ok(0)
            }
            Verb::Kill { jobs, grace, wait } => {
                let killed = change(client, output, &jobs, "kill", &Kill { grace });
                if wait {
                    wait::run(client, output, &killed.done)?;
                }
                Ok(killed.code)
            }
            Verb::Suspend { jobs } => Ok(change(client, output, &jobs, "suspend", &json!({})).code),
            Verb::Resume { jobs } => Ok(change(client, output, &jobs, "resume", &json!({})).code),
            Verb::Hold { jobs } => Ok(change(client, output, &jobs, "hold", &json!({})).code),
            Verb::Release { jobs } => Ok(change(client, output, &jobs, "release", &json!({})).code),
            Verb::Cancel { jobs } => Ok(change(client, output, &jobs, "cancel", &json!({})).code),
            Verb::Restart { jobs, hold, force } => {
                let reason = if force { Some(needed_reason(client, "--force")?) } else { client.reason() };
                Ok(change(client, output, &jobs, "restart", &JobRestart { hold, force, reason }).code)
            }
            Verb::Abandon { jobs } => {
                let reason = needed_reason(client, "to abandon a job")?;
                Ok(change(client, output, &jobs, "abandon", &JobAbandon { reason }).code)
            }
            Verb::Why { job } => {
                let why: Why = client.get(&path(job.id, "/why"))?;
                output.one(&why, &why.id.to_string(), |_| why.why.clone())?;
                Ok(0)
            }
        }
    }
}

/// The reason without which this must not be done.
fn needed_reason(client: &Client, what: &str) -> anyhow::Result<String> {
    client.reason().ok_or_else(|| failure(exit::USAGE, format!("{what} needs a reason: --reason TEXT")))
}

/// What became of an order that was given for several jobs.
struct Changed {
    done: Vec<JobRef>,
    /// The exit code of the first failure; 0 without one.
    code: u8,
}

/// Does the same with each job. One that fails is told of and does not keep the others from it.
fn change<B: Serialize>(client: &Client, output: &Output, jobs: &[JobRef], verb: &str, body: &B) -> Changed {
    let mut changed = Changed { done: Vec::new(), code: 0 };
    for &job in jobs {
        let result = order(client, job, verb, body).with_context(|| format!("cannot {verb} job {}", job.id));
        if result.is_ok() {
            changed.done.push(job);
        }
        if let Err(error) = result.and_then(|job| print_changed(&job, output)) {
            let code = exit::report(&error);
            if changed.code == 0 {
                changed.code = code;
            }
        }
    }
    changed
}

/// Gives one order. If its first answer was lost, the second may say no only because the first was obeyed.
fn order<B: Serialize>(client: &Client, job: JobRef, verb: &str, body: &B) -> Result<Job, CallError> {
    let path = path(job.id, &format!("/{verb}"));
    let body = serde_json::to_vec(body).map_err(|e| CallError::Garbled(e.to_string()))?;
    let call =
        Call { method: Method::POST, path: &path, body: Some(body), repeatable: true, ..Call::default() };
    let reply = client.send(&call)?;
    let repeated = reply.repeated;
    match reply.accepted() {
        Ok(reply) => reply.read(),
        Err(error) if repeated && matches!(error.kind(), "already-over" | "not-over") => {
            let job = get(client, job)?;
            let obeyed = match verb {
                "kill" => true,
                "cancel" => job.status.0 == Status::Canceled,
                "abandon" => job.status.0 == Status::Abandoned,
                "restart" => !job.status.0.is_final(),
                _ => false,
            };
            if obeyed { Ok(job) } else { Err(error) }
        }
        // It was resumed by the first, whose answer was lost.
        Err(error) if repeated && verb == "resume" && error.kind() == "not-suspended" => {
            let job = get(client, job)?;
            if job.status.0 == Status::Running { Ok(job) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

fn print_changed(job: &Job, output: &Output) -> anyhow::Result<()> {
    if output.is_json() { show::print(job, output) } else { line(&job.id.to_string()) }
}

fn get(client: &Client, job: JobRef) -> Result<Job, CallError> {
    client.get(&path(job.id, ""))
}

fn path(job: u64, rest: &str) -> String {
    format!("/api/v1/jobs/{job}{rest}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::client::Place;
    use crate::fake;
    use crate::output::Format;
    use api::Time;

    /// A run of it, of which little is known.
    pub(crate) fn run() -> api::Run {
        api::Run {
            run_id: "r".into(),
            attempt: 1,
            agent: "host1".into(),
            status: api::Status::Running.into(),
            exit_code: None,
            signal: None,
            witness: None,
            reason: None,
            placed_at: Some(api::Time { ms: 0 }),
            started_at: None,
            ended_at: None,
            cpu_ms: None,
            user_ms: None,
            system_ms: None,
            max_rss_kib: None,
            memory_peak_kib: None,
            read_bytes: None,
            written_bytes: None,
            oom_kills: None,
            context_switches: None,
            processes_peak: None,
            late_outcome: None,
        }
    }

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
            umask: None,
            nice: None,
            limits: Default::default(),
            env: Default::default(),
            output_limit: None,
            leftovers: None,
            capture: Vec::new(),
            timeout: None,
            grace: None,
            priority: 0,
            submitted_by: "admin".into(),
            idempotency_key: None,
            kill_requested_by: None,
            waits_for: None,
            waits_until: None,
            start_at: None,
            retry: None,
            on_unknown: Default::default(),
            restart_safe: Default::default(),
            suspend_requested_by: None,
            resume_requested_by: None,
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
    fn changed(verb: &str, jobs: &[u64], answers: Vec<String>) -> (Vec<u64>, u8, Vec<String>) {
        let (urls, asked) = fake::server(answers);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        let jobs: Vec<JobRef> = jobs.iter().map(|&id| JobRef { id, attempt: None }).collect();
        let changed = change(&client, &Output::new(Format::Name), &jobs, verb, &json!({}));
        let asked = asked.join().unwrap();
        let lines = asked.iter().filter_map(|text| text.lines().next()).map(str::to_owned);
        (changed.done.iter().map(|job| job.id).collect(), changed.code, lines.collect())
    }

    fn shown(status: Status) -> String {
        fake::answer(200, &serde_json::to_string(&Job { status: status.into(), ..job() }).unwrap())
    }

    fn already_over() -> String {
        fake::problem(409, "already-over", "the job is over")
    }

    #[test]
    fn a_job_that_cannot_be_killed_does_not_save_the_others_and_gives_the_exit_code() {
        let missing = fake::problem(404, "no-such-job", "there is no job 1");
        let answers = vec![missing, shown(Status::Running), already_over(), shown(Status::Running)];
        let (done, code, asked) = changed("kill", &[1, 2, 3, 4], answers);
        assert_eq!((done, code, asked.len()), (vec![2, 4], exit::NOT_FOUND, 4));
        assert!(asked[3].starts_with("POST /api/v1/jobs/4/kill "), "{}", asked[3]);
    }

    #[test]
    fn a_kill_that_was_obeyed_before_its_answer_was_lost_is_a_success() {
        let answers = vec![String::new(), already_over(), shown(Status::Killed)];
        let (done, code, asked) = changed("kill", &[7], answers);
        assert_eq!((done, code), (vec![7], 0));
        assert!(asked[2].starts_with("GET /api/v1/jobs/7 "), "{}", asked[2]);
    }

    #[test]
    fn a_cancel_whose_answer_was_lost_is_a_success_only_if_the_job_is_canceled() {
        let lost = |status| vec![String::new(), already_over(), shown(status)];
        assert_eq!(changed("cancel", &[7], lost(Status::Canceled)).1, 0);
        assert_eq!(changed("cancel", &[7], lost(Status::Completed)).1, exit::REFUSED);
    }

    #[test]
    fn the_first_kill_of_a_job_that_is_over_is_refused() {
        let (done, code, asked) = changed("kill", &[7], vec![already_over()]);
        assert_eq!((done.len(), code, asked.len()), (0, exit::REFUSED, 1));
    }
}

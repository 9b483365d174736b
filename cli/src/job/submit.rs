//! Submits a job, and stays with it if asked to.

use super::{logs, show, wait};
use crate::client::{CallError, Client};
use crate::exit::{IO, NOT_FOUND, REFUSED, failure};
use crate::output::{Format, Output, hint, line};
use api::{Job, JobSubmit, Span};
use clap::Args;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// So long is a submission repeated whose answer was lost.
const LOST_MAX: Duration = Duration::from_secs(10);
const LOST_PAUSE: Duration = Duration::from_millis(300);

/// A job and what is to be done after it was submitted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword job submit -- /usr/local/bin/nightly --full
  lastword job submit --wait --timeout 1h --queue batch -- make -C /srv/app
  lastword job submit --follow --script report.sh -- 2026-11
  lastword job submit -e LANG=C -p month=11 --on host1 -- /bin/sh -c 'echo $LASTWORD_PARAM_MONTH'
  generate-script | lastword job submit --script -

Prints the job's number first. With --wait and --follow the exit code is the job's (killed: 128+signal,
timed out: 124, never executed: 255, outcome unknown: 70). Ctrl-C ends the waiting, never the job.")]
pub(crate) struct Submit {
    /// A name for people; the program's if absent.
    #[arg(long)]
    name: Option<String>,
    /// The queue to wait in; `default` if absent.
    #[arg(long)]
    queue: Option<String>,
    /// Run on this agent only.
    #[arg(long, visible_alias = "agent", value_name = "AGENT")]
    on: Option<String>,
    /// Run as this user of the host.
    #[arg(long)]
    user: Option<String>,
    /// Run in this directory (absolute) instead of a private one.
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// An environment variable; may be given several times.
    #[arg(short, long = "env", value_name = "K=V", value_parser = read_pair)]
    env: Vec<(String, String)>,
    /// A parameter, seen by the job as LASTWORD_PARAM_<NAME>; may be given several times.
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = read_pair)]
    params: Vec<(String, String)>,
    /// End it after this long: 90s, 1h30m.
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
    /// Between the soft signal and SIGKILL when it is ended.
    #[arg(long, value_name = "SPAN")]
    grace: Option<Span>,
    /// Higher goes first; 0 if absent.
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Start out held.
    #[arg(long)]
    hold: bool,
    /// Wait until it has ended; the exit code is the job's.
    #[arg(long)]
    wait: bool,
    /// As --wait, and print what the job writes while it runs.
    #[arg(long)]
    follow: bool,
    /// A second submission with the same key is the same job.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Run this script instead of a program; `-` reads it from standard input.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Program and arguments; with --script the script's arguments.
    #[arg(last = true, required_unless_present = "script", value_name = "COMMAND")]
    command: Vec<String>,
}

impl Submit {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        let (wait, follow) = (self.wait, self.follow);
        let job = send(client, &self.request()?)?;
        let whole = output.is_json();
        if whole && follow {
            eprintln!("{}", job.id); // standard output belongs to the job
        } else if whole && !wait {
            show::print(&job, output)?;
        } else if !whole {
            line(&job.id.to_string())?;
        }
        match (follow, wait) {
            (true, _) => logs::follow(client, job.id),
            (false, true) => {
                let ended = wait::until_final(client, job.id)?;
                if whole {
                    show::print(&ended, output)?;
                }
                Ok(wait::conclude(&ended))
            }
            (false, false) => {
                if output.format() == Format::Table {
                    hint(&format!("follow it with: lastword job logs {} --follow", job.id));
                }
                Ok(0)
            }
        }
    }

    fn request(self) -> anyhow::Result<JobSubmit> {
        let script = self.script.as_deref().map(read_script).transpose()?;
        let name_of_script = match (&self.script, &self.name) {
            (Some(path), None) if path.as_os_str() != "-" => {
                path.file_name().map(|name| name.to_string_lossy().into_owned())
            }
            (Some(_) | None, _) => None,
        };
        let key = match self.idempotency_key {
            Some(key) => key,
            None => random_key()?,
        };
        Ok(JobSubmit {
            command: self.command,
            script,
            name: self.name.or(name_of_script),
            queue: self.queue,
            agent: self.on,
            user: self.user,
            cwd: self.cwd,
            env: BTreeMap::from_iter(self.env),
            params: BTreeMap::from_iter(self.params),
            timeout: self.timeout,
            grace: self.grace,
            priority: self.priority,
            held: self.hold,
            idempotency_key: Some(key),
        })
    }
}

/// Sends the request. If the answer is lost it is sent again: the key makes the same job of both.
fn send(client: &Client, request: &JobSubmit) -> anyhow::Result<Job> {
    let mut lost_since: Option<Instant> = None;
    loop {
        match client.post("/api/v1/jobs", request, false) {
            Ok(job) => return Ok(job),
            Err(CallError::Away { what, perhaps_done }) if perhaps_done || lost_since.is_some() => {
                if lost_since.get_or_insert_with(Instant::now).elapsed() > LOST_MAX {
                    let key = request.idempotency_key.as_deref().unwrap_or_default();
                    let error = CallError::Away { what, perhaps_done: true };
                    let hint = "repeat the command with this option and at most one job comes of both";
                    return Err(anyhow::Error::new(error).context(format!("--idempotency-key {key}: {hint}")));
                }
                thread::sleep(LOST_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A key that nobody else uses, so that a submission can be repeated when its answer was lost.
fn random_key() -> anyhow::Result<String> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|e| failure(IO, format!("cannot get random bytes: {e}")))?;
    Ok(random.iter().fold("cli-".to_owned(), |key, byte| format!("{key}{byte:02x}")))
}

fn read_script(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).map(|_| ())
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    read.map_err(|e| failure(NOT_FOUND, format!("cannot read the script {}: {e}", path.display())))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let path = path.display();
        failure(
            REFUSED,
            format!(
                "the script {path} is not UTF-8 text (byte {at}); copy it to the host and submit its path"
            ),
        )
    })
}

fn read_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Place;
    use crate::fake;

    #[test]
    fn a_submission_whose_answer_was_lost_is_repeated_with_the_same_key() {
        let job = serde_json::to_string(&crate::job::tests::job()).unwrap();
        let (urls, asked) = fake::server(vec![String::new(), fake::answer(200, &job)]);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        let key = Some(random_key().unwrap());
        let request = JobSubmit { command: vec!["x".into()], idempotency_key: key, ..JobSubmit::default() };
        assert_eq!(send(&client, &request).unwrap().id, 1042);
        let asked = asked.join().unwrap();
        let bodies: Vec<&str> = asked.iter().map(|text| text.split("\r\n\r\n").nth(1).unwrap()).collect();
        assert_eq!(bodies[0], bodies[1]);
        assert!(bodies[0].contains("\"idempotency_key\":\"cli-"));
    }

    #[test]
    fn a_refused_submission_is_not_repeated() {
        let (urls, asked) =
            fake::server(vec![fake::problem(422, "no-such-queue", "there is no queue \"q\"")]);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        let error = send(&client, &JobSubmit::default()).unwrap_err();
        assert_eq!(error.downcast_ref::<CallError>().unwrap().exit_code(), crate::exit::NOT_FOUND);
        assert_eq!(asked.join().unwrap().len(), 1);
    }
}

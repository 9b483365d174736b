//! Submits a job, and stays with it if asked to.

use super::policy::Policy;
use super::{logs, show, wait};
use crate::client::{CallError, Client};
use crate::exit::{IO, LATER, NOT_FOUND, REFUSED, failure};
use crate::output::{Format, Output, hint, line};
use api::{Job, JobSubmit, Span, Time};
use clap::Args;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// So long is a submission repeated that may have been done without our knowing.
const LOST_MAX: Duration = Duration::from_secs(10);
const LOST_PAUSE: Duration = Duration::from_millis(300);

/// A job and what is to be done after it was submitted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword job submit -- /usr/local/bin/nightly --full
  lastword job submit --wait --timeout 1h --queue batch -- make -C /srv/app
  lastword job submit --user batch --umask 027 --nice 10 --limit nofile=1024:4096 -- /srv/app/export
  lastword job submit --follow --script report.sh -- 2026-11
  lastword job submit -e LANG=C -p month=11 --on host1 -- /bin/sh -c 'echo $LASTWORD_PARAM_MONTH'
  lastword job submit --retry 3 --retry-backoff 10s..5m --retry-on 75,100-110 -- /usr/local/bin/fetch
  lastword job submit --at 2026-11-23T02:00Z --restart-safe ask -- /usr/local/bin/nightly
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
    /// File mode mask of the job's process, octal: 027.
    #[arg(long, value_name = "MASK")]
    umask: Option<String>,
    /// Niceness of the job's process, -20 to 19.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    nice: Option<i32>,
    /// A resource limit, as in nofile=1024:4096, as=2G, core=unlimited (one value: soft and hard); may be given several times.
    #[arg(long = "limit", value_name = "NAME=SOFT[:HARD]", value_parser = read_pair)]
    limits: Vec<(String, String)>,
    /// An environment variable; may be given several times.
    #[arg(short, long = "env", value_name = "K=V", value_parser = read_pair)]
    env: Vec<(String, String)>,
    /// A parameter, seen by the job as LASTWORD_PARAM_<NAME>; may be given several times.
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = read_pair)]
    params: Vec<(String, String)>,
    /// How much each of its two output files may hold, and what happens beyond: keep-ends (if not said), kill or truncate.
    #[arg(long, value_name = "SIZE[:POLICY]")]
    output_limit: Option<String>,
    /// What becomes of processes that it leaves behind: kill (if not said), wait or ignore.
    #[arg(long, value_name = "POLICY")]
    leftovers: Option<String>,
    /// Keep files that fit this after its end; may be given several times. See `lastword job files`.
    #[arg(long, value_name = "GLOB")]
    capture: Vec<String>,
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
    /// Start it at this time, not before: 2026-11-23T02:00Z. A time in the past is now.
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    at: Option<Time>,
    /// Start it this long from now, not before: 10m.
    #[arg(long, value_name = "SPAN")]
    delay: Option<Span>,
    #[command(flatten)]
    policy: Policy,
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
        let job = send(client, &self.request()?, LOST_MAX)?;
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
            umask: self.umask,
            nice: self.nice,
            limits: BTreeMap::from_iter(self.limits),
            env: BTreeMap::from_iter(self.env),
            params: BTreeMap::from_iter(self.params),
            output_limit: self.output_limit,
            leftovers: self.leftovers,
            capture: self.capture,
            timeout: self.timeout,
            grace: self.grace,
            priority: self.priority,
            held: self.hold,
            start_at: self.at,
            delay: self.delay,
            retry: self.policy.retry(),
            on_unknown: self.policy.on_unknown,
            restart_safe: self.policy.restart_safe,
            idempotency_key: Some(key),
        })
    }
}

/// Sends the request. While it may have been done without our knowing it is sent again, for as long as
/// `lost_max` after the first such failure: the key makes the same job of all.
fn send(client: &Client, request: &JobSubmit, lost_max: Duration) -> anyhow::Result<Job> {
    let mut lost_since: Option<Instant> = None;
    loop {
        let error = match client.post("/api/v1/jobs", request, false) {
            Ok(job) => return Ok(job),
            Err(error) => error,
        };
        if error.perhaps_done() {
            lost_since.get_or_insert_with(Instant::now);
        }
        match lost_since {
            None => return Err(error.into()),
            Some(since) if error.may_pass() && since.elapsed() < lost_max => thread::sleep(LOST_PAUSE),
            Some(_) => return Err(perhaps_submitted(&error, request)),
        }
    }
}

/// The failure of a submission of which a job may have come, or may still come.
fn perhaps_submitted(error: &CallError, request: &JobSubmit) -> anyhow::Error {
    let key = request.idempotency_key.as_deref().unwrap_or_default();
    let code = if error.may_pass() { LATER } else { error.exit_code() };
    failure(
        code,
        format!(
            "{error}; the job may have been submitted all the same: repeat the command with \
             --idempotency-key {key} and at most one job comes of both"
        ),
    )
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
    use crate::exit::Failure;
    use crate::fake;

    fn client(answers: Vec<String>) -> (Client, std::thread::JoinHandle<Vec<String>>) {
        let (urls, asked) = fake::server(answers);
        (Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap(), asked)
    }

    fn request() -> JobSubmit {
        let key = Some(random_key().unwrap());
        JobSubmit { command: vec!["x".into()], idempotency_key: key, ..JobSubmit::default() }
    }

    fn stopping() -> String {
        fake::problem(503, "stopping", "the server stops")
    }

    #[test]
    fn a_submission_whose_fate_is_not_known_is_repeated_with_the_same_key() {
        let job = serde_json::to_string(&crate::job::tests::job()).unwrap();
        let slow = fake::problem(408, "too-slow", "the request took too long");
        let (client, asked) = client(vec![
            String::new(),
            stopping(),
            slow,
            fake::answer(502, "<html>"),
            fake::answer(200, &job),
        ]);
        assert_eq!(send(&client, &request(), Duration::from_secs(600)).unwrap().id, 1042);
        let asked = asked.join().unwrap();
        let bodies: Vec<&str> = asked.iter().map(|text| text.split("\r\n\r\n").nth(1).unwrap()).collect();
        assert_eq!(bodies.len(), 5);
        assert!(bodies.iter().all(|body| *body == bodies[0]));
        assert!(bodies[0].contains("\"idempotency_key\":\"cli-"));
    }

    #[test]
    fn a_submission_whose_fate_stays_unknown_names_its_key_and_exits_75() {
        let slow = fake::problem(408, "too-slow", "the request took too long");
        for answer in [String::new(), stopping(), slow, fake::answer(504, "<html>")] {
            let (client, _) = client(vec![answer]);
            let request = request();
            let error = send(&client, &request, Duration::ZERO).unwrap_err();
            let key = request.idempotency_key.unwrap();
            assert!(error.to_string().contains(&format!("--idempotency-key {key}")), "{error}");
            assert_eq!(error.downcast_ref::<Failure>().unwrap().code, LATER);
        }
    }

    #[test]
    fn a_refusal_after_a_lost_answer_names_the_key_too() {
        let (client, _) =
            client(vec![String::new(), fake::problem(401, "no-token", "the token is not valid")]);
        let request = request();
        let error = send(&client, &request, Duration::from_secs(600)).unwrap_err();
        assert!(error.to_string().contains(&request.idempotency_key.unwrap()), "{error}");
        assert_eq!(error.downcast_ref::<Failure>().unwrap().code, crate::exit::TOKEN);
    }

    #[test]
    fn a_refused_submission_is_not_repeated() {
        let (client, asked) = client(vec![fake::problem(422, "no-such-queue", "there is no queue \"q\"")]);
        let error = send(&client, &JobSubmit::default(), LOST_MAX).unwrap_err();
        assert_eq!(error.downcast_ref::<CallError>().unwrap().exit_code(), crate::exit::NOT_FOUND);
        assert_eq!(asked.join().unwrap().len(), 1);
    }
}

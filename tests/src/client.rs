//! The REST interface as a client sees it. A server that is away for a moment is asked again, so every submission carries an idempotency key.

use crate::{WAIT_MAX, wait_for};
use anyhow::{Context, Result, bail};
use api::{
    Agent, AgentAdd, BatchSubmit, Counts, Job, JobList, JobSubmit, JobSubmitted, JobSummary, Kill, Proof,
    Queue, QueueCreate, Span, Why,
};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use ureq::http::Response;

/// The longest that one question may take.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Connections that are kept: one for each thread of a benchmark.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// The largest answer.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
const PAUSE: Duration = Duration::from_millis(20);

/// A client with the administrator's token.
#[derive(Clone)]
pub struct Client {
    url: String,
    token: String,
    http: ureq::Agent,
}

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body of a good answer; an error with the server's own words else.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        let text = String::from_utf8_lossy(&self.body);
        if !(200..300).contains(&self.status) {
            bail!("the server answered {}: {text}", self.status);
        }
        serde_json::from_slice(&self.body).with_context(|| format!("no such JSON: {text}"))
    }
}

/// A piece of output.
#[derive(Debug)]
pub struct Piece {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Nothing more will be written.
    pub complete: bool,
    /// The size of the whole so far.
    pub size: u64,
    /// The header that says what the output limit left out.
    pub gap: Option<String>,
}

impl Client {
    /// Of the server at that address, with that token.
    pub fn new(address: &str, token: &str) -> Client {
        let config = config(CALL_MAX);
        Client {
            url: format!("http://{address}"),
            token: format!("Bearer {token}"),
            http: config.build().into(),
        }
    }

    /// The same client, which waits only so long for an answer.
    pub fn with_patience(&self, patience: Duration) -> Client {
        let config = config(patience);
        Client { http: config.build().into(), ..self.clone() }
    }

    /// Where the server is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks once.
    pub fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mut response = self.send(method, path, body)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok(Answer { status, body: body.context("the answer was cut off")? })
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response<ureq::Body>> {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.header("Authorization", &self.token).header("Content-Type", "application/json");
        let sent = match body {
            Some(body) => self.http.run(request.body(body.to_string())?),
            None => self.http.run(request.body(())?),
        };
        sent.with_context(|| format!("{method} {path}"))
    }

    /// Asks until the server answers anything.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            match self.try_call(method, path, body) {
                // 503: it starts or stops.
                Ok(answer) if answer.status != 503 => return Ok(answer),
                answer if Instant::now() >= deadline => return answer,
                Ok(_) | Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call("GET", path, None)?.json().with_context(|| format!("GET {path}"))
    }

    fn post<T: serde::de::DeserializeOwned>(&self, path: &str, body: &impl serde::Serialize) -> Result<T> {
        let body = serde_json::to_value(body)?;
        self.call("POST", path, Some(&body))?.json().with_context(|| format!("POST {path}"))
    }

    /// Submits a job; its number.
    pub fn submit(&self, job: &JobSubmit) -> Result<u64> {
        Ok(self.post::<Job>("/api/v1/jobs", &with_key(job))?.id)
    }

    /// Submits a command.
    pub fn command(&self, words: &[&str]) -> Result<u64> {
        let command = words.iter().map(|word| (*word).to_owned()).collect();
        self.submit(&JobSubmit { command, ..JobSubmit::default() })
    }

    /// Submits a script for `/bin/sh`.
    pub fn script(&self, text: &str) -> Result<u64> {
        self.submit(&JobSubmit { script: Some(format!("#!/bin/sh\n{text}\n")), ..JobSubmit::default() })
    }

    /// Submits many in one transaction; their numbers.
    pub fn submit_batch(&self, jobs: &[JobSubmit]) -> Result<Vec<u64>> {
        let batch = BatchSubmit { jobs: jobs.iter().map(with_key).collect() };
        Ok(self.post::<JobSubmitted>("/api/v1/jobs/batch", &batch)?.ids)
    }

    /// A job.
    pub fn job(&self, id: u64) -> Result<Job> {
        self.get(&format!("/api/v1/jobs/{id}"))
    }

    /// Waits until the job is over.
    pub fn wait(&self, id: u64) -> Result<Job> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let job: Job = self.get(&format!("/api/v1/jobs/{id}?wait=5s"))?;
            if job.status.0.is_final() {
                return Ok(job);
            }
            if Instant::now() >= deadline {
                let why = self.why(id).unwrap_or_else(|e| e.to_string());
                bail!("job {id} did not end in time ({why}): {job:#?}");
            }
        }
    }

    /// Waits until the job's process runs.
    pub fn wait_running(&self, id: u64) -> Result<Job> {
        wait_for(&format!("job {id} to run"), || {
            let job = self.job(id)?;
            anyhow::ensure!(!job.status.0.is_final(), "the job is over already: {job:#?}");
            Ok((job.status.0 == api::Status::Running).then_some(job))
        })
    }

    /// Every job, newest first, page by page.
    pub fn list(&self) -> Result<Vec<JobSummary>> {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: JobList = self.get(&format!("/api/v1/jobs?limit=1000{cursor}"))?;
            found.extend(page.items);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(found),
            }
        }
    }

    /// How many there are in each status.
    pub fn counts(&self) -> Result<Counts> {
        self.get("/api/v1/jobs/counts")
    }

    /// How many are over, and how many there are.
    pub fn progress(&self) -> Result<(u64, u64)> {
        let Counts(counts) = self.counts()?;
        let over = counts.iter().filter(|(status, _)| status.0.is_final()).map(|(_, count)| count).sum();
        Ok((over, counts.values().sum()))
    }

    /// Waits until all jobs are over.
    pub fn wait_all(&self) -> Result<()> {
        let mut seen = (0, 0);
        let done = wait_for("all jobs to be over", || {
            seen = self.progress()?;
            Ok((seen.0 == seen.1).then_some(()))
        });
        done.with_context(|| format!("{} of {} are over", seen.0, seen.1))
    }

    /// Ends a job.
    pub fn kill(&self, id: u64, grace_ms: Option<u64>) -> Result<Job> {
        self.post(&format!("/api/v1/jobs/{id}/kill"), &Kill { grace: grace_ms.map(|ms| Span { ms }) })
    }

    /// Holds, releases or cancels a job.
    pub fn change(&self, id: u64, verb: &str) -> Result<Job> {
        self.post(&format!("/api/v1/jobs/{id}/{verb}"), &json!({}))
    }

    /// Why a job does not run.
    pub fn why(&self, id: u64) -> Result<String> {
        Ok(self.get::<Why>(&format!("/api/v1/jobs/{id}/why"))?.why)
    }

    /// The ledger of a job, as server and agent have it.
    pub fn proof(&self, id: u64) -> Result<Proof> {
        self.get(&format!("/api/v1/jobs/{id}/proof"))
    }

    /// What a job wrote, from that byte on.
    pub fn output(&self, id: u64, stream: &str, offset: u64) -> Result<Piece> {
        let path = format!("/api/v1/jobs/{id}/output/{stream}?offset={offset}");
        let mut response = self.send("GET", &path, None)?;
        let complete = response.headers().get("x-complete").is_some_and(|value| value == "true");
        let text =
            |name| response.headers().get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let (size, gap) = (text("x-size").and_then(|size| size.parse().ok()).unwrap_or(0), text("x-gap"));
        let status = response.status().as_u16();
        let bytes = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        anyhow::ensure!(status == 200, "GET {path}: {status} {}", String::from_utf8_lossy(&bytes));
        Ok(Piece { bytes, complete, size, gap })
    }

    /// All that a job wrote and that was kept, when it is complete.
    pub fn whole_output(&self, id: u64, stream: &str) -> Result<Vec<u8>> {
        let (mut bytes, mut at) = (Vec::new(), 0);
        wait_for(&format!("all output of job {id}"), || {
            let piece = self.output(id, stream, at)?;
            at = piece.size;
            let over = piece.complete && piece.bytes.is_empty();
            bytes.extend(piece.bytes);
            Ok(over.then_some(()))
        })?;
        Ok(bytes)
    }

    /// Standard output as text.
    pub fn stdout(&self, id: u64) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.whole_output(id, "stdout")?).into_owned())
    }

    /// An agent.
    pub fn agent(&self, name: &str) -> Result<Agent> {
        self.get(&format!("/api/v1/agents/{name}"))
    }

    /// Makes an agent known.
    pub fn add_agent(&self, agent: &AgentAdd) -> Result<Agent> {
        self.post("/api/v1/agents", agent)
    }

    /// Makes a queue.
    pub fn create_queue(&self, name: &str, agents: &[&str]) -> Result<Queue> {
        let agents = agents.iter().map(|agent| (*agent).to_owned()).collect();
        self.post("/api/v1/queues", &QueueCreate { name: name.to_owned(), held: false, agents })
    }

    /// Holds or releases a queue.
    pub fn change_queue(&self, name: &str, verb: &str) -> Result<Queue> {
        self.post(&format!("/api/v1/queues/{name}/{verb}"), &json!({}))
    }

    /// Attaches an agent to a queue, or detaches it.
    pub fn attachment(&self, queue: &str, verb: &str, agent: &str) -> Result<Queue> {
        self.post(&format!("/api/v1/queues/{queue}/{verb}"), &json!({ "agent": agent }))
    }
}

fn config(patience: Duration) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(patience));
    config.max_idle_connections(IDLE_CONNECTIONS_MAX).max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
}

fn with_key(job: &JobSubmit) -> JobSubmit {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let key = || format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let idempotency_key = Some(job.idempotency_key.clone().unwrap_or_else(key));
    JobSubmit { idempotency_key, ..job.clone() }
}

//! The oracle: a file to which each job appends a line when it begins and a line when it ends (`ledger-job`).

use crate::helper;
use anyhow::{Context, Result};
use api::{Job, JobSubmit, Status};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// With that exit code.
    Code(u8),
    /// By that signal, which it sent to itself.
    Signal(u8),
}

impl End {
    /// Whether the server says the same of the job.
    pub fn fits(self, job: &Job) -> bool {
        let status = if self == End::Code(0) { Status::Completed } else { Status::Error };
        let (code, signal) = match self {
            End::Code(code) => (Some(code), None),
            End::Signal(signal) => (None, Some(signal)),
        };
        (job.status.0, job.exit_code, job.signal) == (status, code, signal)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Code(code) => write!(f, "code {code}"),
            End::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a job is to do.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// It sleeps so long, milliseconds.
    pub sleep_ms: u64,
    /// Then it ends like this.
    pub end: End,
}

/// A request for a job that writes the ledger.
pub fn ledger_job(ledger: &Path, way: Way) -> Result<JobSubmit> {
    request(ledger, &way.sleep_ms.to_string(), way.end)
}

/// A request for a job that writes the ledger and ends when the file `go` exists.
pub fn gated_job(ledger: &Path, go: &Path, end: End) -> Result<JobSubmit> {
    request(ledger, &go.to_string_lossy(), end)
}

fn request(ledger: &Path, until: &str, end: End) -> Result<JobSubmit> {
    let program = helper("ledger-job")?.to_string_lossy().into_owned();
    let words = [program, ledger.to_string_lossy().into_owned(), until.to_owned()];
    let command = words.into_iter().chain(end.to_string().split(' ').map(str::to_owned)).collect();
    Ok(JobSubmit { command, ..JobSubmit::default() })
}

/// One execution of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The run.
    pub run_id: String,
    /// The process.
    pub pid: u32,
    /// How it ended; `None` if it did not come so far.
    pub end: Option<End>,
}

/// What the jobs wrote.
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// An empty one in that directory.
    pub fn new(dir: &Path) -> Ledger {
        Ledger { path: dir.join("ledger") }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every execution, by the job's number.
    pub fn read(&self) -> Result<BTreeMap<u64, Vec<Execution>>> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e).context("the ledger"),
        };
        let mut found: BTreeMap<u64, Vec<Execution>> = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let odd = || format!("an odd line in the ledger: {line:?}");
            let [job, run_id, pid, what, rest @ ..] = words.as_slice() else { anyhow::bail!(odd()) };
            let executions = found.entry(job.parse().with_context(odd)?).or_default();
            let pid = pid.parse().with_context(odd)?;
            match (*what, rest) {
                ("start", []) => executions.push(Execution { run_id: (*run_id).to_owned(), pid, end: None }),
                ("end", [kind, number]) => {
                    let number = number.parse().with_context(odd)?;
                    let end = if *kind == "code" { End::Code(number) } else { End::Signal(number) };
                    let execution = executions.iter_mut().rfind(|e| e.run_id == *run_id && e.pid == pid);
                    execution.with_context(odd)?.end = Some(end);
                }
                _ => anyhow::bail!(odd()),
            }
        }
        Ok(found)
    }

    /// The executions of one job.
    pub fn of(&self, job: u64) -> Result<Vec<Execution>> {
        Ok(self.read()?.remove(&job).unwrap_or_default())
    }
}

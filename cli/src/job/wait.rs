//! Waits for jobs: the outcome comes from the server's durable record, however often the server goes away meanwhile.

use super::{JobRef, path, show};
use crate::client::Client;
use crate::exit::{self, DETACHED};
use crate::output::{Output, line};
use api::{Job, Status};
use std::sync::Once;

/// How long one question to the server stays open.
pub(crate) const POLL: &str = "30s";

/// Waits for each job in turn; the exit code is that of the first that did not succeed.
pub(crate) fn run(client: &Client, output: &Output, jobs: &[JobRef]) -> anyhow::Result<u8> {
    let mut code = 0;
    for job in jobs {
        let ended = until_final(client, job.id)?;
        if output.is_json() {
            show::print(&ended, output)?;
        } else if jobs.len() > 1 {
            line(&format!("{} {}", ended.id, ended.status))?;
        }
        let its = conclude(&ended);
        if code == 0 {
            code = its;
        }
    }
    Ok(code)
}

/// Waits until the job has its outcome.
pub(crate) fn until_final(client: &Client, job: u64) -> anyhow::Result<Job> {
    detach_on_interrupt(job);
    let question = path(job, &format!("?wait={POLL}"));
    loop {
        let job: Job = client.patiently(|| client.get(&question))?;
        if job.status.0.is_final() {
            return Ok(job);
        }
    }
}

/// Says what a bare exit code cannot, and returns the exit code.
pub(crate) fn conclude(job: &Job) -> u8 {
    let code = exit::of_job(job).unwrap_or(exit::SOFTWARE);
    if job.status.0 != Status::Completed && (job.status.0 != Status::Error || job.exit_code.is_none()) {
        let reason = job.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        eprintln!("lastword: job {} is {}{reason}", job.id, job.status);
    }
    code
}

/// From here on Ctrl-C ends this program only: says how to come back. The job goes on.
pub(crate) fn detach_on_interrupt(job: u64) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without the thread Ctrl-C still ends this program, only silently.
        let _ = std::thread::Builder::new().name("interrupt".into()).spawn(move || on_interrupt(job));
    });
}

fn on_interrupt(job: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let interrupted = runtime.is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok());
    if interrupted {
        eprintln!("\nlastword: detached; job {job} goes on. Come back with: lastword job wait {job}");
        std::process::exit(i32::from(DETACHED));
    }
}

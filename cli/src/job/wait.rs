//! Waits for jobs: the outcome comes from the server's durable record, however often the server goes away meanwhile.

use super::{JobRef, path, show};
use crate::client::Client;
use crate::exit;
use crate::interrupt;
use crate::output::{Output, line};
use api::{Job, Status};

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
    interrupt::detach(format!("job {job} goes on. Come back with: lastword job wait {job}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Place;
    use crate::fake;

    #[test]
    fn the_outcome_is_waited_for_while_the_server_comes_and_goes() {
        let running =
            serde_json::to_string(&Job { status: Status::Running.into(), ..crate::job::tests::job() })
                .unwrap();
        let ended = Job { status: Status::Error.into(), exit_code: Some(7), ..crate::job::tests::job() };
        let broken = String::new;
        let (urls, asked) = fake::server(vec![
            fake::answer(200, &running),
            broken(),
            broken(),
            fake::problem(503, "stopping", "the server stops"),
            fake::answer(200, &running),
            fake::answer(200, &serde_json::to_string(&ended).unwrap()),
        ]);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        let job = until_final(&client, 1042).unwrap();
        assert_eq!((exit::of_job(&job), asked.join().unwrap().len()), (Some(7), 6));
    }

    #[test]
    fn a_job_that_does_not_exist_is_not_waited_for() {
        let (urls, _) = fake::server(vec![fake::problem(404, "no-such-job", "there is no job 7")]);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        assert_eq!(until_final(&client, 7).unwrap_err().to_string(), "there is no job 7");
    }
}

//! What follows an attempt, on the whole system: retries, an operator's word, start times.

use api::{Job, JobSubmit, Status};
use serde_json::Value;
use tests::{Dialling, Site, on_site, wait_until};

/// Runs the command line program; its exit code and what it printed, also on standard error.
fn lastword(site: &Site, line: &[&str]) -> anyhow::Result<(i32, String)> {
    let output = site.lastword(line)?.output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
}

/// Submits by the command line program; the job's number.
fn submit(site: &Site, options: &[&str], script: &str) -> anyhow::Result<u64> {
    let line = [&["job", "submit", "-o", "name"], options, &["--", "/bin/sh", "-c", script]].concat();
    let (code, text) = lastword(site, &line)?;
    anyhow::ensure!(code == 0, "{line:?}: {code}, {text}");
    Ok(text.trim().parse()?)
}

fn attempts(job: &Job) -> Vec<(u32, Status)> {
    job.runs.iter().map(|run| (run.attempt, run.status.0)).collect()
}

#[test]
fn a_failed_job_is_tried_again_and_told_how_the_attempt_before_ended() {
    on_site(|site| {
        let log = site.path().join("attempts");
        let script = format!(
            "echo \"$LASTWORD_ATTEMPT,$LASTWORD_PREVIOUS_OUTCOME,$LASTWORD_IDEMPOTENCY_KEY,$LASTWORD_PARAM_MAX_SIZE\" >> {}; \
             [ $LASTWORD_ATTEMPT = 3 ] || exit 75",
            log.display()
        );
        let options = ["--retry", "4", "--retry-backoff", "1s..2s", "--retry-on", "75", "-p", "max-size=5"];
        let id = submit(site, &[&options[..], &["--idempotency-key", "mine"]].concat(), &script)?;
        wait_until("it to pause", || Ok(site.client().job(id)?.status.0 == Status::Waiting))?;
        let pausing = site.client().job(id)?;
        if pausing.status.0 == Status::Waiting {
            assert_eq!((pausing.exit_code, pausing.waits_for.as_deref()), (Some(75), Some("retry")));
            assert!(pausing.waits_until.is_some() && pausing.reason.is_some(), "{pausing:#?}");
        }
        site.server.kill()?;
        site.server.restart()?;
        let job = site.client().wait(id)?;
        assert_eq!(job.status.0, Status::Completed, "{job:#?}");
        assert_eq!(attempts(&job), [(1, Status::Error), (2, Status::Error), (3, Status::Completed)]);
        let lines = std::fs::read_to_string(&log)?;
        assert_eq!(lines, "1,,mine,5\n2,Error,mine,5\n3,Error,mine,5\n");
        Ok(())
    });
}

#[test]
fn a_job_that_is_over_is_restarted_under_its_number_but_by_force_if_it_must_not_run_twice() {
    on_site(|site| {
        let id = submit(site, &[], "exit 5")?;
        site.client().wait(id)?;
        let number = id.to_string();
        let (code, text) = lastword(site, &["job", "restart", &number])?;
        assert!(code == 65 && text.contains("never_twice") && text.contains("--force"), "{code}: {text}");
        assert_eq!(lastword(site, &["job", "restart", &number, "--force"])?.0, 64, "a reason is needed");
        let (code, text) = lastword(site, &["job", "restart", &number, "--force", "--reason", "checked"])?;
        assert_eq!(code, 0, "{text}");
        wait_until("the second attempt", || Ok(site.client().job(id)?.runs.len() == 2))?;
        let job = site.client().wait(id)?;
        assert_eq!(attempts(&job), [(1, Status::Error), (2, Status::Error)]);
        let id = submit(site, &["--restart-safe", "at_least_once"], "true")?;
        site.client().wait(id)?;
        let number = id.to_string();
        assert_eq!(lastword(site, &["job", "restart", &number, "--hold"])?.0, 0);
        assert_eq!(site.client().job(id)?.status.0, Status::Held);
        assert_eq!(lastword(site, &["job", "release", &number])?.0, 0);
        assert_eq!(attempts(&site.client().wait(id)?).len(), 2);
        Ok(())
    });
}

#[test]
fn a_job_whose_end_nobody_saw_waits_for_an_operators_decision() {
    on_site(|site| {
        let submitted = submit(site, &["--restart-safe", "ask"], "sleep 1000")?;
        site.client().wait_running(submitted)?;
        site.agent()?.vanish()?;
        site.wait_away("host1")?;
        site.add_agent("host2", Dialling::In)?;
        let removed = site.client().call("DELETE", "/api/v1/agents/host1?force=true", None)?;
        assert_eq!(removed.status, 204);
        let job = site.client().job(submitted)?;
        assert_eq!((job.status.0, job.waits_for.as_deref()), (Status::Waiting, Some("decision")), "{job:#?}");
        let number = submitted.to_string();
        let (_, why) = lastword(site, &["job", "why", &number])?;
        assert!(why.contains("operator's decision") && why.contains("lastword job abandon"), "{why}");
        let (code, text) = lastword(site, &["job", "restart", &number])?;
        assert_eq!(code, 0, "{text}");
        let job = site.client().wait_running(submitted)?;
        assert_eq!(attempts(&job), [(1, Status::Unknown), (2, Status::Running)]);
        assert_eq!(job.runs[1].agent, "host2");
        site.client().kill(submitted, Some(0))?;
        assert_eq!(site.client().wait(submitted)?.status.0, Status::Killed);
        Ok(())
    });
}

#[test]
fn a_job_is_given_up_while_its_agent_is_away_and_its_true_end_stands_beside() {
    on_site(|site| {
        let go = site.path().join("go");
        let id = submit(site, &[], &format!("while [ ! -e {} ]; do sleep 0.05; done; exit 3", go.display()))?;
        site.client().wait_running(id)?;
        let number = id.to_string();
        let abandon = ["job", "abandon", &number, "--reason", "host1 is gone"];
        let (code, text) = lastword(site, &abandon)?;
        assert!(code == 65 && text.contains("is connected"), "{code}: {text}");
        site.agent()?.stop()?;
        site.wait_away("host1")?;
        let (code, text) = lastword(site, &abandon)?;
        assert_eq!(code, 0, "{text}");
        assert_eq!(site.client().job(id)?.status.0, Status::Abandoned);
        std::fs::write(&go, "")?;
        site.agent()?.start()?;
        wait_until("its true end", || Ok(site.client().job(id)?.runs[0].late_outcome.is_some()))?;
        let job = site.client().job(id)?;
        assert_eq!((job.status.0, job.runs[0].status.0), (Status::Abandoned, Status::Abandoned));
        assert_eq!(job.runs[0].late_outcome.as_ref().and_then(|late| late.exit_code), Some(3));
        Ok(())
    });
}

#[test]
fn a_delayed_job_starts_at_its_time_also_after_a_restart_of_the_server() {
    on_site(|site| {
        let id = submit(site, &["--delay", "3s"], "true")?;
        let job = site.client().job(id)?;
        assert_eq!(job.status.0, Status::Scheduled, "{job:#?}");
        let (_, why) = lastword(site, &["job", "why", &id.to_string()])?;
        assert!(why.contains("that time has not come"), "{why}");
        site.server.kill()?;
        site.server.restart()?;
        let job = site.client().wait(id)?;
        assert_eq!(job.status.0, Status::Completed);
        assert!(job.started_at >= job.start_at, "{job:#?}");
        assert_eq!(submit_status(site, "2001-01-01T00:00Z")?, Status::Completed, "the past is now");
        Ok(())
    });
}

fn submit_status(site: &Site, at: &str) -> anyhow::Result<Status> {
    let id = submit(site, &["--at", at], "true")?;
    Ok(site.client().wait(id)?.status.0)
}

#[test]
fn a_queue_keeps_to_slots_of_its_own() {
    on_site(|site| {
        site.client().create_queue("narrow", &["host1"])?;
        assert_eq!(lastword(site, &["queue", "set", "narrow", "--slots", "1", "--priority", "3"])?.0, 0);
        let (_, text) = lastword(site, &["queue", "show", "narrow", "-o", "json"])?;
        let queue: Value = serde_json::from_str(&text)?;
        assert_eq!((&queue["slots"], &queue["priority"]), (&1.into(), &3.into()));
        let job = JobSubmit {
            queue: Some("narrow".into()),
            command: ["/bin/sleep", "1000"].map(str::to_owned).into(),
            ..JobSubmit::default()
        };
        let ids = site.client().submit_batch(&[job.clone(), job])?;
        site.client().wait_running(ids[0])?;
        let why = site.client().why(ids[1])?;
        assert!(why.contains("all 1 slots of queue \"narrow\" are taken"), "{why}");
        assert_eq!(lastword(site, &["queue", "set", "narrow", "--no-slots"])?.0, 0);
        site.client().wait_running(ids[1])?;
        Ok(())
    });
}

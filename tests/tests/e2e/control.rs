//! What can be done to a job while it runs.

use crate::outcomes::{shell, wait_for_line};
use api::{Job, JobSubmit, Span, Status};
use tests::{Dialling, Site, on_empty_site, on_site, wait_until};

/// Writes a line again and again, and so does its child in another session.
const BUSY: &str =
    "setsid sh -c 'while :; do echo child; sleep 0.01; done' & while :; do echo self; sleep 0.01; done";

#[test]
fn a_suspended_job_stands_still_with_its_children_and_goes_on_when_it_is_resumed() {
    on_site(stands_still_and_goes_on);
}

#[test]
fn without_a_control_group_the_whole_tree_is_stopped() {
    on_empty_site(|site| {
        let off = [("LASTWORD_CGROUP".to_owned(), "off".to_owned())];
        site.add_agent_with("host1", Dialling::In, &off)?;
        stands_still_and_goes_on(site)
    });
}

fn stands_still_and_goes_on(site: &mut Site) -> anyhow::Result<()> {
    let id = site.client().submit(&shell(BUSY))?;
    wait_for_line(site, id, "child")?;
    refused(site, id, "resume", "not-suspended")?;
    site.client().change(id, "suspend")?;
    wait_status(site, id, Status::Suspended)?;
    assert_eq!(site.client().job(id)?.suspend_requested_by, None, "it is obeyed");
    site.client().change(id, "suspend")?; // once more is no harm
    assert!(!writes(site, id)?, "it stands still");
    assert!(site.client().why(id)?.contains("suspended"), "{}", site.client().why(id)?);
    site.client().change(id, "resume")?;
    wait_status(site, id, Status::Running)?;
    wait_until("the job to write again", || writes(site, id))?;
    site.client().change(id, "suspend")?;
    wait_status(site, id, Status::Suspended)?;
    site.client().kill(id, Some(60_000))?;
    let job = site.client().wait(id)?;
    assert_eq!((job.status.0, job.signal), (Status::Killed, Some(15)), "it was woken to end: {job:#?}");
    refused(site, id, "suspend", "already-over")?;
    let steps: Vec<String> =
        site.client().proof(id)?.runs[0].steps.iter().map(|step| step.step.clone()).collect();
    assert_eq!(steps.iter().filter(|step| *step == "suspended").count(), 2, "{steps:?}");
    assert_eq!(steps.iter().filter(|step| *step == "resumed").count(), 1, "{steps:?}");
    Ok(())
}

#[test]
fn the_time_limit_does_not_count_while_a_job_is_suspended_even_if_its_job_processor_dies() {
    on_site(|site| {
        let timeout = Some(Span { ms: 1_500 });
        let id = site.client().submit(&JobSubmit { timeout, ..shell(BUSY) })?;
        wait_for_line(site, id, "self")?;
        site.client().change(id, "suspend")?;
        let run = wait_status(site, id, Status::Suspended)?.runs[0].run_id.clone();
        let job_processor = site.agent()?.job_processor(&run)?.expect("it has a job-processor");
        job_processor.kill()?;
        assert!(!writes(site, id)?);
        let longer = site.client().command(&["/bin/sleep", "1.8"])?;
        site.client().wait(longer)?;
        assert_eq!(site.client().job(id)?.status.0, Status::Suspended);
        site.client().change(id, "resume")?;
        wait_status(site, id, Status::Running)?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.timed_out), (Status::Killed, true), "{job:#?}");
        assert_ne!(job.runs[0].witness.as_deref(), Some("job-processor"));
        Ok(())
    });
}

#[test]
fn a_wish_to_suspend_outlives_the_agents_absence_and_the_servers_death() {
    on_site(|site| {
        let id = site.client().submit(&shell(BUSY))?;
        wait_for_line(site, id, "child")?;
        site.agent()?.stop()?;
        site.wait_away("host1")?;
        site.client().change(id, "suspend")?;
        site.server.kill()?;
        site.server.restart()?;
        assert!(site.client().job(id)?.suspend_requested_by.is_some());
        site.agent()?.start()?;
        wait_status(site, id, Status::Suspended)?;
        assert!(!writes(site, id)?);
        site.client().kill(id, Some(0))?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Killed);
        Ok(())
    });
}

/// Whether the job writes something while another one comes and goes.
fn writes(site: &Site, id: u64) -> anyhow::Result<bool> {
    let size = || anyhow::Ok(site.client().output(id, "stdout", 0)?.bytes.len());
    let before = size()?;
    let other = site.client().command(&["/bin/sleep", "0.1"])?;
    site.client().wait(other)?;
    Ok(size()? != before)
}

fn wait_status(site: &Site, id: u64, status: Status) -> anyhow::Result<Job> {
    wait_until(&format!("job {id} to be {status}"), || Ok(site.client().job(id)?.status.0 == status))?;
    site.client().job(id)
}

/// The order is refused for this reason.
fn refused(site: &Site, id: u64, verb: &str, kind: &str) -> anyhow::Result<()> {
    let answer = site.client().try_call("POST", &format!("/api/v1/jobs/{id}/{verb}"), None)?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    anyhow::ensure!(answer.status == 409 && body.contains(kind), "{verb}: {} {body}", answer.status);
    Ok(())
}

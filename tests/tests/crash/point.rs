//! One test per crash point of the design.

use crate::oracle::{
    SEVEN, another_network_processor, exactly_seven, job_processor, running_job, unknown_with_a_reason,
};
use anyhow::Result;
use api::Status;
use spool::Shelf;
use tests::{CrashPoint, Site, Way, keeps_exit_information, ledger_job, on_site, wait_until};

/// Runs a test on a site whose agent's processes can die at that point.
fn with_point(name: &str, test: impl FnOnce(&mut Site, &CrashPoint) -> Result<()>) {
    on_site(|site| {
        let point = CrashPoint::new(name, site.path());
        test(site, &point)
    });
}

/// Whatever dies there while a job is started or ends: the job is executed once and its outcome is exact.
fn exact_after(name: &str) {
    with_point(name, |site, point| {
        point.arm()?;
        let id =
            site.client().submit(&ledger_job(site.ledger().path(), Way { sleep_ms: 50, end: SEVEN })?)?;
        point.wait_fired()?;
        exactly_seven(site, id)?;
        wait_until("the run to be settled", || {
            Ok((site.agent()?.count(Shelf::Live), site.agent()?.count(Shelf::Settled)) == (0, 1))
        })
    });
}

macro_rules! exact_after {
    ($($promise:ident $point:literal)*) => {
        $(
            #[test]
            fn $promise() {
                exact_after($point);
            }
        )*
    };
}

exact_after! {
    accept_after_mkdir "accept.after-mkdir"
    accept_after_log_sync "accept.after-log-sync"
    accept_after_rename "accept.after-rename"
    accept_after_directory_sync "accept.after-directory-sync"
    ack_on_receipt "ack.on-receipt"
    ack_before_rename "ack.before-rename"
    start_after_lock "start.after-lock"
    start_after_fork "start.after-fork"
    start_after_handover "start.after-handover"
    start_after_gate "start.after-gate"
    end_before_wait "end.before-wait"
    end_before_ended "end.before-ended"
    end_before_wake "end.before-wake"
    end_after_ended "end.after-ended"
    end_after_reap "end.after-reap"
}

#[test]
fn start_after_started() {
    with_point("start.after-started", |site, point| {
        point.arm()?;
        let id = site.client().submit(&ledger_job(site.ledger().path(), Way { sleep_ms: 0, end: SEVEN })?)?;
        point.wait_fired()?;
        let job = site.client().wait(id)?;
        // STARTED is on disk and the gate never opened: the child itself said so.
        let executions = site.ledger().of(id)?;
        if executions.is_empty() {
            assert_eq!((job.status.0, job.exit_code, job.signal), (Status::Error, None, None), "{job:#?}");
            assert!(job.reason.as_ref().is_some_and(|reason| reason.contains("never")), "{job:#?}");
        } else {
            exactly_seven(site, id)?; // placed again
        }
        Ok(())
    });
}

#[test]
fn start_before_cannot_execute() {
    with_point("start.before-cannot-execute", |site, point| {
        point.arm()?;
        let id = site.client().command(&["/no/such/program"])?;
        point.wait_fired()?;
        let job = site.client().wait(id)?;
        // The child's own exit code is not the job's, which never had one.
        assert_eq!((job.status.0, job.exit_code, job.signal), (Status::Error, None, None), "{job:#?}");
        assert!(
            job.reason.as_ref().is_some_and(|reason| reason.contains("could not be executed")),
            "{job:#?}"
        );
        Ok(())
    });
}

#[test]
fn recover_on_adoption() {
    with_point("recover.on-adoption", |site, point| {
        let (id, run_id) = running_job(site)?;
        point.arm()?;
        job_processor(site, &run_id)?.kill()?;
        point.wait_fired()?;
        site.open_gate()?;
        exactly_seven(site, id)?;
        Ok(())
    });
}

#[test]
fn orphan_before_record() {
    with_point("orphan.before-record", |site, point| {
        let (id, run_id) = running_job(site)?;
        another_network_processor(site)?;
        point.arm()?;
        job_processor(site, &run_id)?.kill()?;
        site.open_gate()?;
        point.wait_fired()?;
        wait_until("the monitor to be dead", || Ok(site.agent()?.ended()?.is_some()))?;
        site.agent()?.start()?;
        match keeps_exit_information() {
            true => exactly_seven(site, id)?,
            false => unknown_with_a_reason(site, id)?,
        };
        Ok(())
    });
}

#[test]
fn orphan_after_record() {
    with_point("orphan.after-record", |site, point| {
        let (id, run_id) = running_job(site)?;
        another_network_processor(site)?;
        point.arm()?;
        job_processor(site, &run_id)?.kill()?;
        site.open_gate()?;
        point.wait_fired()?;
        wait_until("the monitor to be dead", || Ok(site.agent()?.ended()?.is_some()))?;
        site.agent()?.start()?;
        exactly_seven(site, id)?;
        Ok(())
    });
}

#[test]
fn monitor_amid_reexec() {
    with_point("monitor.amid-reexec", |site, point| {
        let (id, run_id) = running_job(site)?;
        another_network_processor(site)?;
        job_processor(site, &run_id)?.kill()?;
        wait_until("the monitor to watch the orphan", || {
            Ok(site.agent()?.trace().contains("its job is watched here"))
        })?;
        point.arm()?;
        let monitor = site.agent()?.monitor().ok_or(anyhow::anyhow!("no monitor"))?;
        monitor.signal(os::signal::Signal::USR2)?;
        point.wait_fired()?;
        wait_until("the monitor to be dead", || Ok(site.agent()?.ended()?.is_some()))?;
        site.agent()?.start()?;
        site.open_gate()?;
        match keeps_exit_information() {
            true => exactly_seven(site, id)?,
            false => unknown_with_a_reason(site, id)?,
        };
        Ok(())
    });
}

/// The server dies in the commit of a submission, and then in that of an outcome.
fn server_dies_at(name: &str) {
    on_site(|site| {
        let point = CrashPoint::new(name, site.path());
        let mut job = ledger_job(site.ledger().path(), Way { sleep_ms: 0, end: SEVEN })?;
        job.idempotency_key = Some("first".into());
        point.arm()?;
        let body = serde_json::to_value(&job)?;
        assert!(site.client().try_call("POST", "/api/v1/jobs", Some(&body)).is_err(), "nobody could answer");
        point.wait_fired()?;
        wait_until("the server to be dead", || Ok(site.server.ended()?.is_some()))?;
        site.server.restart()?;
        // Whoever got no answer asks again with the same key.
        let first = site.client().submit(&job)?;
        exactly_seven(site, first)?;
        assert_eq!(site.client().list()?.len(), 1);
        let (second, _) = running_job(site)?;
        point.arm()?;
        site.open_gate()?;
        point.wait_fired()?;
        wait_until("the server to be dead", || Ok(site.server.ended()?.is_some()))?;
        site.server.restart()?;
        exactly_seven(site, second)?;
        wait_until("both to be settled", || Ok(site.agent()?.count(Shelf::Settled) == 2))
    });
}

#[test]
fn commit_before() {
    server_dies_at("commit.before");
}

#[test]
fn commit_after() {
    server_dies_at("commit.after");
}

//! Processes that die or hang at any time, alone and together.

use crate::oracle::{exactly_seven, job_processor, kill_together, running_job, unknown_with_a_reason};
use anyhow::Context;
use api::{JobSubmit, Span, Status};
use os::signal::Signal;
use tests::{keeps_exit_information, on_site, wait_until};

#[test]
fn a_job_whose_job_processor_died_still_has_its_exact_outcome() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        job_processor(site, &run_id)?.kill()?;
        site.open_gate()?;
        let job = exactly_seven(site, id)?;
        assert!(is_a_deputy(job.runs[0].witness.as_deref()), "{job:#?}");
        Ok(())
    });
}

#[test]
fn a_job_whose_job_processor_died_can_still_be_killed() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        job_processor(site, &run_id)?.kill()?;
        site.client().kill(id, Some(60_000))?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.signal), (Status::Killed, Some(15)), "{job:#?}");
        assert_eq!(site.ledger().of(id)?[0].end, None, "it did not end by itself");
        Ok(())
    });
}

#[test]
fn a_job_whose_job_processor_died_is_still_held_to_its_time() {
    on_site(|site| {
        let id = site.client().submit(&JobSubmit { timeout: Some(Span { ms: 1_500 }), ..site.gated()? })?;
        let run_id = site.client().wait_running(id)?.runs[0].run_id.clone();
        job_processor(site, &run_id)?.kill()?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.timed_out, job.signal), (Status::Killed, true, Some(15)), "{job:#?}");
        Ok(())
    });
}

#[test]
fn an_orphan_that_ignores_the_soft_signal_is_killed_with_its_descendants() {
    on_site(|site| {
        let go = site.go();
        let id = site.client().script(&format!(
            "trap '' TERM; setsid sh -c 'trap \"\" TERM; : {0}; while :; do sleep 0.02; done' & echo $! > {0}.pid; mv {0}.pid {0}; while :; do sleep 0.02; done",
            go.display()
        ))?;
        let run_id = site.client().wait_running(id)?.runs[0].run_id.clone();
        wait_until("the grandchild", || Ok(go.exists()))?;
        let grandchild = std::fs::read_to_string(&go)?.trim().parse().ok().and_then(tests::Process::find);
        let grandchild = grandchild.context("there is no grandchild")?;
        job_processor(site, &run_id)?.kill()?;
        site.client().kill(id, Some(100))?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.signal), (Status::Killed, Some(9)), "{job:#?}");
        wait_until("the grandchild to be gone", || Ok(!grandchild.lives()))
    });
}

#[test]
fn monitor_and_job_processor_killed_together_lose_no_outcome() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        let monitor = site.agent()?.monitor().context("no monitor")?;
        kill_together(&[job_processor(site, &run_id)?, monitor])?;
        wait_until("the monitor to be dead", || Ok(site.agent()?.ended()?.is_some()))?;
        site.open_gate()?;
        wait_until("the job to end", || Ok(site.ledger().of(id)?[0].end.is_some()))?;
        site.agent()?.start()?;
        exactly_seven(site, id)?;
        Ok(())
    });
}

#[test]
fn network_processor_and_job_processor_killed_together_lose_no_outcome() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        let network_processor = site.agent()?.network_processor()?.context("no network-processor")?;
        kill_together(&[job_processor(site, &run_id)?, network_processor])?;
        site.open_gate()?;
        exactly_seven(site, id)?;
        Ok(())
    });
}

#[test]
fn a_job_that_outlives_all_three_processes_is_found_again_and_its_outcome_is_exact() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        let monitor = site.agent()?.monitor().context("no monitor")?;
        let network_processor = site.agent()?.network_processor()?.context("no network-processor")?;
        kill_together(&[job_processor(site, &run_id)?, network_processor, monitor])?;
        wait_until("the monitor to be dead", || Ok(site.agent()?.ended()?.is_some()))?;
        site.wait_away("host1")?;
        site.agent()?.start()?;
        site.wait_connected("host1")?;
        assert_eq!(site.client().job(id)?.status.0, Status::Running);
        wait_until("the job to be adopted", || Ok(site.agent()?.trace().contains("adopted")))?;
        site.open_gate()?;
        match keeps_exit_information() {
            true => exactly_seven(site, id)?,
            false => unknown_with_a_reason(site, id)?,
        };
        Ok(())
    });
}

#[test]
fn a_job_that_ends_while_all_three_processes_are_dead_is_unknown_with_a_reason() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        let monitor = site.agent()?.monitor().context("no monitor")?;
        let network_processor = site.agent()?.network_processor()?.context("no network-processor")?;
        let job = site.ledger().of(id)?.pop().and_then(|execution| tests::Process::find(execution.pid));
        let job = job.context("the job is gone")?;
        kill_together(&[job_processor(site, &run_id)?, network_processor, monitor])?;
        wait_until("the monitor to be dead", || Ok(site.agent()?.ended()?.is_some()))?;
        site.open_gate()?;
        wait_until("the job to be gone for good", || Ok(job.state().is_none()))?;
        site.agent()?.start()?;
        unknown_with_a_reason(site, id)?;
        Ok(())
    });
}

#[test]
fn nothing_is_invented_while_a_job_processor_is_stopped() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        let stopped = job_processor(site, &run_id)?;
        stopped.signal(Signal::STOP)?;
        site.open_gate()?;
        wait_until("the job to end", || Ok(site.ledger().of(id)?[0].end.is_some()))?;
        // A network-processor that starts now looks at everything anew.
        site.agent()?.kill_network_processor()?;
        site.wait_away("host1")?;
        site.wait_connected("host1")?;
        let other = site.client().command(&["/bin/true"])?;
        assert_eq!(site.client().wait(other)?.status.0, Status::Completed, "others do not suffer");
        let job = site.client().job(id)?;
        assert_eq!(job.status.0, Status::Running, "{job:#?}");
        stopped.signal(Signal::CONT)?;
        exactly_seven(site, id)?;
        Ok(())
    });
}

#[test]
fn a_kill_reaches_a_stopped_job() {
    on_site(|site| {
        let (id, _) = running_job(site)?;
        let execution = site.ledger().of(id)?.pop().context("no execution")?;
        tests::Process::find(execution.pid).context("the job is gone")?.signal(Signal::STOP)?;
        site.client().kill(id, Some(60_000))?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.signal), (Status::Killed, Some(15)), "{job:#?}");
        Ok(())
    });
}

#[test]
fn a_job_that_kills_its_own_job_processor_still_has_its_exact_outcome() {
    on_site(|site| {
        let id = site.client().script("kill -9 $PPID; exit 9")?;
        let job = site.client().wait(id)?;
        assert!(tests::End::Code(9).fits(&job), "{job:#?}");
        assert!(is_a_deputy(job.runs[0].witness.as_deref()), "{job:#?}");
        Ok(())
    });
}

#[test]
fn a_hundred_jobs_outlive_all_processes_of_the_agent_at_once() {
    on_site(|site| {
        let ids = site.client().submit_batch(&vec![site.gated()?; 100])?;
        for id in &ids {
            site.client().wait_running(*id)?;
        }
        let mut all = site.agent()?.job_processors()?;
        assert_eq!(all.len(), ids.len());
        all.push(site.agent()?.network_processor()?.context("no network-processor")?);
        all.push(site.agent()?.monitor().context("no monitor")?);
        kill_together(&all)?;
        wait_until("the monitor to be dead", || Ok(site.agent()?.ended()?.is_some()))?;
        site.wait_away("host1")?;
        site.agent()?.start()?;
        let adopted = |trace: &str| trace.lines().filter(|line| line.contains("adopted")).count();
        wait_until("all to be adopted", || Ok(adopted(&site.agent()?.trace()) == ids.len()))?;
        site.open_gate()?;
        for id in ids {
            match keeps_exit_information() {
                true => exactly_seven(site, id)?,
                false => unknown_with_a_reason(site, id)?,
            };
        }
        Ok(())
    });
}

/// The network-processor as the reaper, by a pidfd; or the monitor, if that was dead.
fn is_a_deputy(witness: Option<&str>) -> bool {
    matches!(witness, Some("monitor" | "pidfd"))
}

#[test]
fn a_nursery_that_dies_or_hangs_is_replaced_and_no_job_notices() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        let job_processor = job_processor(site, &run_id)?;
        let arguments = |process: &tests::Process| {
            let bytes = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        assert!(arguments(&job_processor).contains(&run_id), "it shows which run it is for");
        let nursery = |site: &mut tests::Site| {
            let link = site.agent()?.network_processor()?.context("no network-processor")?;
            let is_nursery = |process: &tests::Process| {
                process.program == "job-processor" && arguments(process).contains("/00000000-0000-")
            };
            anyhow::Ok(link.children().into_iter().find(is_nursery))
        };
        let completes = |site: &mut tests::Site| {
            let id = site.client().command(&["/bin/true"])?;
            assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
            anyhow::Ok(())
        };
        let first = nursery(site)?.context("no nursery")?;
        first.kill()?;
        completes(site)?; // started by itself
        completes(site)?; // by another nursery
        let second = nursery(site)?.context("no other nursery")?;
        assert_ne!(first, second);
        second.signal(Signal::STOP)?;
        completes(site)?;
        assert!(job_processor.lives());
        site.open_gate()?;
        let job = exactly_seven(site, id)?;
        assert_eq!(job.runs[0].witness.as_deref(), Some("job-processor"), "{job:#?}");
        Ok(())
    });
}

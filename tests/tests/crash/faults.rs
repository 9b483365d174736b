//! Writes that fail: every one of a job's life, once with ENOSPC and once with EIO; half a record and then the end; and what one process wrote and
//! another tells.

use crate::oracle::{SEVEN, exactly_seven};
use anyhow::{Context, Result};
use api::Status;
use spool::{Recorder, RunDir, Shelf, TakeError};
use tests::{CrashPoint, Deed, Dialling, Part, Site, Tally, Way, ledger_job, on_site, wait_for, wait_until};

/// Of every kind of write each is failed in turn, until there are no more.
const KINDS: [&str; 6] =
    ["run.create", "file.create", "log.write", "log.sync", "directory.sync", "run.rename"];
/// Far more than there are of a kind.
const PASSINGS_MAX: u32 = 20;
const RUNS_MS: u64 = 20;

fn submit(site: &Site) -> Result<u64> {
    site.client().submit(&ledger_job(site.ledger().path(), Way { sleep_ms: RUNS_MS, end: SEVEN })?)
}

#[test]
fn whichever_write_of_an_agent_fails_the_job_is_executed_once_and_its_outcome_is_exact() {
    let mut tally = Tally::new(Part::CrashPoints, "no write that fails loses or doubles a job");
    on_site(|site| {
        site.add_agent("host2", Dialling::In)?; // for what the other one has to refuse
        for kind in KINDS {
            for deed in [Deed::NoSpace, Deed::DiskError] {
                let failed = fail_each(site, kind, deed, &mut tally)?;
                anyhow::ensure!(failed > 0, "no write is of the kind {kind}");
            }
        }
        Ok(())
    });
    tally.kept();
}

fn fail_each(site: &mut Site, kind: &str, deed: Deed, tally: &mut Tally) -> Result<u64> {
    let point = CrashPoint::new(kind, site.path());
    for nth in 1..=PASSINGS_MAX {
        point.arm_with(deed, nth)?;
        let id = submit(site)?;
        exactly_seven(site, id).with_context(|| format!("{kind} {nth}: {deed:?}"))?;
        tally.count("jobs compared", 1);
        wait_until("the run to be settled", || {
            Ok(site.agents.iter().all(|agent| agent.count(Shelf::Live) == 0))
        })?;
        if point.disarm()? {
            return Ok(u64::from(nth) - 1);
        }
        point.wait_fired()?;
        tally.count("writes failed", 1);
    }
    anyhow::bail!("there is no end of {kind}")
}

#[test]
fn whichever_write_of_the_identity_fails_an_agent_comes_back_as_the_same() {
    let mut tally =
        Tally::new(Part::CrashPoints, "an agent whose identity cannot be written comes back as the same");
    on_site(|site| {
        let before = site.client().agent("host1")?;
        for kind in ["identity.write", "identity.sync", "identity.torn-write"] {
            for deed in [Deed::NoSpace, Deed::DiskError, Deed::Kill] {
                if (kind == "identity.torn-write") != (deed == Deed::Kill) {
                    continue;
                }
                // The first two are of the start itself.
                for nth in 1..=2 {
                    let point = CrashPoint::new(kind, site.path());
                    point.arm_with(deed, nth)?;
                    site.agent()?.kill_network_processor()?;
                    point.wait_fired().with_context(|| format!("{kind} {nth}: {deed:?}"))?;
                    tally.count("writes failed", 1);
                    let id = submit(site)?;
                    exactly_seven(site, id).with_context(|| format!("{kind} {nth}: {deed:?}"))?;
                    tally.count("jobs compared", 1);
                }
            }
        }
        let after = site.client().agent("host1")?;
        anyhow::ensure!((after.connected, &after.name) == (true, &before.name), "{before:#?} {after:#?}");
        Ok(())
    });
    tally.kept();
}

#[test]
fn a_commit_that_fails_is_tried_again_and_nobody_is_told_before() {
    let mut tally =
        Tally::new(Part::CrashPoints, "a commit that fails is tried again, and nobody is told before");
    on_site(|site| {
        for deed in [Deed::NoSpace, Deed::DiskError] {
            let failed = fail_each(site, "commit.write", deed, &mut tally)?;
            anyhow::ensure!(failed > 0, "nothing is committed");
        }
        Ok(())
    });
    tally.kept();
}

/// A job whose job-processor stands still amid the `nth` passing of that place; its number and run.
fn stopped_amid(site: &Site, point: &str, nth: u32) -> Result<(u64, RunDir, tests::Process)> {
    let point = CrashPoint::new(point, site.path());
    point.arm_with(Deed::Stop, nth)?;
    let id = submit(site)?;
    let process = point.wait_stopped()?;
    anyhow::ensure!(process.program == "job-processor", "{process:?}");
    let agent = site.agents.first().context("no agent")?;
    let run_id = agent.root().list(Shelf::Live)?.pop().context("no run")?;
    Ok((id, agent.root().run(Shelf::Live, run_id), process))
}

fn torn(nth: u32, slot: u32) {
    let mut tally =
        Tally::new(Part::CrashPoints, &format!("a record that is torn in slot {slot} is written anew"));
    on_site(|site| {
        let (id, dir, job_processor) = stopped_amid(site, "log.torn-write", nth)?;
        let contents = store::parse(&std::fs::read(dir.log())?)?;
        anyhow::ensure!(contents.torn_slots == [slot], "{contents:?}");
        job_processor.kill()?;
        exactly_seven(site, id)?;
        tally.count("crash points hit", 1);
        tally.count("jobs compared", 1);
        Ok(())
    });
    tally.kept();
}

#[test]
fn a_torn_started_is_no_start_and_the_job_is_executed_once() {
    torn(2, spool::SLOT_STARTED);
}

#[test]
fn a_torn_ended_is_no_outcome_and_the_exact_one_is_written_in_its_place() {
    torn(3, spool::SLOT_ENDED);
}

#[test]
fn what_a_job_processor_wrote_and_has_not_synced_is_told_only_when_it_is_synced() {
    let mut tally = Tally::new(Part::CrashPoints, "what another process wrote is synced before it is told");
    on_site(|site| {
        // Between the write of ENDED and its sync.
        let (id, dir, job_processor) = stopped_amid(site, "log.sync", 3)?;
        anyhow::ensure!(
            store::parse(&std::fs::read(dir.log())?)?.records.len() == 3,
            "ENDED is in the cache"
        );
        let failing = CrashPoint::new("told.sync", site.path());
        failing.arm_with(Deed::DiskErrors, 0)?;
        // The next one reads everything that there is.
        site.agent()?.kill_network_processor()?;
        failing.wait_fired()?;
        site.wait_connected("host1")?;
        let other = site.client().command(&["/bin/true"])?;
        wait_for("another job to be executed", || Ok(site.client().job(other)?.runs.first().cloned()))?;
        failing.wait_fired()?; // once more
        let status = site.client().job(id)?.status.0;
        anyhow::ensure!(!status.is_final(), "{status:?} was told of what may not be on the disk");
        anyhow::ensure!(failing.disarm()?, "it failed all the time");
        let job = {
            wait_until("the outcome, which is synced now", || {
                Ok(site.client().job(id)?.status.0.is_final())
            })?;
            job_processor.signal(os::signal::Signal::CONT)?;
            exactly_seven(site, id)?
        };
        anyhow::ensure!(job.runs[0].witness.as_deref() == Some("job-processor"), "{job:#?}");
        anyhow::ensure!(
            site.client().wait(other)?.status.0 == Status::Completed,
            "the other one does not suffer"
        );
        tally.count("jobs compared", 2);
        Ok(())
    });
    tally.kept();
}

#[test]
fn a_job_processor_that_finds_its_log_held_after_a_failed_write_keeps_its_outcome_until_it_is_written() {
    let mut tally = Tally::new(
        Part::CrashPoints,
        "an outcome that could not be written is kept while another holds the log",
    );
    on_site(|site| {
        let failing = CrashPoint::new("log.sync", site.path());
        failing.arm_with(Deed::DiskError, 3)?; // ENDED
        let id = submit(site)?;
        let pid = failing.wait_fired()?;
        let agent = site.agents.first().context("no agent")?;
        let run_id = agent.root().list(Shelf::Live)?.pop().context("no run")?;
        let dir = agent.root().run(Shelf::Live, run_id);
        let (held, ledger) = wait_for("the log to be free", || match Recorder::take(&dir) {
            Ok(taken) => Ok(Some(taken)),
            Err(TakeError::Held) => Ok(None),
            Err(e @ TakeError::Ledger(_)) => Err(e.into()),
        })?;
        anyhow::ensure!(ledger.ended.is_none(), "its sync failed, so it was wiped out");
        let said = || std::fs::read_to_string(agent.root().job_processors_trace_path()).unwrap_or_default();
        wait_until("the job-processor to try again", || Ok(said().contains("or another process has it")))?;
        anyhow::ensure!(tests::Process::find(pid).is_some(), "it waits");
        drop(held);
        let job = exactly_seven(site, id)?;
        anyhow::ensure!(job.runs[0].witness.as_deref() == Some("job-processor"), "{job:#?}");
        tally.count("jobs compared", 1);
        Ok(())
    });
    tally.kept();
}

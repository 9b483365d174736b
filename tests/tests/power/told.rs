//! One job alone, and power is lost as soon as the server knows something of it: what others sync cannot make up for a sync that is missing, as it does
//! under load.
//!
//! | told     | may be in the cache only, if nobody synced it          | whose sync                                                |
//! |----------|--------------------------------------------------------|-----------------------------------------------------------|
//! | ACCEPTED | the name of the run's directory in `runs/`              | `agent/network-processor/src/launch.rs`, before the start |
//! | nothing, but the job executes | STARTED                           | the job-processor's, before the start gate opens          |
//! | ENDED    | what a job-processor wrote, who stands before its sync  | `agent/network-processor/src/disk.rs`, before it is told  |

use anyhow::{Context, Result, ensure};
use api::{Job, Status};
use job::RunId;
use spool::Ledger;
use tests::{
    CrashPoint, Deed, Dialling, End, FileSystem, Part, Site, Tally, Volume, Way, ledger_job, on_empty_site,
    wait_for, wait_until,
};

const VOLUME_MIB: u64 = 256;
/// By chance a file system may write its journal just then.
const ROUNDS: u64 = 3;
const SEVEN: End = End::Code(7);

/// Loses power after each of both.
pub(crate) fn lose_power(kind: FileSystem) {
    let promise = format!("the agent's host loses power on {kind} the moment that something is told of");
    let mut tally = Tally::new(Part::PowerLoss, &promise);
    on_empty_site(|site| {
        let volume = match Volume::mount(kind, &site.path().join("volume"), VOLUME_MIB)? {
            Ok(volume) => volume,
            Err(why) => {
                eprintln!("not tried: {why}");
                tally.skipped(&why);
                return Ok(());
            }
        };
        let mut agent = site.prepare_agent("host1", Dialling::In)?;
        agent.set_data_root(&volume.path().join("agent"));
        site.add_prepared_agent(agent, Dialling::In, &boot(0))?;
        for round in 1..=ROUNDS {
            accepted(site, &volume, 3 * round).with_context(|| format!("ACCEPTED, round {round}"))?;
            executed(site, &volume, 3 * round + 1).with_context(|| format!("executed, round {round}"))?;
            ended(site, &volume, 3 * round + 2).with_context(|| format!("ENDED, round {round}"))?;
            tally.count("file systems shut down", 3);
            tally.count("acknowledged facts compared", 2);
        }
        site.agent()?.stop()?;
        drop(volume);
        tally.kept();
        Ok(())
    });
}

fn accepted(site: &mut Site, volume: &Volume, next_boot: u64) -> Result<()> {
    let id = site.client().submit(&site.gated()?)?;
    let told = site.client().wait_running(id)?;
    go_off(site, volume)?;
    let ledger = on_disk(site, &told)?;
    ensure!(ledger.started.is_some(), "STARTED was told and is not on the disk: {ledger:#?}");
    is_unknown(site, id, next_boot)
}

fn executed(site: &mut Site, volume: &Volume, next_boot: u64) -> Result<()> {
    let point = CrashPoint::new("start.after-gate", site.path());
    point.arm_with(Deed::Stop, 1)?; // so that nobody hears of it, who would sync the log too
    let id = site.client().submit(&site.gated()?)?;
    point.wait_stopped()?;
    wait_until("the job to execute", || Ok(!site.ledger().of(id)?.is_empty()))?;
    go_off(site, volume)?;
    is_unknown(site, id, next_boot)?;
    let executions = site.ledger().of(id)?;
    ensure!(executions.len() == 1, "executed again after its host lost power: {executions:?}");
    Ok(())
}

/// The host comes back, and tells that it was restarted while the job ran.
fn is_unknown(site: &mut Site, id: u64, next_boot: u64) -> Result<()> {
    site.agent()?.start_with(&boot(next_boot))?;
    let job = wait_for("it to be over, or executed again", || {
        let again = site.ledger().of(id)?.len() > 1;
        let job = site.client().job(id)?;
        Ok((again || job.status.0.is_final()).then_some(job))
    })?;
    let reason = job.reason.clone().unwrap_or_default();
    ensure!(
        job.status.0 == Status::Unknown && reason.contains("host restarted"),
        "{:?} {job:#?}",
        site.ledger().of(id)?
    );
    Ok(())
}

fn ended(site: &mut Site, volume: &Volume, next_boot: u64) -> Result<()> {
    let point = CrashPoint::new("log.sync", site.path());
    point.arm_with(Deed::Stop, 3)?; // after those of the new log and of STARTED
    let id = site.client().submit(&ledger_job(site.ledger().path(), Way { sleep_ms: 0, end: SEVEN })?)?;
    let stopped = point.wait_stopped()?;
    ensure!(stopped.program == "job-processor", "{stopped:?}");
    let told = site.client().wait(id)?;
    ensure!(SEVEN.fits(&told), "{told:#?}");
    go_off(site, volume)?;
    let ledger = on_disk(site, &told)?;
    ensure!(ledger.ended.is_some(), "its outcome was told and is not on the disk: {ledger:#?}");
    site.agent()?.start_with(&boot(next_boot))?;
    site.wait_connected("host1")?;
    ensure!(SEVEN.fits(&site.client().job(id)?), "the outcome changed");
    wait_until("the run to be settled", || Ok(site.agent()?.count(spool::Shelf::Live) == 0))
}

fn go_off(site: &mut Site, volume: &Volume) -> Result<()> {
    Volume::lose_power(&[volume])?;
    site.agent()?.kill_monitor()?;
    volume.recover()
}

/// What the agent's disk has of the job's run.
fn on_disk(site: &mut Site, job: &Job) -> Result<Ledger> {
    let run_id: RunId = job.runs.last().context("no run")?.run_id.parse()?;
    let found = site.agent()?.root().find(run_id)?;
    let (_, dir) = found.with_context(|| format!("{run_id} was told of and is not on the disk: {job:#?}"))?;
    Ledger::read(&dir).with_context(|| run_id.to_string())
}

fn boot(number: u64) -> [(String, String); 1] {
    [("LASTWORD_TEST_BOOT_ID".to_owned(), format!("{:032x}", (1_u128 << 64) + u128::from(number)))]
}

//! The disk of the agent.

use crate::round::{VOLUME_MIB, await_ends, await_event, await_moment, last_event, rounds};
use anyhow::{Context, Result, ensure};
use spool::Shelf;
use tests::{
    Dialling, End, FileSystem, Load, Part, Random, Site, Status, Tally, Volume, on_empty_site, seed,
    wait_for, wait_until,
};

/// So much room may be left: below what lets the agent give up its ballast.
const LEFT_BYTES_MAX: u64 = 2 << 20;
/// Jobs that end when nothing is left.
const JOBS: usize = 5;

/// Fills it again and again while jobs come and go.
pub(crate) fn fill(kind: FileSystem) {
    let promise = format!("an agent whose {kind} is full keeps every outcome and refuses new runs");
    let mut tally = Tally::new(Part::FullDisks, &promise);
    tally.seed(seed());
    on_empty_site(|site| {
        let Some(volume) = on_volume(site, kind, &mut tally)? else { return Ok(()) };
        let mut random = Random::from_seed();
        let load = Load::begin(site, Random::from_seed())?;
        for round in 1..=rounds() {
            let done = one_round(site, &volume, &load, &mut random);
            done.with_context(|| format!("round {round}"))?;
            tally.count("disks filled", 1);
            tally.count("runs refused", 1);
        }
        load.finish(site, &mut tally)?;
        ensure!(site.agent()?.count(Shelf::Quarantined) == 0, "runs are in quarantine");
        site.agent()?.stop()?;
        drop(volume);
        tally.kept();
        Ok(())
    });
}

/// Fills it, and what the ballast gave too, before jobs end.
pub(crate) fn leave_nothing(kind: FileSystem) {
    let promise = format!("an agent whose {kind} has not one block left tells how its jobs ended");
    let mut tally = Tally::new(Part::FullDisks, &promise);
    on_empty_site(|site| {
        let Some(volume) = on_volume(site, kind, &mut tally)? else { return Ok(()) };
        let reserve = site.agent()?.root().path().join("reserve");
        wait_until("the agent's ballast", || Ok(reserve.exists()))?;
        let ids = site.client().submit_batch(&vec![site.gated()?; JOBS])?;
        for id in &ids {
            site.client().wait_running(*id)?;
        }
        volume.fill()?;
        wait_until("the agent to give up its ballast", || Ok(!reserve.exists()))?;
        wait_until("the agent to refuse", || Ok(site.client().agent("host1")?.refusing.is_some()))?;
        let ballast = volume.fill()?;
        site.open_gate()?;
        for id in ids {
            let job = site.client().wait(id).context("while nothing was left")?;
            ensure!(End::Code(7).fits(&job), "{job:#?}");
            tally.count("jobs compared", 1);
        }
        tally.count("disks filled", 1);
        let next = site.client().submit(&site.gated()?)?;
        std::fs::remove_file(ballast)?;
        ensure!(End::Code(7).fits(&site.client().wait(next)?), "a job when there is room again");
        ensure!(site.agent()?.count(Shelf::Quarantined) == 0, "runs are in quarantine");
        site.agent()?.stop()?;
        drop(volume);
        tally.kept();
        Ok(())
    });
}

/// An agent whose data root is on a file system of its own; `None` if this machine does not allow one.
fn on_volume(site: &mut Site, kind: FileSystem, tally: &mut Tally) -> Result<Option<Volume>> {
    let volume = match Volume::mount(kind, &site.path().join("volume"), VOLUME_MIB)? {
        Ok(volume) => volume,
        Err(why) => {
            eprintln!("not tried: {why}");
            tally.skipped(&why);
            return Ok(None);
        }
    };
    let mut agent = site.prepare_agent("host1", Dialling::In)?;
    agent.set_data_root(&volume.path().join("agent"));
    site.add_prepared_agent(agent, Dialling::In, &[])?;
    Ok(Some(volume))
}

fn one_round(site: &mut Site, volume: &Volume, load: &Load, random: &mut Random) -> Result<()> {
    let takes = |site: &Site| anyhow::Ok(site.client().agent("host1")?.refusing.is_none());
    let reserve = site.agent()?.root().path().join("reserve");
    wait_until("the agent's ballast", || Ok(reserve.exists() && takes(site)?))?;
    await_moment(load, random)?;
    let before = last_event(site)?;
    let running = load.seen(|status| status == Status::Running);
    let ballast = volume.fill_but(random.below(LEFT_BYTES_MAX))?;
    wait_until("the agent to refuse", || {
        Ok(site.client().agent("host1")?.refusing.is_some_and(|why| why.contains("disk full")))
    })?;
    await_event(site, "agent.refusing", "disk full", before)?;
    wait_for("a job that waits for room", || {
        for id in load.seen(|status| status == Status::Queued).into_keys() {
            if site.client().why(id)?.contains("disk full") {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })?;
    await_ends(load, running.into_keys()).context("while the disk was full")?;
    load.compare()?;
    let refused = last_event(site)?;
    std::fs::remove_file(ballast)?;
    await_event(site, "agent.taking", "takes runs again", refused)?;
    wait_until("the agent to take runs again", || takes(site))
}

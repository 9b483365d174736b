//! The disk of the agent.

use crate::round::{VOLUME_MIB, await_ends, await_event, await_moment, last_event, rounds};
use anyhow::{Context, Result, ensure};
use spool::Shelf;
use tests::{
    Dialling, FileSystem, Load, Part, Random, Site, Status, Tally, Volume, on_empty_site, seed, wait_for,
    wait_until,
};

/// So much room may be left: below what lets the agent give up its ballast.
const LEFT_BYTES_MAX: u64 = 2 << 20;

/// Fills it again and again while jobs come and go.
pub(crate) fn fill(kind: FileSystem) {
    let promise = format!("an agent whose {kind} is full keeps every outcome and refuses new runs");
    let mut tally = Tally::new(Part::FullDisks, &promise);
    tally.seed(seed());
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
        site.add_prepared_agent(agent, Dialling::In, &[])?;
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

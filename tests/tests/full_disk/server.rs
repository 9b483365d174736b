//! The disk of the server.

use crate::round::{VOLUME_MIB, await_ends, await_event, await_moment, last_event, rounds};
use anyhow::{Context, Result, ensure};
use std::cell::RefCell;
use tests::{
    Dialling, End, FileSystem, Load, Part, Random, STORE_ALL, Site, Status, Tally, Volume, on_prepared_site,
    seed, wait_until,
};

/// So much room may be left: below that no new jobs are taken.
const LEFT_BYTES_MAX: u64 = 8 << 20;
/// Jobs that end when nothing is left.
const JOBS: usize = 20;

/// Fills it again and again while jobs come and go.
pub(crate) fn fill(kind: FileSystem) {
    let promise = format!("a server whose {kind} is full loses nothing and takes no new jobs");
    let mut tally = Tally::new(Part::FullDisks, &promise);
    tally.seed(seed());
    on_volume(kind, &mut tally, |site, volume, tally| {
        site.server.stop()?;
        site.server.restart_with(&STORE_ALL.map(|(key, value)| (key.to_owned(), value.to_owned())))?;
        site.add_agent("host1", Dialling::In)?;
        let mut random = Random::from_seed();
        let load = Load::begin(site, Random::from_seed())?;
        for round in 1..=rounds() {
            let before = load.refusals();
            let done = one_round(site, volume, &load, &mut random);
            done.with_context(|| format!("round {round}"))?;
            tally.count("disks filled", 1);
            tally.count("runs refused", load.refusals() - before);
        }
        load.finish(site, tally)
    });
}

/// Fills it before jobs end: what is told of them has the room of the ballast.
pub(crate) fn leave_nothing(kind: FileSystem) {
    let promise = format!("a server whose {kind} has not one block left records how jobs ended");
    let mut tally = Tally::new(Part::FullDisks, &promise);
    on_volume(kind, &mut tally, |site, volume, tally| {
        site.add_agent("host1", Dialling::In)?;
        let laid = volume.path().join("disk.ballast");
        wait_until("the server's ballast", || Ok(laid.exists()))?;
        let ids = site.client().submit_batch(&vec![site.gated()?; JOBS])?;
        for id in &ids {
            site.client().wait_running(*id)?;
        }
        let ballast = volume.fill()?;
        site.open_gate()?;
        for id in ids {
            let job = site.client().wait(id).context("while nothing was left")?;
            ensure!(End::Code(7).fits(&job), "{job:#?}");
            tally.count("jobs compared", 1);
        }
        tally.count("disks filled", 1);
        std::fs::remove_file(ballast)?;
        wait_until("the server's ballast again", || Ok(laid.exists()))
    });
}

/// Runs a test on a site whose server's data root is on a file system of its own, unless this machine does not allow one.
fn on_volume(
    kind: FileSystem,
    tally: &mut Tally,
    test: impl FnOnce(&mut Site, &Volume, &mut Tally) -> Result<()>,
) {
    let mounted = RefCell::new(Err(String::new()));
    on_prepared_site(
        |path| {
            *mounted.borrow_mut() = Volume::mount(kind, &path.join("server"), VOLUME_MIB)?;
            Ok(())
        },
        |site| {
            let volume = match mounted.replace(Err(String::new())) {
                Ok(volume) => volume,
                Err(why) => {
                    eprintln!("not tried: {why}");
                    tally.skipped(&why);
                    return Ok(());
                }
            };
            test(site, &volume, tally)?;
            site.agent()?.stop()?;
            site.server.stop()?;
            drop(volume);
            tally.kept();
            Ok(())
        },
    );
}

fn one_round(site: &mut Site, volume: &Volume, load: &Load, random: &mut Random) -> Result<()> {
    let laid = volume.path().join("disk.ballast");
    wait_until("the server's ballast", || Ok(laid.exists()))?;
    await_moment(load, random)?;
    let (before, refusals) = (last_event(site)?, load.refusals());
    let running = load.seen(|status| status == Status::Running);
    let ballast = volume.fill_but(random.below(LEFT_BYTES_MAX))?;
    wait_until("the server to say why it is not ready", || {
        let answer = site.client().try_call("GET", "/readyz", None)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Ok(answer.status == 503 && text.contains("no new jobs are taken"))
    })?;
    wait_until("a job to be refused", || Ok(load.refusals() > refusals))?;
    let ledger = site.ledger();
    wait_until("the running jobs to end", || {
        let all = ledger.read()?;
        let ended = |id| all.get(id).is_some_and(|own| own.iter().any(|execution| execution.end.is_some()));
        Ok(running.keys().all(ended))
    })?;
    await_ends(load, running.into_keys()).context("while the disk was full")?;
    std::fs::remove_file(ballast)?;
    wait_until("the server to be ready", || {
        Ok(site.client().try_call("GET", "/readyz", None).is_ok_and(|answer| answer.status == 200))
    })?;
    ensure!(site.server.ended()?.is_none(), "the server ended by itself");
    await_event(site, "disk.low", "no new jobs are taken", before)?;
    await_event(site, "disk.enough", "room on the disk again", before)?;
    load.compare()
}

//! A network-processor that dies while it recovers, and while it removes what is settled.

use crate::oracle::{SEVEN, exactly_seven, job_processor};
use anyhow::{Context, Result};
use os::signal::Signal;
use spool::Shelf;
use std::path::Path;
use tests::{
    Agent, CrashPoint, Deed, Dialling, Part, Site, Tally, Way, gated_job, ledger_job, on_empty_site, on_site,
    wait_for, wait_until,
};

/// Runs of each kind that a scan finds.
const OF_EACH: usize = 2;

/// What a network-processor finds: runs with a job-processor, without one, over and not acknowledged (the server stands still), accepted and not
/// executed, and half prepared. It is dead when this returns, as is the next one. The jobs.
fn several_kinds(site: &mut Site, gate: &Path, half: &Path) -> Result<Vec<u64>> {
    let own_gate = site.path().join("gate-of-those-that-are-over");
    let held = |gate: &Path| gated_job(site.ledger().path(), gate, SEVEN);
    let mut jobs = site
        .client()
        .submit_batch(&[vec![held(gate)?; 2 * OF_EACH], vec![held(&own_gate)?; OF_EACH]].concat())?;
    for id in &jobs {
        site.client().wait_running(*id)?;
        wait_for("it to begin", || Ok(site.ledger().of(*id)?.pop()))?;
    }
    std::fs::create_dir_all(half.join("work"))?;
    let (accepted, sweep) = (
        CrashPoint::new("accept.after-directory-sync", site.path()),
        CrashPoint::new("recover.amid-sweep", site.path()),
    );
    accepted.arm()?;
    sweep.arm()?;
    jobs.push(site.client().submit(&ledger_job(site.ledger().path(), Way { sleep_ms: 0, end: SEVEN })?)?);
    accepted.wait_fired()?;
    site.server.process().context("no server")?.signal(Signal::STOP)?;
    for id in jobs.iter().take(OF_EACH) {
        let run_id = site.ledger().of(*id)?.pop().context("it does not run")?.run_id;
        job_processor(site, &run_id)?.kill()?;
    }
    std::fs::write(own_gate, "")?;
    for id in jobs.iter().skip(2 * OF_EACH).take(OF_EACH) {
        wait_until("it to end", || Ok(site.ledger().of(*id)?[0].end.is_some()))?;
    }
    sweep.wait_fired()?;
    Ok(jobs)
}

#[test]
fn a_network_processor_that_dies_again_and_again_amid_its_recovery_loses_nothing() {
    let mut tally = Tally::new(Part::CrashPoints, "deaths amid recovery lose nothing");
    on_site(|site| {
        let gate = site.path().join("gate-of-recovery");
        let half = site.agent()?.root().shelf(Shelf::Live).join(".new-half");
        let jobs = several_kinds(site, &gate, &half)?;
        tally.count("crash points hit", 2);
        for (name, nth) in [
            ("recover.amid-scan", 1),
            ("recover.amid-scan", 2),
            ("recover.amid-scan", 4),
            ("recover.on-adoption", 1),
            ("recover.on-adoption", 2),
            ("identity.torn-write", 2),
        ] {
            let point = CrashPoint::new(name, site.path());
            point.arm_with(Deed::Kill, nth)?;
            site.agent()?.kill_network_processor()?;
            point.wait_fired().with_context(|| format!("{name} {nth}"))?;
            tally.count("crash points hit", 1);
        }
        site.server.process().context("no server")?.signal(Signal::CONT)?;
        site.wait_connected("host1")?;
        std::fs::write(&gate, "")?;
        for id in &jobs {
            exactly_seven(site, *id)?;
            tally.count("jobs compared", 1);
        }
        anyhow::ensure!(!half.exists(), "what was never accepted is gone");
        wait_until("all to be settled", || Ok(site.agent()?.count(Shelf::Settled) == jobs.len()))
    });
    tally.kept();
}

#[test]
fn a_network_processor_that_dies_amid_the_removal_of_settled_runs_ends_it_later_and_nothing_is_executed_again()
 {
    let mut tally =
        Tally::new(Part::CrashPoints, "deaths amid the removal of settled runs change no outcome");
    on_empty_site(|site| {
        let mut agent: Agent = site.prepare_agent("host1", Dialling::In)?;
        agent.configure("settled_retention = \"1ms\"\n");
        site.add_prepared_agent(agent, Dialling::In, &[])?;
        let point = CrashPoint::new("retention.amid-removal", site.path());
        for nth in [1, 2] {
            point.arm_with(Deed::Kill, nth)?;
            let job = ledger_job(site.ledger().path(), Way { sleep_ms: 0, end: SEVEN })?;
            let ids = site.client().submit_batch(&vec![job; 3])?;
            for id in &ids {
                exactly_seven(site, *id)?;
            }
            wait_until("one to die amid a removal", || {
                sweeps(site)?;
                Ok(point.fired()?.is_some())
            })?;
            point.wait_fired()?;
            tally.count("crash points hit", 1);
            site.wait_connected("host1")?;
            wait_until("all to be removed", || {
                sweeps(site)?;
                Ok(site.agent()?.count(Shelf::Settled) == 0)
            })?;
            for id in &ids {
                exactly_seven(site, *id)?;
                tally.count("jobs compared", 1);
            }
        }
        Ok(())
    });
    tally.kept();
}

/// A round of housekeeping follows at once.
fn sweeps(site: &mut Site) -> Result<()> {
    site.agent()?.monitor().context("no monitor")?.signal(Signal::HUP)?;
    Ok(())
}

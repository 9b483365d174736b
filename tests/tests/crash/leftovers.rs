//! What earlier processes can have left in the data root, laid out by hand, and what an agent that finds it says.

use crate::commander::Commander;
use crate::oracle::{SEVEN, job_processor, kill_together, running_job};
use anyhow::{Context, Result};
use api::Status;
use job::{Outcome, RunId, Usage, Witness};
use protocol::RunSpec;
use protocol::message::{FactBody, RefusalKind, Started};
use spool::{DataRoot, Recorder, RunDir, Shelf, prepare};
use std::os::unix::fs::FileExt;
use tests::{Agent, Site, Way, ledger_job, on_empty_site, on_site, wait_until};

/// An agent that is not started, the commander that it is going to dial, and its data root.
fn prepared(site: &Site) -> Result<(Commander, Agent, DataRoot)> {
    let (commander, agent) = Commander::start(|address| Agent::prepare(site.path(), "host1", Some(address)))?;
    let root = DataRoot::create(agent.root().path(), false, false)?;
    Ok((commander, agent, root))
}

/// A run as the network-processor leaves it when it has accepted it.
fn accepted(site: &Site, root: &DataRoot, number: u64) -> Result<RunDir> {
    let command = ledger_job(site.ledger().path(), Way { sleep_ms: 0, end: SEVEN })?.command;
    let command = command.into_iter().map(String::into_bytes).collect();
    let spec = RunSpec { job_id: Some(number), attempt: Some(1), command, ..RunSpec::default() };
    let wall_ms = os::clock::wall_ms();
    let run_id = RunId::new(u64::try_from(wall_ms)?, u128::from(number));
    prepare(root, run_id, &spec, os::procfs::boot_id()?, wall_ms, None)?;
    Ok(root.run(Shelf::Live, run_id))
}

fn started(boot_id: [u8; 16]) -> FactBody {
    FactBody::Started(Started {
        pid: Some(std::process::id()),
        start_ticks: Some(1), // nobody's
        pidfd_inode: Some(0),
        boot_id: Some(boot_id.to_vec()),
        cgroup: None,
        boottime_ms: Some(1),
        job_processor_pid: Some(1),
    })
}

fn record(dir: &RunDir, body: FactBody) -> Result<()> {
    Recorder::take(dir)?.0.record(body)?;
    Ok(())
}

fn is_exit_of_seven(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Ended { end: job::End::Exited { code: 7 }, .. })
}

#[test]
fn an_accepted_run_that_never_executed_is_executed_once() {
    on_empty_site(|site| {
        let (mut commander, mut agent, root) = prepared(site)?;
        let dir = accepted(site, &root, 1)?;
        agent.start()?;
        assert_eq!(commander.greet(1, 1)?, [dir.run_id()]);
        let (seq, outcome) = commander.outcome(dir.run_id())?;
        assert!(is_exit_of_seven(&outcome), "{outcome:?}");
        assert_eq!(site.ledger().of(1)?.len(), 1);
        commander.acknowledge(dir.run_id(), seq)?;
        wait_until("the run to be settled", || Ok(agent.count(Shelf::Settled) == 1))
    });
}

#[test]
fn a_job_that_ran_in_an_earlier_boot_is_unknown_because_the_host_restarted() {
    on_empty_site(|site| {
        let (mut commander, mut agent, root) = prepared(site)?;
        let dir = accepted(site, &root, 1)?;
        record(&dir, started([9; 16]))?;
        agent.start()?;
        commander.greet(1, 1)?;
        let (_, outcome) = commander.outcome(dir.run_id())?;
        assert!(
            matches!(&outcome, Outcome::Unknown { reason } if reason.contains("restarted")),
            "{outcome:?}"
        );
        assert!(site.ledger().of(1)?.is_empty(), "and it is not executed again");
        Ok(())
    });
}

#[test]
fn a_job_whose_process_id_belongs_to_another_by_now_is_unknown_and_the_other_is_left_alone() {
    on_empty_site(|site| {
        let (mut commander, mut agent, root) = prepared(site)?;
        let dir = accepted(site, &root, 1)?;
        record(&dir, started(os::procfs::boot_id()?))?; // with the process id of this test
        agent.start()?;
        commander.greet(1, 1)?;
        commander.order_kill(1, dir.run_id())?;
        let (_, outcome) = commander.outcome(dir.run_id())?;
        assert!(matches!(&outcome, Outcome::Unknown { .. }), "{outcome:?}");
        Ok(())
    });
}

#[test]
fn an_outcome_that_was_never_sent_is_sent() {
    on_empty_site(|site| {
        let (mut commander, mut agent, root) = prepared(site)?;
        let dir = accepted(site, &root, 1)?;
        record(&dir, started([9; 16]))?;
        let end = job::End::Signaled { signal: 9, core: false };
        let outcome = Outcome::Ended {
            end,
            cause: None,
            witness: Witness::Monitor,
            usage: Some(Usage { cpu_ms: Some(5), ..Usage::default() }),
        };
        Recorder::take(&dir)?.0.record_outcome(&outcome)?;
        agent.start()?;
        commander.greet(1, 1)?;
        assert_eq!(commander.outcome(dir.run_id())?.1, outcome);
        Ok(())
    });
}

#[test]
fn a_half_prepared_run_is_removed_and_nobody_hears_of_it() {
    on_empty_site(|site| {
        let (mut commander, mut agent, root) = prepared(site)?;
        let dir = accepted(site, &root, 1)?;
        let half = root.shelf(Shelf::Live).join(format!(".new-{}", dir.run_id()));
        std::fs::rename(dir.path(), &half)?;
        agent.start()?;
        assert!(commander.greet(1, 1)?.is_empty());
        wait_until("it to be gone", || Ok(!half.exists()))?;
        assert!(site.ledger().read()?.is_empty());
        Ok(())
    });
}

#[test]
fn a_damaged_log_is_set_aside_and_told_and_others_are_not_harmed() {
    on_empty_site(|site| {
        let (mut commander, mut agent, root) = prepared(site)?;
        let (damaged, whole) = (accepted(site, &root, 1)?, accepted(site, &root, 2)?);
        record(&damaged, started([9; 16]))?;
        damage(&damaged)?;
        agent.start()?;
        commander.greet(1, 1)?;
        let outcome = commander.outcome(whole.run_id())?.1;
        assert!(is_exit_of_seven(&outcome), "{outcome:?}");
        wait_until("it to be set aside", || Ok(agent.count(Shelf::Quarantined) == 1))?;
        assert!(agent.trace().contains("quarantine"));
        assert!(site.ledger().of(1)?.is_empty());
        // A server that asks is told so, after a restart too.
        agent.vanish()?;
        agent.start()?;
        commander.greet(1, 1)?;
        let spec = RunSpec { job_id: Some(1), command: vec![b"/bin/true".to_vec()], ..RunSpec::default() };
        commander.order(1, damaged.run_id(), &spec)?;
        assert_eq!(commander.refusal(damaged.run_id())?, RefusalKind::Damaged);
        Ok(())
    });
}

#[test]
fn a_running_job_whose_log_is_damaged_is_unknown_with_that_reason() {
    on_site(|site| {
        let (id, run_id) = running_job(site)?;
        let monitor = site.agent()?.monitor().context("no monitor")?;
        let network_processor = site.agent()?.network_processor()?.context("no network-processor")?;
        kill_together(&[job_processor(site, &run_id)?, network_processor, monitor])?;
        wait_until("the monitor to be dead", || Ok(site.agent()?.ended()?.is_some()))?;
        damage(&site.agent()?.root().run(Shelf::Live, run_id.parse()?))?;
        site.agent()?.start()?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.exit_code, job.signal), (Status::Unknown, None, None), "{job:#?}");
        assert!(job.reason.as_ref().is_some_and(|reason| reason.contains("damaged")), "{job:#?}");
        assert_eq!(site.ledger().of(id)?.len(), 1, "and it is not executed again");
        Ok(())
    });
}

fn damage(dir: &RunDir) -> Result<()> {
    let log = std::fs::File::options().read(true).write(true).open(dir.log())?;
    let mut head = [0u8; 64];
    log.read_exact_at(&mut head, 0)?;
    head.iter_mut().for_each(|byte| *byte ^= 0x55);
    Ok(log.write_all_at(&head, 0)?)
}

//! Peers that talk nonsense, or say the same twice.

use crate::commander::Commander;
use crate::oracle::{SEVEN, exactly_seven};
use anyhow::Result;
use job::{Never, Outcome, RunId, Witness};
use protocol::RunSpec;
use protocol::message::RefusalKind;
use spool::Shelf;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use tests::{Agent, Dialling, Execution, Random, Site, Way, ledger_job, on_empty_site, on_site, wait_until};

#[test]
fn garbage_on_every_port_harms_nobody() {
    on_site(|site| {
        site.add_agent("host2", Dialling::Out)?;
        let mut random = Random::from_seed();
        let listening = site.agents[1].listen_address().map(str::to_owned);
        let ports = [site.server.agents_address(), site.server.http_address()].map(str::to_owned);
        let mut open = Vec::new();
        for address in ports.into_iter().chain(listening) {
            for round in 0..20 {
                open.push(garbage(&address, round, &mut random)?);
            }
        }
        let ids = site.client().submit_batch(&vec![site.gated()?; 10])?;
        site.open_gate()?;
        for id in ids {
            exactly_seven(site, id)?;
        }
        for stream in open {
            drop(stream);
        }
        assert!(site.server.ended()?.is_none(), "the server lives");
        let agent = site.client().agent("host2")?;
        assert!(agent.connected);
        Ok(())
    });
}

/// A connection over which something senseless went. It stays open.
fn garbage(address: &str, round: u64, random: &mut Random) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    let length = [0, 1, 5, 100, 4_000, 100_000][usize::try_from(round % 6)?];
    let mut bytes: Vec<u8> = (0..length).map(|_| random.word() as u8).collect();
    match round % 3 {
        0 => {}
        // The head of a TLS record that promises much, and of a request that never ends.
        1 => bytes.splice(0..bytes.len().min(5), [22, 3, 3, 0x40, 0]).for_each(drop),
        _ => bytes.splice(0..bytes.len().min(16), *b"POST / HTTP/1.1\r").for_each(drop),
    }
    // The other side may close at once: that is its right.
    let _ = stream.write_all(&bytes);
    Ok(stream)
}

#[test]
fn a_peer_that_says_nothing_is_shown_the_door() {
    on_site(|site| {
        let mut silent = TcpStream::connect(site.server.agents_address())?;
        silent.set_read_timeout(Some(Duration::from_millis(50)))?;
        wait_until("the server to hang up", || Ok(matches!(silent.read(&mut [0u8; 16]), Ok(0))))?;
        wait_until("a trace line", || Ok(site.server.trace().contains("refused")))
    });
}

/// An agent that is commanded by the test instead of the site's server.
fn commanded(site: &Site) -> Result<(Commander, Agent)> {
    let (commander, mut agent) =
        Commander::start(|address| Agent::prepare(site.path(), "host1", Some(address)))?;
    agent.start()?;
    Ok((commander, agent))
}

fn spec(site: &Site, job_id: u64) -> Result<RunSpec> {
    let command = ledger_job(site.ledger().path(), Way { sleep_ms: 100, end: SEVEN })?.command;
    let command = command.into_iter().map(String::into_bytes).collect();
    Ok(RunSpec { job_id: Some(job_id), attempt: Some(1), command, ..RunSpec::default() })
}

fn new_run(n: u128) -> RunId {
    RunId::new(u64::try_from(os::clock::wall_ms()).unwrap_or(0), n)
}

fn is_seven((_, outcome): &(u64, Outcome)) -> bool {
    let end = job::End::Exited { code: 7 };
    matches!(outcome, Outcome::Ended { end: e, witness: Witness::JobProcessor, .. } if *e == end)
}

#[test]
fn a_start_may_be_repeated_for_ever_and_the_job_is_executed_once() {
    on_empty_site(|site| {
        let (mut commander, agent) = commanded(site)?;
        let (run, spec) = (new_run(1), spec(site, 1)?);
        assert!(commander.greet(1, 1)?.is_empty());
        for _ in 0..50 {
            commander.order(1, run, &spec)?;
        }
        let first = commander.outcome(run)?;
        assert!(is_seven(&first), "{first:?}");
        // Nothing was acknowledged: the next connection brings it again, and a START changes nothing.
        commander.hang_up();
        assert_eq!(commander.greet(1, 1)?, [run]);
        commander.order(1, run, &spec)?;
        let again = commander.outcome(run)?;
        assert_eq!(again, first);
        commander.acknowledge(run, again.0)?;
        wait_until("the run to be settled", || Ok(agent.count(Shelf::Settled) == 1))?;
        for _ in 0..3 {
            commander.order(1, run, &spec)?;
            assert_eq!(commander.outcome(run)?, first, "a settled run is answered from its log");
        }
        let executions: Vec<Execution> = site.ledger().of(1)?;
        assert_eq!(executions.len(), 1, "{executions:?}");
        Ok(())
    });
}

#[test]
fn a_kill_that_comes_before_its_start_keeps_the_run_from_ever_starting() {
    on_empty_site(|site| {
        let (mut commander, agent) = commanded(site)?;
        let (run, spec) = (new_run(1), spec(site, 1)?);
        commander.greet(1, 1)?;
        commander.order_kill(1, run)?;
        let (seq, outcome) = commander.outcome(run)?;
        assert!(matches!(outcome, Outcome::NeverStarted { why: Never::Canceled, .. }), "{outcome:?}");
        commander.order(1, run, &spec)?;
        commander.acknowledge(run, seq)?;
        wait_until("the run to be settled", || Ok(agent.count(Shelf::Settled) == 1))?;
        commander.order(1, run, &spec)?;
        assert_eq!(commander.outcome(run)?.1, outcome);
        let other = new_run(2);
        commander.order(1, other, &RunSpec { job_id: Some(2), ..spec })?;
        assert!(is_seven(&commander.outcome(other)?));
        assert!(site.ledger().of(1)?.is_empty(), "it never started");
        Ok(())
    });
}

#[test]
fn a_run_that_needs_a_later_protocol_is_refused_though_nothing_else_of_it_is_unknown() {
    on_empty_site(|site| {
        let (mut commander, agent) = commanded(site)?;
        let (run, spec) = (new_run(1), spec(site, 1)?);
        commander.greet(1, 1)?;
        let later = protocol::handshake::PROTOCOL_VERSION + 1;
        commander.order(1, run, &RunSpec { needs: Some(later), ..spec.clone() })?;
        assert_eq!(commander.refusal(run)?, RefusalKind::Invalid);
        assert!(agent.trace().contains(&format!("needs an agent of protocol {later}")));
        let other = new_run(2);
        commander.order(1, other, &RunSpec { needs: Some(later - 1), ..spec })?;
        assert!(is_seven(&commander.outcome(other)?));
        Ok(())
    });
}

#[test]
fn a_run_that_was_refused_is_not_accepted_when_an_order_for_it_comes_late() {
    on_empty_site(|site| {
        let (mut commander, _agent) = commanded(site)?;
        let (run, spec) = (new_run(1), spec(site, 1)?);
        let later = protocol::handshake::PROTOCOL_VERSION + 1;
        commander.greet(1, 1)?;
        commander.order(1, run, &RunSpec { needs: Some(later), ..spec.clone() })?;
        assert_eq!(commander.refusal(run)?, RefusalKind::Invalid);
        // The server takes it for over. Another connection may bring what was ordered before.
        commander.hang_up();
        assert!(commander.greet(1, 1)?.is_empty());
        commander.order(1, run, &spec)?;
        assert_eq!(commander.refusal(run)?, RefusalKind::NoRoom);
        assert!(site.ledger().of(1)?.is_empty(), "it never started");
        // A later term knows what the earlier one did.
        commander.hang_up();
        assert!(commander.greet(2, 1)?.is_empty());
        commander.order(2, run, &spec)?;
        assert!(is_seven(&commander.outcome(run)?));
        Ok(())
    });
}

#[test]
fn a_server_of_an_earlier_epoch_cannot_start_anything() {
    on_empty_site(|site| {
        let (mut commander, mut agent) = commanded(site)?;
        let spec = spec(site, 1)?;
        commander.greet(5, 1)?;
        // A command of an earlier term over a link of the present one.
        let stale = new_run(1);
        commander.order(4, stale, &spec)?;
        assert_eq!(commander.refusal(stale)?, RefusalKind::Fenced);
        // The epoch is remembered over a restart, and so is whose it was.
        agent.vanish()?;
        agent.start()?;
        for (epoch, incarnation) in [(4, 1), (5, 2)] {
            commander.greet(epoch, incarnation)?;
            let _ = commander.order(epoch, stale, &spec); // the agent may have hung up already
            assert!(commander.is_hung_up_on() || commander.refusal(stale)? == RefusalKind::Fenced);
        }
        assert_eq!(agent.count(Shelf::Live) + agent.count(Shelf::Settled), 0);
        assert!(site.ledger().read()?.is_empty(), "nothing ran");
        Ok(())
    });
}

#[test]
fn a_settled_run_is_told_again_to_a_database_that_went_back_in_time() {
    on_site(|site| {
        let before = site.client().submit(&site.gated()?)?;
        site.open_gate()?;
        exactly_seven(site, before)?;
        wait_until("it to be settled", || Ok(site.agent()?.count(Shelf::Settled) == 1))?;
        site.server.stop()?;
        let (now, backup) = (site.server.data_root(), site.path().join("backup"));
        std::fs::create_dir(&backup)?;
        copy_database(&now, &backup)?;
        site.server.restart()?;
        site.wait_connected("host1")?;
        let lost = site.client().submit(&site.gated()?)?;
        exactly_seven(site, lost)?;
        wait_until("both to be settled", || Ok(site.agent()?.count(Shelf::Settled) == 2))?;
        site.server.stop()?;
        copy_database(&backup, &now)?;
        // Who restores says so: above every epoch that the agents have obeyed.
        site.server.restart_with(&[("LASTWORD_NODE__EPOCH_MIN".to_owned(), "100".to_owned())])?;
        site.wait_connected("host1")?;
        let strays = || -> Result<u64> {
            let status = site.client().call("GET", "/api/v1/server/status", None)?;
            Ok(status.json::<api::ServerStatus>()?.strays)
        };
        wait_until("the lost run to be told as a stray", || Ok(strays()? > 0))?;
        assert_eq!(site.client().list()?.len(), 1);
        // The number is given again; the run is another one.
        let next = site.client().submit(&site.gated()?)?;
        let job = site.client().wait(next)?;
        assert!(SEVEN.fits(&job), "{job:#?}");
        Ok(())
    });
}

#[test]
fn what_is_sent_again_to_a_database_that_went_back_is_sent_until_it_is_acknowledged() {
    on_empty_site(|site| {
        let (mut commander, agent) = commanded(site)?;
        let (run, spec) = (new_run(1), spec(site, 1)?);
        commander.greet(1, 1)?;
        commander.order(1, run, &spec)?;
        let first = commander.outcome(run)?;
        commander.acknowledge_at(run, first.0, 7)?;
        wait_until("the run to be settled", || Ok(agent.count(Shelf::Settled) == 1))?;
        // At the next connections it stands at commit 1.
        for _ in 0..2 {
            commander.hang_up();
            assert!(commander.greet(1, 1)?.is_empty());
            assert_eq!(commander.outcome(run)?, first);
            commander.caught_up()?;
        }
        commander.acknowledge_at(run, first.0, 1)?;
        commander.order(1, run, &spec)?;
        assert_eq!(commander.outcome(run)?, first, "the acknowledgement was read before this answer");
        commander.hang_up();
        assert!(commander.greet(1, 1)?.is_empty());
        let other = new_run(2);
        commander.order(1, other, &RunSpec { job_id: Some(2), ..spec })?;
        assert_eq!(commander.told()?, other, "nothing is sent again any more");
        Ok(())
    });
}

/// Puts a stopped server's database in the place of another.
fn copy_database(from: &Path, to: &Path) -> Result<()> {
    for name in ["server.db", "server.db-wal"] {
        let _ = std::fs::remove_file(to.join(name)); // there may be none
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name))?;
        }
    }
    let _ = std::fs::remove_file(to.join("server.db-shm")); // of the other one
    Ok(())
}

//! Connections that end again and again, with jobs under way.

use crate::add_behind_proxy;
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tests::{
    Dialling, Ending, Fate, Jobs, Part, Process, Proxy, Random, Site, Tally, on_empty_site, seed, wait_for,
};

const RECONNECTS: u64 = 1_000;
/// A reconnect takes a second on the average, so many agents do it.
const AGENTS: usize = 24;
/// New jobs come while fewer than so many are not over.
const OPEN_MAX: u64 = 30;
const SLEEP_MS_MAX: u64 = 1_500;
/// TLS and proofs take some 3,000 bytes; a connection lives for up to so many more.
const BYTES_MAX: u64 = 8_000;
const PROOFS_BYTES: u64 = 4_000;
const LIFE_MS_MIN: u64 = 100;
const LIFE_MS_MAX: u64 = 1_200;
/// What a process may have more at the end than after a third of the cuts: descriptors, and kilobytes of memory.
const MORE_FDS_MAX: usize = 24;
const MORE_KB_MAX: u64 = 48 << 10;

#[test]
fn a_thousand_reconnects_lose_nothing_execute_nothing_twice_and_leave_nothing_behind() {
    on_empty_site(|site| {
        let cuts =
            std::env::var("LASTWORD_TEST_RECONNECTS").ok().and_then(|n| n.parse().ok()).unwrap_or(RECONNECTS);
        let mut tally = Tally::new(
            Part::Network,
            "reconnects lose nothing, execute nothing twice, and leave nothing behind",
        );
        tally.seed(seed());
        let proxies = connect_all(site)?;
        let (mut jobs, mut random) = (Jobs::new(), Random::from_seed());
        let mut before = None;
        while ended(&proxies) < cuts {
            let (over, all) = site.client().progress()?;
            if all - over < OPEN_MAX {
                jobs.submit(site, &mut random, AGENTS, None, SLEEP_MS_MAX)?;
            }
            if before.is_none() && ended(&proxies) >= cuts / 3 {
                before = Some(sizes(site)?);
            }
            // The storm's own rhythm; nothing is waited for here.
            std::thread::sleep(Duration::from_millis(100));
        }
        tally.count("connections cut", ended(&proxies));
        proxies.iter().for_each(Proxy::calm);
        for index in 0..AGENTS {
            site.wait_connected(&name(index))?;
        }
        tally.count("jobs compared", jobs.compare(site)?);
        let before = before.context("too few cuts to measure anything")?;
        for ((what, fds, kb), (_, fds_after, kb_after)) in before.iter().zip(settled_sizes(site, &before)?) {
            println!("{what}: {fds} to {fds_after} descriptors, {kb} to {kb_after} KB");
            ensure!(fds_after <= fds + MORE_FDS_MAX, "{what} had {fds} descriptors and has {fds_after}");
            ensure!(kb_after <= kb + MORE_KB_MAX, "{what} had {kb} KB and has {kb_after}");
        }
        tally.count("processes measured", before.len() as u64);
        tally.kept();
        Ok(())
    });
}

/// Agents of both kinds, each behind a proxy that cuts every connection sooner or later.
fn connect_all(site: &mut Site) -> Result<Vec<Proxy>> {
    let join = |index: usize| {
        let dialling = if index.is_multiple_of(2) { Dialling::In } else { Dialling::Out };
        let mut random = Random::nth(index as u64);
        add_behind_proxy(site, &name(index), dialling, move || Some(fate(&mut random)))
    };
    (0..AGENTS).map(join).collect()
}

fn name(index: usize) -> String {
    format!("host{}", index + 1)
}

/// Amid the proofs now and then, soon after them as a rule; silent seldom, since that costs 20 s.
fn fate(random: &mut Random) -> Fate {
    let bytes = match random.below(24) {
        0 => random.below(PROOFS_BYTES),
        _ => PROOFS_BYTES + random.below(BYTES_MAX),
    };
    let longest = Duration::from_millis(LIFE_MS_MIN + random.below(LIFE_MS_MAX - LIFE_MS_MIN));
    let ending = match random.below(200) {
        0 => Ending::Silence,
        1..100 => Ending::Reset,
        _ => Ending::Close,
    };
    Fate { bytes, longest, ending }
}

fn ended(proxies: &[Proxy]) -> u64 {
    proxies.iter().map(|proxy| proxy.counts().1).sum()
}

/// Open descriptors and memory of the server and of every network-processor.
fn sizes(site: &Site) -> Result<Vec<(String, usize, u64)>> {
    let mut found = vec![size("the server", &site.server.process().context("the server")?)?];
    for agent in &site.agents {
        let process = wait_for("a network-processor", || agent.network_processor())?;
        found.push(size(agent.name(), &process)?);
    }
    Ok(found)
}

/// Once more, when what is only being closed is closed.
fn settled_sizes(site: &Site, before: &[(String, usize, u64)]) -> Result<Vec<(String, usize, u64)>> {
    let mut last = sizes(site)?;
    let settled = wait_for("descriptors to be closed", || {
        last = sizes(site)?;
        let fits = last.iter().zip(before).all(|((_, now, _), (_, then, _))| *now <= then + MORE_FDS_MAX);
        Ok(fits.then(|| last.clone()))
    });
    Ok(settled.unwrap_or(last))
}

fn size(what: &str, process: &Process) -> Result<(String, usize, u64)> {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", process.pid))?.count();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kb = rss.trim().trim_end_matches(" kB").parse()?;
    Ok((what.to_owned(), fds, kb))
}

//! Agents in namespaces of their own: cut without a word, in both directions or one, unplugged, slow, moved, and hosts that are gone at once.

use anyhow::{Context, Result, ensure};
use api::Status;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tests::{
    Dialling, Direction, Jobs, Part, Process, Random, Site, Tally, Wire, on_empty_site, seed, wait_for,
    wait_until, with_hosts,
};

/// Where agents in namespaces listen.
const PORT: u16 = 7412;
const JOBS: usize = 8;
const SLEEP_MS_MAX: u64 = 3_000;
/// What the slow wire takes, thousands of bits a second.
const SLOW_KBITS: u32 = 48;
/// Longer than the silence after which a link is dead.
const SLOW_FOR: Duration = Duration::from_secs(25);
/// The name of the server's host in the namespaces; an agent's name is that of its host.
const SERVER: &str = "lastword-server.test";

/// A site whose server is reached over wires, and the list of host names that the server knows.
struct Net<'a> {
    site: &'a mut Site,
    wires: Vec<Wire>,
    names: Vec<(String, Ipv4Addr)>,
}

/// Runs a test, unless this machine has no network namespaces.
fn on_wires(promise: &str, test: impl FnOnce(&mut Net<'_>, &mut Tally) -> Result<()>) {
    on_wires_unless(Wire::missing(), promise, test);
}

/// Runs a test, unless something is missing.
fn on_wires_unless(
    missing: Option<String>,
    promise: &str,
    test: impl FnOnce(&mut Net<'_>, &mut Tally) -> Result<()>,
) {
    let mut tally = Tally::new(Part::Network, promise);
    tally.seed(seed());
    if let Some(why) = missing {
        eprintln!("not tried: {why}");
        return tally.skipped(&why);
    }
    on_empty_site(|site| {
        let hosts = site.path().join("server.hosts");
        std::fs::write(&hosts, "127.0.0.1 localhost\n")?;
        site.server.stop()?;
        let entry = ["unshare", "--mount"].map(str::to_owned).into_iter().chain(with_hosts(&hosts)).collect();
        site.server.open_to_hosts(entry)?;
        site.server.restart()?;
        let mut net = Net { site, wires: Vec::new(), names: Vec::new() };
        let tested = test(&mut net, &mut tally);
        if tested.is_ok() {
            tally.kept();
        }
        // The wires go when nothing lives at their end any more.
        for agent in &mut net.site.agents {
            let _ = agent.stop(); // it may be stopped already
        }
        tested
    });
}

impl Net<'_> {
    /// An agent at the end of a wire of its own.
    fn add(&mut self, name: &str, dialling: Dialling) -> Result<()> {
        let wire = Wire::new(self.site.path())?;
        wire.set_hosts(&[(SERVER, wire.server_address(0))])?;
        self.name(name, wire.agent_address(0))?;
        let port =
            self.site.server.agents_address().rsplit_once(':').context("the server's port")?.1.to_owned();
        let mut agent = self.site.prepare_agent(name, dialling)?;
        agent.set_entry(wire.entry());
        match dialling {
            Dialling::In => agent.set_address(dialling, &format!("{SERVER}:{port}")),
            Dialling::Out => agent.set_address(dialling, &format!("0.0.0.0:{PORT}")),
        }
        let address = (dialling == Dialling::Out).then(|| format!("{name}:{PORT}"));
        self.site.introduce_at(&agent, address.as_deref())?;
        self.wires.push(wire);
        agent.start()?;
        self.site.agents.push(agent);
        self.site.wait_connected(name)
    }

    /// The server finds this agent there from now on.
    fn name(&mut self, name: &str, address: Ipv4Addr) -> Result<()> {
        self.names.retain(|(known, _)| known != name);
        self.names.push((name.to_owned(), address));
        let lines: String = self.names.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        Ok(std::fs::write(self.site.path().join("server.hosts"), format!("127.0.0.1 localhost\n{lines}"))?)
    }

    fn agents(&self) -> Vec<String> {
        self.site.agents.iter().map(|agent| agent.name().to_owned()).collect()
    }

    /// Since when each agent is linked.
    fn links(&self) -> Result<Vec<Option<api::Time>>> {
        self.agents().iter().map(|name| Ok(self.site.client().agent(name)?.since)).collect()
    }

    fn network_processors(&self) -> Result<BTreeSet<u32>> {
        let find = |agent: &tests::Agent| wait_for("a network-processor", || agent.network_processor());
        self.site.agents.iter().map(|agent| Ok(find(agent)?.pid)).collect()
    }

    /// Jobs for every agent.
    fn submit(&self, jobs: &mut Jobs, random: &mut Random) -> Result<()> {
        for name in self.agents() {
            jobs.submit(self.site, random, JOBS, Some(&name), SLEEP_MS_MAX)?;
        }
        Ok(())
    }
}

#[test]
fn a_network_that_is_cut_in_any_way_loses_nothing_and_everything_is_told_when_it_is_back() {
    on_wires(
        "a cut without a word, in one direction or both, and an unplugged wire lose nothing",
        |net, tally| {
            type Cut = fn(&Wire) -> Result<()>;
            let kinds: [(&str, Cut); 4] = [
                ("cut", |wire| wire.lose(Direction::ToAgent).and_then(|()| wire.lose(Direction::ToServer))),
                ("deaf", |wire| wire.lose(Direction::ToAgent)),
                ("mute", |wire| wire.lose(Direction::ToServer)),
                ("unplugged", |wire| wire.set_plugged(false)),
            ];
            let pairs = kinds.iter().flat_map(|kind| [(kind, Dialling::In), (kind, Dialling::Out)]);
            let pairs: Vec<_> = pairs.collect();
            for ((kind, _), dialling) in &pairs {
                net.add(&name_of(kind, *dialling), *dialling)?;
            }
            let processors = net.network_processors()?;
            let (mut jobs, mut random) = (Jobs::new(), Random::from_seed());
            net.submit(&mut jobs, &mut random)?;
            wait_until("some jobs to run", || Ok(jobs.begun(net.site)? > pairs.len()))?;
            for (((_, cut), _), wire) in pairs.iter().zip(&net.wires) {
                cut(wire)?;
            }
            net.submit(&mut jobs, &mut random)?;
            for name in net.agents() {
                let is_connected = net.site.client().agent(&name)?.connected;
                ensure!(
                    is_connected,
                    "{name}: the server learned of it at once, so it was no cut without a word"
                );
                tally.count("links cut", 1);
            }
            for name in net.agents() {
                net.site.wait_away(&name)?;
            }
            for wire in &net.wires {
                wire.set_plugged(true)?;
                wire.mend()?;
            }
            for name in net.agents() {
                net.site.wait_connected(&name)?;
            }
            tally.count("jobs compared", jobs.compare(net.site)?);
            ensure!(net.network_processors()? == processors, "a network-processor was started anew");
            Ok(())
        },
    );
}

fn name_of(kind: &str, dialling: Dialling) -> String {
    format!("{kind}-{}", if dialling == Dialling::In { "in" } else { "out" })
}

#[test]
fn a_slow_network_loses_nothing_and_is_not_taken_for_a_dead_one() {
    let promise = "a slow wire loses nothing and is not taken for a dead one";
    on_wires_unless(Wire::missing_slow(), promise, |net, tally| {
        for dialling in [Dialling::In, Dialling::Out] {
            net.add(&name_of("slow", dialling), dialling)?;
        }
        let (mut jobs, mut random) = (Jobs::new(), Random::from_seed());
        net.submit(&mut jobs, &mut random)?;
        wait_until("some jobs to run", || Ok(jobs.begun(net.site)? > net.wires.len()))?;
        for wire in &net.wires {
            wire.slow_down(SLOW_KBITS)?;
            tally.count("links slowed down", 1);
        }
        let (links, begun) = (net.links()?, Instant::now());
        while begun.elapsed() < SLOW_FOR {
            net.submit(&mut jobs, &mut random)?;
            jobs.compare(net.site)?;
        }
        tally.count("jobs compared", jobs.count());
        ensure!(net.links()? == links, "a link was given up");
        Ok(())
    });
}

#[test]
fn an_address_that_changes_behind_the_same_name_is_found_without_a_restart() {
    on_wires("an address that changes behind the same name is found without a restart", |net, tally| {
        net.add("moved-in", Dialling::In)?;
        net.add("moved-out", Dialling::Out)?;
        let processors = net.network_processors()?;
        let (mut jobs, mut random) = (Jobs::new(), Random::from_seed());
        net.submit(&mut jobs, &mut random)?;
        net.wires[0].drop_address(Direction::ToServer, 0)?;
        net.wires[0].set_hosts(&[(SERVER, net.wires[0].server_address(1))])?;
        net.wires[1].drop_address(Direction::ToAgent, 0)?;
        net.name("moved-out", net.wires[1].agent_address(1))?;
        net.submit(&mut jobs, &mut random)?;
        for (name, wire) in net.agents().iter().zip(&net.wires) {
            let moved = format!("{}:", wire.agent_address(1));
            wait_until(&format!("{name} to be linked at its new address"), || {
                let agent = net.site.client().agent(name)?;
                Ok(agent.connected && agent.address.is_some_and(|address| address.starts_with(&moved)))
            })?;
            tally.count("addresses moved", 1);
        }
        tally.count("jobs compared", jobs.compare(net.site)?);
        ensure!(net.network_processors()? == processors, "a network-processor was started anew");
        Ok(())
    });
}

#[test]
fn a_host_that_is_gone_at_once_is_noticed_by_silence_and_let_in_again_when_it_is_back() {
    on_wires(
        "a connection that only the server still has is noticed, and the host is let in again",
        |net, tally| {
            for (name, dialling) in [("gone-in", Dialling::In), ("gone-out", Dialling::Out)] {
                net.add(name, dialling)?;
            }
            let (mut jobs, mut random) = (Jobs::new(), Random::from_seed());
            net.submit(&mut jobs, &mut random)?;
            tally.count("jobs compared", jobs.compare(net.site)?);
            let mut lost = Vec::new();
            for name in net.agents() {
                let job = api::JobSubmit { agent: Some(name), ..net.site.gated()? };
                let id = net.site.client().submit(&job)?;
                net.site.client().wait_running(id)?;
                lost.push(id);
            }
            for index in 0..net.wires.len() {
                power_off(net, index)?;
            }
            for name in net.agents() {
                ensure!(
                    net.site.client().agent(&name)?.connected,
                    "the server learned of it, so it was not half-open"
                );
                tally.count("connections left half-open", 1);
            }
            let boot = [("LASTWORD_TEST_BOOT_ID".to_owned(), "5a".repeat(16))];
            // One is back while the server still takes it for connected, and its kernel resets what it does not know; the other when silence told.
            for (index, noticed) in [(1, false), (0, true)] {
                if noticed {
                    net.site.wait_away(&net.agents()[index])?;
                }
                net.wires[index].replace_host()?;
                net.site.agents[index].start_with(&boot)?;
            }
            for id in &lost {
                let job = net.site.client().wait(*id)?;
                let reason = job.reason.unwrap_or_default();
                ensure!(
                    job.status.0 == Status::Unknown && reason.contains("restart"),
                    "{}: {reason}",
                    job.status.0
                );
            }
            net.submit(&mut jobs, &mut random)?;
            tally.count("jobs compared", jobs.compare(net.site)?);
            for name in net.agents() {
                let trouble = net.site.client().agent(&name)?.trouble;
                ensure!(trouble.is_none(), "a host that was restarted is taken for two: {trouble:?}");
            }
            Ok(())
        },
    );
}

/// Nothing that the host's kernel says about it goes out: the wire is out before anything ends.
fn power_off(net: &mut Net<'_>, index: usize) -> Result<()> {
    net.wires[index].set_plugged(false)?;
    let agent = net.site.agents.get_mut(index).context("an agent")?;
    agent.vanish()?;
    let root = agent.root().path().to_owned();
    wait_until("all processes of the host to be gone", || {
        let living: Vec<Process> = Process::living_in(&root).into_iter().filter(Process::lives).collect();
        for process in &living {
            process.kill()?;
        }
        Ok(living.is_empty())
    })
}

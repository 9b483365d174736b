//! A network namespace for one agent, and the wire between it and this host: a pair of virtual interfaces. Both go with the value; what a test
//! that was killed left behind is removed by the next one.
//!
//! ```text
//! this host, the server        the namespace, the agent
//! lwt7  198.18.0.57  ══════════  198.18.0.58  lwt7i      first subnet
//!       198.18.0.61              198.18.0.62             second subnet, for addresses that move
//! ```
//!
//! A direction is lost by a neighbour entry that names a card which nobody has: frames go out and nobody takes them, and no end is told.

use anyhow::{Context, Result, bail};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Then a number, and the test's process id.
const PREFIX: &str = "lwt";
/// The range for tests of networks (RFC 2544), of which each wire takes eight addresses.
const RANGE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const WIRES_MAX: u32 = 16_384;
const TRIES_MAX: u32 = 64;
/// The address of no card.
const NOBODY: &str = "02:00:00:00:00:99";

/// Each kind of thing that a wire is made of, where nobody sees it and where it goes at once.
const TRY_WIRE: &str = "mount -t tmpfs lastword-test /run && mount --bind /dev/null /etc/hosts \
    && ip netns add lwt && ip link add lwt type veth peer name lwti netns lwt && ip addr add 198.18.0.1/30 dev lwt && ip link set lwt up \
    && ip neigh replace 198.18.0.2 lladdr 02:00:00:00:00:99 nud permanent dev lwt";
const TRY_SLOW: &str = "tc qdisc replace dev lwt root tbf rate 48kbit burst 4kb latency 800ms";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Which way something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the server.
    ToAgent,
    /// From the agent.
    ToServer,
}

/// The namespace and the wire.
pub struct Wire {
    number: u32,
    hosts: PathBuf,
}

impl Wire {
    /// Why this machine has no wires, if it has none.
    pub fn missing() -> Option<String> {
        refused(TRY_WIRE).map(|why| format!("no network namespaces with wires between them: {why}"))
    }

    /// Why this machine has wires but no slow ones, if it has none.
    pub fn missing_slow() -> Option<String> {
        refused(&format!("{TRY_WIRE} && {TRY_SLOW}")).map(|why| format!("no wires that are slow: {why}"))
    }

    /// A new one; the namespace's own list of host names will lie in `dir`.
    pub fn new(dir: &Path) -> Result<Wire> {
        sweep()?;
        for _ in 0..TRIES_MAX {
            let own = std::process::id().wrapping_mul(TRIES_MAX);
            let number = own.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % WIRES_MAX;
            if Path::new(&format!("/sys/class/net/{PREFIX}{number}")).exists() {
                continue; // another test's
            }
            let wire = Wire { number, hosts: dir.join(format!("{PREFIX}{number}.hosts")) };
            wire.set_hosts(&[])?;
            wire.plug_in()?;
            return Ok(wire);
        }
        bail!("all wires are in use")
    }

    fn plug_in(&self) -> Result<()> {
        let (space, outer, inner) = (self.space(), self.outer(), self.inner());
        ip(&["netns", "add", &space])?;
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &space])?;
        for which in [0, 1] {
            ip(&["addr", "add", &format!("{}/30", self.server_address(which)), "dev", &outer])?;
            ip(&["-n", &space, "addr", "add", &format!("{}/30", self.agent_address(which)), "dev", &inner])?;
        }
        ip(&["link", "set", &outer, "up"])?;
        ip(&["-n", &space, "link", "set", &inner, "up"])?;
        ip(&["-n", &space, "link", "set", "lo", "up"])
    }

    /// The host of the namespace is gone and another one stands there, with the same addresses. Its processes have to be ended before.
    pub fn replace_host(&self) -> Result<()> {
        ip(&["link", "del", &self.outer()])?;
        ip(&["netns", "del", &self.space()])?;
        self.plug_in()
    }

    /// What starts a program in the namespace.
    pub fn entry(&self) -> Vec<String> {
        let space = self.space();
        let enter = ["ip", "netns", "exec", &space].into_iter().map(str::to_owned);
        enter.chain(with_hosts(&self.hosts)).collect()
    }

    /// The names that the namespace knows.
    pub fn set_hosts(&self, names: &[(&str, Ipv4Addr)]) -> Result<()> {
        let lines: String = names.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        Ok(std::fs::write(&self.hosts, format!("127.0.0.1 localhost\n{lines}"))?)
    }

    /// This host, in the first or the second subnet (0, 1).
    pub fn server_address(&self, which: u32) -> Ipv4Addr {
        Ipv4Addr::from(RANGE + self.number * 8 + which * 4 + 1)
    }

    /// The namespace, in the first or the second subnet (0, 1).
    pub fn agent_address(&self, which: u32) -> Ipv4Addr {
        Ipv4Addr::from(RANGE + self.number * 8 + which * 4 + 2)
    }

    /// What goes in this direction arrives nowhere, until [`Wire::mend`].
    pub fn lose(&self, direction: Direction) -> Result<()> {
        for which in [0, 1] {
            let (address, card, mut words) = self.neighbour(direction, which);
            words.extend(
                ["neigh", "replace", &address, "lladdr", NOBODY, "nud", "permanent", "dev", &card]
                    .map(str::to_owned),
            );
            ip(&words)?;
        }
        Ok(())
    }

    /// Both directions arrive again.
    pub fn mend(&self) -> Result<()> {
        for direction in [Direction::ToAgent, Direction::ToServer] {
            for which in [0, 1] {
                let (address, card, mut words) = self.neighbour(direction, which);
                words.extend(["neigh", "del", &address, "dev", &card].map(str::to_owned));
                let _ = ip(&words); // that direction may be well
            }
        }
        Ok(())
    }

    fn neighbour(&self, direction: Direction, which: u32) -> (String, String, Vec<String>) {
        match direction {
            Direction::ToAgent => (self.agent_address(which).to_string(), self.outer(), Vec::new()),
            Direction::ToServer => {
                (self.server_address(which).to_string(), self.inner(), vec!["-n".to_owned(), self.space()])
            }
        }
    }

    /// The agent's end of the wire is pulled out, or put in again.
    pub fn set_plugged(&self, plugged: bool) -> Result<()> {
        ip(&["-n", &self.space(), "link", "set", &self.inner(), if plugged { "up" } else { "down" }])
    }

    /// Both directions take so many bits a second, in thousands.
    pub fn slow_down(&self, kbits: u32) -> Result<()> {
        let rate = format!("{kbits}kbit");
        for place in [vec![], vec!["-n".to_owned(), self.space()]] {
            let card = if place.is_empty() { self.outer() } else { self.inner() };
            let words = [
                "qdisc", "replace", "dev", &card, "root", "tbf", "rate", &rate, "burst", "4kb", "latency",
                "800ms",
            ];
            run("tc", place.into_iter().chain(words.map(str::to_owned)))?;
        }
        Ok(())
    }

    /// The address of the agent or of this host in that subnet is taken away.
    pub fn drop_address(&self, direction: Direction, which: u32) -> Result<()> {
        let (address, card, mut words) = match direction {
            Direction::ToAgent => {
                (self.agent_address(which), self.inner(), vec!["-n".to_owned(), self.space()])
            }
            Direction::ToServer => (self.server_address(which), self.outer(), Vec::new()),
        };
        words.extend(["addr", "del", &format!("{address}/30"), "dev", &card].map(str::to_owned));
        ip(&words)
    }

    fn space(&self) -> String {
        format!("{}-{}", self.outer(), std::process::id())
    }

    fn outer(&self) -> String {
        format!("{PREFIX}{}", self.number)
    }

    fn inner(&self) -> String {
        format!("{}i", self.outer())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for words in [["link", "del", &self.outer()], ["netns", "del", &self.space()]] {
            if let Err(e) = ip(&words) {
                eprintln!("--- of a wire stays: {e:#}");
            }
        }
    }
}

/// What starts a program with that file in the place of `/etc/hosts`. It has to be in a mount namespace of its own already.
pub fn with_hosts(hosts: &Path) -> Vec<String> {
    let script = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;
    ["sh", "-c", script, "sh", &hosts.to_string_lossy()].map(str::to_owned).to_vec()
}

/// What stands in the way of this script in namespaces of its own, if anything does.
fn refused(script: &str) -> Option<String> {
    if !crate::is_root() {
        return Some("they are root's".to_owned());
    }
    match Command::new("unshare").args(["--net", "--mount", "sh", "-c", script]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(e) => Some(format!("no unshare: {e}")),
    }
}

fn ip<S: AsRef<str>>(words: &[S]) -> Result<()> {
    run("ip", words.iter().map(|word| word.as_ref().to_owned()))
}

fn run(program: &str, words: impl Iterator<Item = String>) -> Result<()> {
    let words: Vec<String> = words.collect();
    let output = Command::new(program).args(&words).output().with_context(|| format!("no {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn sweep() -> Result<()> {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let parts = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        let Some((number, Ok(owner))) = parts.map(|(number, owner)| (number, owner.parse::<u32>())) else {
            continue;
        };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            let _ = ip(&["link", "del", &format!("{PREFIX}{number}")]); // it may be gone
            let _ = ip(&["netns", "del", &name]); // another test may have done so
        }
    }
    Ok(())
}

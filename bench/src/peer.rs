//! Other systems of the kind, measured in the same run: each in the fastest way that it offers, with as many slots as ours has. One that is not
//! installed is left out, and said so (`cargo xtask peers` installs what the registries have).
//!
//! What they promise is less: none makes an outcome durable before it tells it. So their rates are no limits of ours, only a scale.

mod hyperqueue;
mod pueue;
mod task_spooler;

use crate::figure::Figures;
use crate::latency::percentile;
use crate::memory::rss_kib;
use ::tests::Process;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Slots of each, and the name of our own figure with as many.
const SLOTS: usize = 64;
const OURS: &str = "short_jobs_per_s_64";
/// Jobs that are measured one at a time.
const SINGLE_JOBS: usize = 30;
/// The longest that a peer may take to be ready.
const READY_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Another system.
pub(crate) trait Peer {
    /// Its name in figures.
    fn name(&self) -> &'static str;
    /// The programs that it needs.
    fn programs(&self) -> &'static [&'static str];
    /// How somebody gets it.
    fn source(&self) -> &'static str;
    /// So many jobs take it some seconds.
    fn jobs(&self) -> u32;
    /// Starts it in a directory of its own.
    fn start(&self, directory: &Path, slots: usize) -> Result<Box<dyn Started>>;
}

/// A peer that is ready. Ends its processes when dropped.
pub(crate) trait Started {
    /// Submits so many `/bin/true` and returns when all of them are over and were all right.
    fn run_many(&self, count: u32) -> Result<()>;
    /// Submits one and returns when its outcome has been told.
    fn run_one(&self) -> Result<()>;
}

/// All that are installed.
pub(crate) fn measure(scratch: &Path, figures: &mut Figures) -> Result<()> {
    let peers: [&dyn Peer; 3] = [&task_spooler::TaskSpooler, &hyperqueue::HyperQueue, &pueue::Pueue];
    peers.into_iter().try_for_each(|peer| measure_one(peer, scratch, figures).context(peer.name()))
}

fn measure_one(peer: &dyn Peer, scratch: &Path, figures: &mut Figures) -> Result<()> {
    let name = peer.name();
    if let Some(missing) = peer.programs().iter().find(|program| !is_on_path(program)) {
        println!("==> {name} was not measured: {missing} is not on the PATH ({})", peer.source());
        return Ok(());
    }
    println!("==> {name}, {} jobs with {SLOTS} slots, then {SINGLE_JOBS} one at a time", peer.jobs());
    // Sockets have short names.
    let directory = tempfile::Builder::new().prefix(name).tempdir_in(scratch)?;
    let started = peer.start(directory.path(), SLOTS)?;
    started.run_one()?;
    let idle_kib: u64 = Process::living_in(directory.path()).iter().filter_map(|it| rss_kib(it.pid)).sum();
    let begin = Instant::now();
    started.run_many(peer.jobs())?;
    let per_s = f64::from(peer.jobs()) / begin.elapsed().as_secs_f64();
    let ours = figures.value(OURS).unwrap_or(f64::NAN);
    figures.add(&format!("{name}_per_s"), per_s, "1/s", &[(OURS, per_s / ours)]);
    let mut times_ms = Vec::with_capacity(SINGLE_JOBS);
    for _ in 0..SINGLE_JOBS {
        let begin = Instant::now();
        started.run_one()?;
        times_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    times_ms.sort_by(f64::total_cmp);
    for percent in [50, 99] {
        figures.add(&format!("{name}_latency_ms_p{percent}"), percentile(&times_ms, percent), "ms", &[]);
    }
    figures.add(&format!("{name}_idle_rss_kib"), idle_kib as f64, "KiB", &[]);
    Ok(())
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A client of a peer that is to succeed; what it prints.
fn call(command: &mut Command) -> Result<String> {
    let name = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed ({}): {}", output.status, error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until a peer is ready.
fn wait_ready(what: &str, mut is_ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_ready().unwrap_or(false) {
        if begin.elapsed() > READY_MAX {
            is_ready()?;
            bail!("{what} was not ready within {} s", READY_MAX.as_secs());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// A process of a peer that stays; ends with this.
struct Daemon(Child);

impl Daemon {
    /// What it says goes nowhere.
    fn start(command: &mut Command) -> Result<Daemon> {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Daemon).context(name)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill(); // gone already
        let _ = self.0.wait();
    }
}

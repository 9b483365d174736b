//! How fast the whole system is, beside what the machine can do at all and beside its peers, all in one run on one machine, because
//! only the ratios carry over to another.
//!
//! `cargo xtask bench` builds the programs and runs this; the system under measurement is that of the tests (`tests::Site`), from the folder
//! that `LASTWORD_TEST_PROGRAMS` names. A file of figures is
//! `{"figures":[{"name":…,"value":…,"unit":…,"beside":{NAME:RATIO,…}|null}]}`; a ratio is this figure divided by that one.

#![forbid(unsafe_code)]

mod attach;
mod cpu;
mod engine;
mod figure;
mod follow;
mod jobs;
mod latency;
mod limits;
mod list;
mod memory;
mod peer;
mod replay;

use ::tests::{FileSystem, Site, Volume, on_site};
use anyhow::{Context, Result, anyhow};
use clap::{Parser, ValueEnum};
use figure::Figures;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The size of a file system of our own; its file is sparse.
const VOLUME_MIB: u64 = 32 << 10;

/// Measures Lastword beside its limits.
#[derive(Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// What to measure; everything if absent
    group: Option<Group>,
    /// Writes the figures to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// For how long each rate is measured, in rounds that take turns with those of its limits
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// Of the rates, only that with so many jobs in flight
    #[arg(long, value_name = "JOBS")]
    in_flight: Option<usize>,
    /// On a new ext4 with its journal, mounted for this alone from a file in the temporary directory (root only): what others removed a moment ago on
    /// the machine's own file system is felt for minutes on some, and half the speed then
    #[arg(long)]
    own_file_system: bool,
    /// Leaves out the limits and the peers: for a profile of the system alone
    #[arg(long)]
    alone: bool,
}

/// Figures that are measured together.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Short jobs per second to the committed outcome, beside their limits
    Jobs,
    /// Other systems of the kind that are installed here: short jobs per second, one job at a time, idle memory
    Peers,
    /// From submission to the committed outcome of one job at a time
    Latency,
    /// Jobs that the scheduler's engine places per second with 100,000 waiting in 1,000 queues for 50 process servers, in this process
    Engine,
    /// What following a gigabyte of output costs those who wait for a status, also on a slow line
    Follow,
    /// Of the idle agent, and of each job-processor of 200 running jobs
    Memory,
    /// Outcomes per second that a server takes which was away for long
    Replay,
    /// Looking among a million jobs that are over, by what operators look for; the slowest median counts
    List,
    /// From the start of a network-processor until it has found 5,000 running jobs and is connected
    Attach,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut figures = Figures::default();
    if arguments.group.is_none_or(|only| only == Group::Engine) {
        println!("==> the engine alone");
        engine::measure(&mut figures)?;
    }
    if arguments.group == Some(Group::Engine) {
        return tell(&figures, &arguments);
    }
    let _volume = if arguments.own_file_system { Some(own_file_system()?) } else { None };
    // Ends all its processes whatever happens; after a failure it shows and keeps what they wrote.
    on_site(|site| measure(site, &arguments, figures));
    Ok(())
}

/// All that is temporary lies on it from now on. In the order of the fields it is unmounted, then its place is removed.
struct OwnFileSystem {
    _volume: Volume,
    _place: tempfile::TempDir,
}

fn own_file_system() -> Result<OwnFileSystem> {
    let place = tempfile::Builder::new().prefix("lastword-bench-").tempdir()?;
    let at = place.path().join("volume");
    let volume = Volume::mount(FileSystem::Ext4, &at, VOLUME_MIB)?;
    let volume = volume.map_err(|why| anyhow!("--own-file-system cannot be had here: {why}"))?;
    tempfile::env::override_temp_dir(&at)
        .map_err(|earlier| anyhow!("the temporary directory is {} already", earlier.display()))?;
    Ok(OwnFileSystem { _volume: volume, _place: place })
}

fn measure(site: &mut Site, arguments: &Arguments, mut figures: Figures) -> Result<()> {
    println!("==> a server and an agent in {} ({})", site.path().display(), file_system(site.path()));
    measure_on(site, arguments, &mut figures)?;
    tell(&figures, arguments)
}

fn tell(figures: &Figures, arguments: &Arguments) -> Result<()> {
    println!("\n{figures}");
    if let Some(path) = &arguments.json {
        std::fs::write(path, figures.to_json())
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("the figures are in {}", path.display());
    }
    Ok(())
}

fn measure_on(site: &mut Site, arguments: &Arguments, figures: &mut Figures) -> Result<()> {
    let wanted = |group| arguments.group.is_none_or(|only| only == group);
    let span = Duration::from_secs(arguments.seconds.max(1));
    if wanted(Group::Memory) {
        memory::measure_idle(site, figures)?;
    }
    if wanted(Group::Latency) {
        latency::measure(site.client(), figures)?;
    }
    if wanted(Group::Jobs) {
        jobs::measure(
            site,
            &jobs::Plan { span, only: arguments.in_flight, alone: arguments.alone },
            figures,
        )?;
    }
    if wanted(Group::Peers) && !arguments.alone {
        peer::measure(site.path(), figures)?;
    }
    if wanted(Group::Memory) {
        memory::measure_running(site, figures)?;
    }
    if wanted(Group::Replay) {
        replay::measure(site, figures)?;
    }
    if wanted(Group::Attach) {
        attach::measure(site, figures)?;
    }
    if wanted(Group::Follow) {
        follow::measure(site, figures)?; // it adds an agent
    }
    if wanted(Group::List) {
        list::measure(site, figures)?; // the last: from now on the database is large
    }
    Ok(())
}

/// The kind of file system, for whoever reads the figures: syncing to memory costs nothing and proves nothing.
fn file_system(path: &Path) -> String {
    let stat = Command::new("stat").args(["-f", "-c", "%T"]).arg(path).output();
    stat.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

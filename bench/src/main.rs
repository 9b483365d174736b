//! How fast the whole system is, beside what the machine can do at all and beside a peer, all in one run on one machine, because
//! only the ratios carry over to another.
//!
//! `cargo xtask bench` builds the programs and runs this. A file of figures is
//! `{"figures":[{"name":…,"value":…,"unit":…,"beside":{NAME:RATIO,…}|null}]}`; a ratio is this figure divided by that one.

#![forbid(unsafe_code)]

mod figure;
mod jobs;
mod latency;
mod limits;
mod memory;
mod peer;
mod site;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use figure::Figures;
use site::Site;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures Lastword beside its limits.
#[derive(Parser)]
#[command(name = "bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// What to measure; everything if absent
    group: Option<Group>,
    /// Writes the figures to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// For how long each rate is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// Where the programs are
    #[arg(long, value_name = "FOLDER", default_value = "target/release")]
    programs: PathBuf,
}

/// Figures that are measured together.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Short jobs per second to the committed outcome, beside their limits and task-spooler
    Jobs,
    /// From submission to the committed outcome of one job at a time
    Latency,
    /// Of the idle agent, and of each job-processor of 200 running jobs
    Memory,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let wanted = |group| arguments.group.is_none_or(|only| only == group);
    let span = Duration::from_secs(arguments.seconds.max(1));
    let mut figures = Figures::default();
    let site = Site::start(&arguments.programs)?;
    let measured = (|| {
        if wanted(Group::Memory) {
            memory::measure_idle(&site, &mut figures)?;
        }
        if wanted(Group::Latency) {
            latency::measure(&site, &mut figures)?;
        }
        if wanted(Group::Jobs) {
            jobs::measure(&site, span, &mut figures)?;
        }
        if wanted(Group::Memory) {
            memory::measure_running(&site, &mut figures)?;
        }
        anyhow::Ok(())
    })();
    site.stop(measured.is_ok());
    measured?;
    println!("\n{figures}");
    if let Some(path) = &arguments.json {
        std::fs::write(path, figures.to_json())
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("the figures are in {}", path.display());
    }
    Ok(())
}

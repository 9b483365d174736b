//! `cargo xtask soak`: the tests that try at random, for as long as is asked. The same build as that of all tests.

use crate::build::{self, Profile};
use crate::{step, tools};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use std::hash::{BuildHasher, RandomState};

/// The one test of the simulation that runs for as long as is asked.
const TEST: &str = "every_promise_is_kept_for_as_long_as_is_asked";
/// Short enough to be typed again.
const FIRST_MAX: u64 = 1_000_000_000;

/// What is tried.
#[derive(Subcommand)]
pub(crate) enum Of {
    /// Simulates seeds that nobody has seen yet
    Simulation {
        /// Seconds
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Kills real processes at random, under load
    Kills {
        /// How many
        #[arg(long, default_value_t = 20_000)]
        kills: u64,
    },
    /// Lets a coverage-guided fuzzer look for bytes that break what reads those of strangers
    Fuzz {
        /// Seconds for each target
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// One target only, as in fuzz/fuzz_targets
        #[arg(long)]
        target: Option<String>,
    },
}

pub(crate) fn run(of: Of) -> Result<()> {
    match of {
        Of::Simulation { seconds } => simulation(seconds),
        Of::Kills { kills } => storm(kills),
        Of::Fuzz { seconds, target } => fuzz(seconds, target.as_deref()),
    }
}

fn simulation(seconds: u64) -> Result<()> {
    let lanes = std::thread::available_parallelism().context("cannot ask how many processors there are")?;
    let first = RandomState::new().hash_one(std::process::id()) % FIRST_MAX;
    println!("seeds from {first} on, {lanes} lanes");
    let words = ["test", "--workspace", "--test", "seeds", "--", "--ignored", "--exact", TEST, "--nocapture"];
    let mut cargo = step::cargo(&words);
    cargo.env("SIM_FIRST", first.to_string());
    cargo.env("SIM_SECONDS", seconds.to_string());
    cargo.env("SIM_LANES", lanes.to_string());
    step::run("soak", &mut cargo)
}

fn storm(kills: u64) -> Result<()> {
    build::programs(Profile::Debug)?;
    let mut cargo = step::cargo(&["test", "--workspace", "--test", "random_kill", "--", "--nocapture"]);
    cargo.env("LASTWORD_TEST_KILLS", kills.to_string());
    step::run("soak", &mut cargo)
}

/// Longer inputs tell nothing new.
const INPUT_BYTES_MAX: u32 = 64 << 10;
/// Whatever takes longer hangs, seconds.
const INPUT_S_MAX: u32 = 20;

/// New inputs go to target/fuzz-corpus; what is worth keeping is put into fuzz/corpus by hand, with the mend.
fn fuzz(seconds: u64, only: Option<&str>) -> Result<()> {
    tools::fuzzer()?;
    let targets = step::root().join("fuzz/fuzz_targets");
    let entries =
        std::fs::read_dir(&targets).with_context(|| format!("cannot list {}", targets.display()))?;
    let names = entries.flatten().filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()));
    let mut names: Vec<String> = names.filter(|name| only.is_none_or(|only| only == name)).collect();
    names.sort_unstable();
    if names.is_empty() {
        bail!("there is no fuzz target {}; see {}", only.unwrap_or_default(), targets.display());
    }
    for name in names {
        let found = build::target_directory().join("fuzz-corpus").join(&name);
        std::fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let found = found.to_string_lossy().into_owned();
        let known = format!("fuzz/corpus/{name}");
        // Our code has no unsafe blocks but in lib/os, so coverage alone is asked for, which the stable compiler gives.
        let mut cargo =
            step::cargo(&["fuzz", "run", "--sanitizer", "none", "--fuzz-dir", "fuzz", &name, &found, &known]);
        cargo.args([
            "--".to_owned(),
            format!("-max_total_time={seconds}"),
            format!("-max_len={INPUT_BYTES_MAX}"),
        ]);
        cargo.args([format!("-timeout={INPUT_S_MAX}"), "-print_final_stats=1".to_owned()]);
        step::run("fuzz", &mut cargo)?;
    }
    Ok(())
}

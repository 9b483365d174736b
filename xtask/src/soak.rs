//! `cargo xtask soak`: the tests that try at random, for as long as is asked. The same build as that of all tests.

use crate::build::{self, Profile};
use crate::step;
use anyhow::{Context, Result};
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
}

pub(crate) fn run(of: Of) -> Result<()> {
    match of {
        Of::Simulation { seconds } => simulation(seconds),
        Of::Kills { kills } => storm(kills),
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

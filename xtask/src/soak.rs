//! `cargo xtask soak`: the simulation of `tests/sim` over seeds from a random start on.

use crate::step;
use anyhow::{Context, Result};
use std::hash::{BuildHasher, RandomState};

/// The one test that runs for as long as is asked.
const TEST: &str = "every_promise_is_kept_for_as_long_as_is_asked";
/// Short enough to be typed again.
const FIRST_MAX: u64 = 1_000_000_000;

pub(crate) fn run(seconds: u64) -> Result<()> {
    let lanes = std::thread::available_parallelism().context("cannot ask how many processors there are")?;
    let first = RandomState::new().hash_one(std::process::id()) % FIRST_MAX;
    println!("seeds from {first} on, {lanes} lanes");
    let mut cargo = step::cargo(&[
        "test",
        "-p",
        "sim",
        "--test",
        "seeds",
        "--",
        "--ignored",
        "--exact",
        TEST,
        "--nocapture",
    ]);
    cargo.env("SIM_FIRST", first.to_string());
    cargo.env("SIM_SECONDS", seconds.to_string());
    cargo.env("SIM_LANES", lanes.to_string());
    step::run("soak", &mut cargo)
}

//! `cargo xtask bench`: builds what is shipped, and measures it.

use crate::build::{self, Profile};
use crate::{step, tools};
use anyhow::Result;

/// Passes the arguments on to the program `bench`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let programs = build::programs(Profile::Release)?;
    step::run("build", &mut step::cargo(&["build", "--release", "-p", "bench"]))?;
    let mut bench = std::process::Command::new(programs.join("bench"));
    bench.env("LASTWORD_TEST_PROGRAMS", &programs).env("PATH", tools::path_with_peers()?).args(arguments);
    step::run("bench", &mut bench)
}

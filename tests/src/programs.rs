//! Where the programs are: beside the tests in the target directory, or in `LASTWORD_TEST_PROGRAMS`.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

const BUILD: &str =
    "cargo build -p central-server -p lastword -p platform-agent -p network-processor -p job-processor";

/// One of the system's programs.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("LASTWORD_TEST_PROGRAMS") {
        Some(folder) => PathBuf::from(folder),
        None => target()?,
    };
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} does not exist: build the programs first with `{BUILD}`", path.display());
    }
    Ok(path)
}

/// A program of this crate, built together with the tests.
pub fn helper(name: &str) -> Result<PathBuf> {
    let path = target()?.join(name);
    if !path.exists() {
        bail!("{} does not exist: build it with `cargo build -p tests --bins`", path.display());
    }
    Ok(path)
}

/// The command line program, without settings of whoever runs the tests.
pub fn lastword() -> Result<Command> {
    let mut command = Command::new(program("lastword")?);
    command.env_remove("LASTWORD_URL").env_remove("LASTWORD_TOKEN_FILE").env_remove("LASTWORD_CA_FILE");
    Ok(command)
}

/// The folder above that of the tests' own programs (`target/debug/deps`).
fn target() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where is this test?")?;
    let folder =
        own.parent().and_then(|deps| deps.parent()).context("this test is in no target directory")?;
    Ok(folder.to_owned())
}

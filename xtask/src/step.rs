//! One step of a chore: it says what it does, does it, and says how long it took.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("xtask"), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// The cargo that runs us, at the repository's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// A command as one would type it.
pub(crate) fn typed(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    [name].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Does `work` as the step `name`.
pub(crate) fn step<T>(name: &str, detail: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {name}: {detail}");
    let begin = Instant::now();
    let result = work();
    let word = if result.is_ok() { "done" } else { "FAILED" };
    println!("    {name} {word} in {:.1} s", begin.elapsed().as_secs_f64());
    result
}

/// Runs a command as the step `name`; its output is ours.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<()> {
    let line = typed(command);
    step(name, &line, || {
        let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
        if !status.success() {
            bail!("the step {name} failed ({status}); to repeat it alone: {line}");
        }
        Ok(())
    })
}

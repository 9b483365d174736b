//! platform-agent: the monitor. It starts the network-processor, starts it again a while after an abnormal end, and is the last witness of
//! jobs whose job-processor died. It opens no network socket and parses nothing that came over one; it
//! works in one thread, beside that of the trace.

#![forbid(unsafe_code)]

mod check;
mod child;
mod monitor;
mod watch;
mod witness;

use config::{AgentConfig, UserSwitch};
use spool::DataRoot;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: platform-agent --config agent.toml [--check]
       platform-agent --dump-log FILE

  --config FILE    run the agent of this configuration until SIGTERM or SIGINT; jobs that run go on
  --check          validate the configuration, look whether jobs can run as its users, and exit
  --dump-log FILE  show a run's message log (<data_root>/runs/<run id>/log) as text
";

enum Command {
    Run { config: PathBuf, check: bool },
    Dump(PathBuf),
    Help,
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned())) {
        Err(what) => {
            eprintln!("platform-agent: {what}\n{USAGE}");
            ExitCode::from(64)
        }
        Ok(Command::Help) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Command::Dump(path)) => match spool::dump::dump(&path) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(e) => fail(65, &format!("{}: {e}", path.display())),
        },
        Ok(Command::Run { config, check }) => run(config, check),
    }
}

fn run(path: PathBuf, check: bool) -> ExitCode {
    let config = match AgentConfig::load(&path) {
        Ok(config) => config,
        Err(e) => return fail(78, &e.to_string()),
    };
    if check {
        return say(&path, &check::users(&config));
    }
    let passable = config.users.switch != UserSwitch::None;
    let root = match DataRoot::create(&config.data_root, config.allow_network_file_system, passable) {
        Ok(root) => root,
        Err(e) => return fail(73, &e.to_string()),
    };
    // Before any thread exists, so that all of them leave these signals to the descriptor.
    let signals = match monitor::signals() {
        Ok(signals) => signals,
        Err(e) => return fail(71, &format!("cannot take signals: {e}")),
    };
    let _tracing = trace::init("platform-agent", Some(&root.trace_dir()), true);
    for fault in check::users(&config).faults {
        tracing::warn!("jobs of other users will not work: {fault}");
    }
    let lock = match root.lock("platform-agent") {
        Ok(lock) => lock,
        Err(e) => return fail(75, &e.to_string()),
    };
    let done = monitor::Monitor::start(config, path, root, signals).and_then(monitor::Monitor::run);
    drop(lock);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("the monitor cannot go on: {e:#}");
            fail(70, &format!("{e:#}"))
        }
    }
}

/// What `--check` found.
fn say(path: &Path, found: &check::Findings) -> ExitCode {
    for note in &found.notes {
        println!("{}: {note}", path.display());
    }
    for fault in &found.faults {
        eprintln!("platform-agent: {}: {fault}", path.display());
    }
    if !found.faults.is_empty() {
        return ExitCode::from(78);
    }
    println!("{}: fine", path.display());
    ExitCode::SUCCESS
}

fn fail(code: u8, what: &str) -> ExitCode {
    eprintln!("platform-agent: {what}");
    ExitCode::from(code)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let (mut config, mut check) = (None, false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().map(PathBuf::from).ok_or(format!("{argument} needs a file"));
        match argument.as_str() {
            "--config" => config = Some(value()?),
            "--dump-log" => return Ok(Command::Dump(value()?)),
            "--check" => check = true,
            "--help" | "-h" => return Ok(Command::Help),
            other => return Err(format!("unknown argument \"{other}\"")),
        }
    }
    Ok(Command::Run { config: config.ok_or("--config is missing")?, check })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_named() {
        let parse = |line: &str| parse(line.split_whitespace().map(str::to_owned));
        assert!(matches!(parse("--config a.toml --check"), Ok(Command::Run { check: true, .. })));
        assert_eq!(parse("--conf a.toml").err().as_deref(), Some("unknown argument \"--conf\""));
        assert_eq!(parse("--config").err().as_deref(), Some("--config needs a file"));
        assert!(parse("").is_err());
    }
}

//! platform-agent: the monitor. It starts the network-processor, starts it again a while after an abnormal end, and is the last witness of
//! jobs whose job-processor died. It opens no network socket and parses nothing that came over one; it
//! works in one thread, beside that of the trace.

#![forbid(unsafe_code)]

mod check;
mod child;
mod handover;
mod monitor;
mod program;
mod replace;
mod survey;
mod upgrade;
mod watch;
mod witness;

use config::{AgentConfig, UserSwitch};
use handover::Handover;
use monitor::{Beginning, Monitor};
use spool::DataRoot;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: platform-agent --config agent.toml [--check | --upgrade]
       platform-agent --dump-log FILE | --version

  --config FILE    run the agent of this configuration until SIGTERM or SIGINT; jobs that run go on
  --check          validate everything that can be without starting anything, one line per finding; 0 or 78
  --upgrade        let the agent that runs replace itself by the programs that are on disk now
  --dump-log FILE  show a run's message log (<data_root>/runs/<run id>/log) as text
  --version        show the version
";

/// How an agent is asked for.
enum How {
    /// Until it is stopped.
    Run,
    /// In the place of the program that this process ran before; the number of the descriptor with its state.
    TakeOver(i32),
    /// Not at all: could this program read a state of that version?
    CanTakeOver(u32),
    /// Not at all: is all well?
    Check,
    /// Let the running one replace itself.
    Upgrade,
}

enum Command {
    Agent { config: PathBuf, how: How },
    Dump(PathBuf),
    Help,
    Version,
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
        Ok(Command::Version) => {
            println!("platform-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Command::Dump(path)) => match spool::dump::dump(&path) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(e) => fail(65, &format!("{}: {e}", path.display())),
        },
        Ok(Command::Agent { config, how: How::Check }) => survey::survey(&config),
        Ok(Command::Agent { config, how }) => agent(config, how),
    }
}

fn agent(path: PathBuf, how: How) -> ExitCode {
    let config = match AgentConfig::load(&path) {
        Ok(config) => config,
        Err(e) => return fail(78, &e.to_string()),
    };
    match how {
        How::Run => {
            if let Err(e) = os::process::close_inherited() {
                eprintln!("platform-agent: what its starter left open stays open: {e}");
            }
            run(config, path, None)
        }
        How::TakeOver(state) => {
            os::crash::point("monitor.amid-reexec");
            match handover::take(state) {
                Ok(handover) => run(config, path, Some(handover)),
                Err(e) => fail(70, &format!("the program before left a state that cannot be read: {e:#}")),
            }
        }
        How::CanTakeOver(version) if version <= handover::VERSION => {
            match child::Starter::new(config.libexec.as_deref(), &path) {
                Ok(_) => ExitCode::SUCCESS,
                Err(e) => fail(78, &format!("{e:#}")),
            }
        }
        How::CanTakeOver(version) => {
            let ours = handover::VERSION;
            fail(
                78,
                &format!(
                    "the running monitor hands over a state of version {version}, this program reads up to {ours}"
                ),
            )
        }
        How::Upgrade => upgrade::upgrade(&config),
        How::Check => survey::survey(&path),
    }
}

fn run(config: AgentConfig, path: PathBuf, handover: Option<Handover>) -> ExitCode {
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
    let tracing = trace::init("platform-agent", Some(&root.trace_dir()), true);
    for fault in check::users(&config).faults {
        tracing::warn!("jobs of other users will not work: {fault}");
    }
    let beginning = Beginning { config, path, root, signals };
    let monitor = match handover {
        Some(handover) => Monitor::go_on(beginning, handover),
        None => match beginning.root.lock("platform-agent") {
            Ok(lock) => Monitor::start(beginning, lock),
            Err(e) => return fail(75, &e.to_string()),
        },
    };
    match monitor.and_then(|monitor| monitor.run(&tracing)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("the monitor cannot go on: {e:#}");
            fail(70, &format!("{e:#}"))
        }
    }
}

fn fail(code: u8, what: &str) -> ExitCode {
    eprintln!("platform-agent: {what}");
    ExitCode::from(code)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let (mut config, mut how) = (None, How::Run);
    while let Some(argument) = arguments.next() {
        let mut value = |what| arguments.next().ok_or(format!("{argument} needs a {what}"));
        match argument.as_str() {
            "--config" => config = Some(PathBuf::from(value("file")?)),
            "--dump-log" => return Ok(Command::Dump(value("file")?.into())),
            "--check" => how = How::Check,
            "--upgrade" => how = How::Upgrade,
            // These two are between one program of the monitor and the next.
            "--can-take-over" => how = How::CanTakeOver(number(&value("number")?)?),
            "--take-over" => how = How::TakeOver(number(&value("number")?)?),
            "--version" | "-V" => return Ok(Command::Version),
            "--help" | "-h" => return Ok(Command::Help),
            other => return Err(format!("unknown argument \"{other}\"")),
        }
    }
    Ok(Command::Agent { config: config.ok_or("--config is missing")?, how })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_named() {
        let parse = |line: &str| parse(line.split_whitespace().map(str::to_owned));
        assert!(matches!(parse("--config a.toml --check"), Ok(Command::Agent { how: How::Check, .. })));
        assert_eq!(parse("--conf a.toml").err().as_deref(), Some("unknown argument \"--conf\""));
        assert_eq!(parse("--config").err().as_deref(), Some("--config needs a file"));
        assert!(parse("").is_err());
    }
}

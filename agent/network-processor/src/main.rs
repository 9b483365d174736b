//! network-processor: the only link between a host's runs and the central server. It takes commands, prepares runs and starts their
//! job-processors, sends what their logs hold, and drops what the server acknowledged. No running job needs it: it can be killed at any moment,
//! and finds everything on disk when it is back.

#![forbid(unsafe_code)]

mod adopt;
mod agent;
mod answer;
mod check;
mod control;
mod delivery;
mod disk;
mod errand;
mod event;
mod groups;
mod housekeeping;
mod identity;
mod launch;
mod leftovers;
mod links;
mod nursery;
mod orphans;
mod output;
mod pause;
mod resend;
mod retention;
mod room;
mod run;
mod secrets;
mod session;
mod start;
mod streams;
mod sudo;
mod users;

use config::AgentConfig;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str =
    "usage: network-processor --config agent.toml [--check] | --version (started by platform-agent)";

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    // The monitor takes its own signals from a descriptor and has them blocked; what is blocked is inherited.
    if let Err(e) = os::signal::unblock_all() {
        return fail(71, &format!("cannot unblock signals: {e}"));
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (path, check) = match words.as_slice() {
        ["--version"] => {
            println!("network-processor {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        ["--config", path] => (PathBuf::from(path), false),
        ["--config", path, "--check"] => (PathBuf::from(path), true),
        _ => return fail(64, USAGE),
    };
    if let Err(e) = os::process::close_inherited() {
        eprintln!("network-processor: what its starter left open stays open: {e}");
    }
    let config = match AgentConfig::load(&path) {
        Ok(config) => config,
        Err(e) => return fail(78, &e.to_string()),
    };
    if check {
        return check::check(&config);
    }
    let root = spool::DataRoot::at(&config.data_root);
    let _tracing = trace::init("network-processor", Some(&root.trace_dir()), true);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(disk::THREADS_MAX)
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let done = runtime.block_on(start::run(config, path));
        runtime.shutdown_background(); // a hanging disk must not keep a stop
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("the network-processor cannot go on: {e:#}");
            ExitCode::from(70)
        }
    }
}

fn fail(code: u8, what: &str) -> ExitCode {
    eprintln!("network-processor: {what}");
    ExitCode::from(code)
}

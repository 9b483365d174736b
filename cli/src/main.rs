//! `lastword`: the command line of Lastword. Reads its arguments and calls one function.

#![forbid(unsafe_code)]

mod agent;
mod agent_logs;
mod audit;
mod client;
mod context;
mod exit;
#[cfg(test)]
mod fake;
mod interrupt;
mod job;
mod manual;
mod operation;
mod options;
mod output;
mod progress;
mod queue;
mod raw;
mod restore;
mod secret;
mod server;
mod support;
mod token;
mod user;
mod watch;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match options::Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let wrong_usage = error.use_stderr();
            // Nobody is left to tell if standard error is closed.
            let _ = error.print();
            return if wrong_usage { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match options.run() {
        Ok(code) => code.into(),
        Err(error) => exit::report(&error).into(),
    }
}

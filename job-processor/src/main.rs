//! job-processor: starts, watches and controls the job of one run, and writes its outcome durably before anything else happens.
//! One process per run; it never talks to the network and never touches the job's output.
//!
//! `job-processor [--user NAME:UID:GID:GROUPS:HOME:SHELL] RUN-DIRECTORY [CGROUP-PARENT]`, started by the network-processor. Exit codes: 0 the outcome is on disk; 1 it could not be
//! recorded; 3 there was nothing to do (the run is another's, or over).
//!
//! `job-processor --nursery PATTERN [CGROUP-PARENT]` becomes the job-processor of any number of runs: see [`nursery`].
//!
//! `--sudo` before all else: started through sudo, for the user that sudo names. What it was started for is done by a copy of it: see [`detach`].
//! Exit codes then: 0 the log says how the run stands; anything else: nothing was done. `--sudo --version` does nothing but that.

#![forbid(unsafe_code)]

mod control;
mod detach;
mod elevated;
mod errand;
mod launch;
mod nursery;
mod supervise;
mod sweep;
mod witness;

use elevated::Elevation;
use errand::Errand;
use job::users::User;
use spool::RunDir;
use std::ffi::OsString;
use std::iter::Peekable;
use std::path::PathBuf;
use std::process::ExitCode;

/// What the command line says.
struct Order {
    dir: RunDir,
    cgroup_parent: Option<PathBuf>,
    user: Option<User>,
    /// The directory is only a pattern: this is the nursery.
    is_nursery: bool,
}

/// What this process is to do.
enum Work {
    Run(Order),
    Errand(Errand),
    Version,
}

fn read(mut arguments: Peekable<impl Iterator<Item = OsString>>) -> Option<Work> {
    if arguments.next_if(|first| first == "--version").is_some() {
        return arguments.next().is_none().then_some(Work::Version);
    }
    if arguments.peek().is_some_and(|first| first == "--signal" || first == "--empty") {
        return Errand::read(arguments).map(Work::Errand);
    }
    let is_nursery = arguments.next_if(|first| first == "--nursery").is_some();
    let user = match arguments.next_if(|first| first == "--user") {
        Some(_) => Some(User::read(arguments.next()?.to_str()?)?),
        None => None,
    };
    let dir = RunDir::at(&PathBuf::from(arguments.next()?))?;
    let cgroup_parent = arguments.next().map(PathBuf::from);
    arguments.next().is_none().then_some(Work::Run(Order { dir, cgroup_parent, user, is_nursery }))
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == "--version") {
        return version();
    }
    let through_sudo = arguments.next_if(|first| first == "--sudo").is_some();
    let elevation = match elevated::settle(through_sudo) {
        Ok(elevation) => elevation,
        Err(error) => {
            eprintln!("job-processor: {error}");
            return ExitCode::FAILURE;
        }
    };
    let is_elevated = elevation != Elevation::None;
    match read(arguments) {
        Some(Work::Version) => version(),
        Some(Work::Errand(errand)) => errand::run(&errand, is_elevated),
        // What has root's rights does one thing for one run, and goes.
        Some(Work::Run(order)) if !(is_elevated && order.is_nursery) => work(order, elevation),
        Some(Work::Run(_)) | None => {
            eprintln!(
                "usage: job-processor [--sudo] [--nursery | --user NAME:UID:GID:GROUPS:HOME:SHELL] RUN-DIRECTORY [CGROUP-PARENT] (started by network-processor, not by hand)"
            );
            ExitCode::from(64)
        }
    }
}

fn version() -> ExitCode {
    println!("job-processor {}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

/// Does one run, here or in a copy of this process.
fn work(mut order: Order, elevation: Elevation) -> ExitCode {
    if order.is_nursery {
        match nursery::serve(&order.dir, order.cgroup_parent.as_deref()) {
            Ok(nursery::Grown::JobProcessor { dir, user }) => (order.dir, order.user) = (dir, user),
            Ok(nursery::Grown::Over) => return ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{} job-processor --nursery: {error}", os::clock::wall_ms());
                return ExitCode::FAILURE;
            }
        }
    }
    let Order { dir, cgroup_parent, user, .. } = order;
    let (user, line) = match elevation {
        Elevation::None => (Ok(user), None),
        Elevation::Setuid => (elevated::verify(&dir, user.as_ref()), None),
        Elevation::Sudo { .. } => match detach::detach(&dir) {
            Ok(None) => return ExitCode::SUCCESS,
            Ok(line) => (elevated::verify(&dir, user.as_ref()), line),
            Err(error) => {
                eprintln!("job-processor: cannot leave sudo: {error}");
                return ExitCode::FAILURE;
            }
        },
    };
    match supervise::run(&dir, cgroup_parent.as_deref(), user, line) {
        Ok(supervise::Done::Recorded) => ExitCode::SUCCESS,
        Ok(supervise::Done::NothingToDo) => ExitCode::from(3),
        Err(error) => {
            eprintln!("{} job-processor {}: {error}", os::clock::wall_ms(), dir.run_id());
            ExitCode::FAILURE
        }
    }
}

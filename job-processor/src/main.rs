//! job-processor: starts, watches and controls the job of one run, and writes its outcome durably before anything else happens.
//! One process per run; it never talks to the network and never touches the job's output.
//!
//! `job-processor [--user NAME:UID:GID:GROUPS:HOME:SHELL] RUN-DIRECTORY [CGROUP-PARENT]`, started by the network-processor. Exit codes: 0 the outcome is on disk; 1 it could not be
//! recorded; 3 there was nothing to do (the run is another's, or over).
//!
//! `job-processor --nursery PATTERN [CGROUP-PARENT]` becomes the job-processor of any number of runs: see [`nursery`].

#![forbid(unsafe_code)]

mod control;
mod elevated;
mod errand;
mod launch;
mod nursery;
mod supervise;
mod sweep;
mod witness;

use errand::Errand;
use job::users::User;
use spool::RunDir;
use std::ffi::OsString;
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
}

fn read(arguments: impl Iterator<Item = OsString>) -> Option<Work> {
    let mut arguments = arguments.peekable();
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
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "--version") {
        println!("job-processor {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let elevated = os::privilege::is_elevated();
    if elevated && let Err(error) = os::privilege::settle() {
        eprintln!("job-processor: cannot give up root's rights: {error}");
        return ExitCode::FAILURE;
    }
    let mut order = match read(std::env::args_os().skip(1)) {
        Some(Work::Errand(errand)) => return errand::run(&errand, elevated),
        // What has root's rights does one thing for one run, and goes.
        Some(Work::Run(order)) if !(elevated && order.is_nursery) => order,
        Some(Work::Run(_)) | None => {
            eprintln!(
                "usage: job-processor [--nursery | --user NAME:UID:GID:GROUPS:HOME:SHELL] RUN-DIRECTORY [CGROUP-PARENT] (started by network-processor, not by hand)"
            );
            return ExitCode::from(64);
        }
    };
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
    let user = if elevated { elevated::verify(&dir, user.as_ref()) } else { Ok(user) };
    match supervise::run(&dir, cgroup_parent.as_deref(), user) {
        Ok(supervise::Done::Recorded) => ExitCode::SUCCESS,
        Ok(supervise::Done::NothingToDo) => ExitCode::from(3),
        Err(error) => {
            eprintln!("{} job-processor {}: {error}", os::clock::wall_ms(), dir.run_id());
            ExitCode::FAILURE
        }
    }
}

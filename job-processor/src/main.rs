//! job-processor: starts, watches and controls the job of one run, and writes its outcome durably before anything else happens.
//! One process per run; it never talks to the network and never touches the job's output.
//!
//! `job-processor [--user NAME:UID:GID:GROUPS:HOME:SHELL] RUN-DIRECTORY [CGROUP-PARENT]`, started by the network-processor. Exit codes: 0 the outcome is on disk; 1 it could not be
//! recorded; 3 there was nothing to do (the run is another's, or over).

#![forbid(unsafe_code)]

mod control;
mod launch;
mod supervise;
mod sweep;
mod witness;

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
}

fn read(arguments: impl Iterator<Item = OsString>) -> Option<Order> {
    let mut arguments = arguments.peekable();
    let user = match arguments.next_if(|first| first == "--user") {
        Some(_) => Some(User::read(arguments.next()?.to_str()?)?),
        None => None,
    };
    let dir = RunDir::at(&PathBuf::from(arguments.next()?))?;
    let cgroup_parent = arguments.next().map(PathBuf::from);
    arguments.next().is_none().then_some(Order { dir, cgroup_parent, user })
}

fn main() -> ExitCode {
    let Some(Order { dir, cgroup_parent, user }) = read(std::env::args_os().skip(1)) else {
        eprintln!(
            "usage: job-processor [--user NAME:UID:GID:GROUPS:HOME:SHELL] RUN-DIRECTORY [CGROUP-PARENT] (started by network-processor, not by hand)"
        );
        return ExitCode::from(64);
    };
    match supervise::run(&dir, cgroup_parent.as_deref(), user.as_ref()) {
        Ok(supervise::Done::Recorded) => ExitCode::SUCCESS,
        Ok(supervise::Done::NothingToDo) => ExitCode::from(3),
        Err(error) => {
            eprintln!("{} job-processor {}: {error}", os::clock::wall_ms(), dir.run_id());
            ExitCode::FAILURE
        }
    }
}

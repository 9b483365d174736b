//! job-processor: starts, watches and controls the job of one run, and writes its outcome durably before anything else happens.
//! One process per run; it never talks to the network and never touches the job's output.
//!
//! `job-processor RUN-DIRECTORY [CGROUP-PARENT]`, started by the network-processor. Exit codes: 0 the outcome is on disk; 1 it could not be
//! recorded; 3 there was nothing to do (the run is another's, or over).

#![forbid(unsafe_code)]

mod control;
mod launch;
mod supervise;
mod sweep;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (directory, cgroup_parent, rest) = (arguments.next(), arguments.next(), arguments.next());
    let Some(dir) = directory.as_deref().and_then(spool::RunDir::at).filter(|_| rest.is_none()) else {
        eprintln!(
            "usage: job-processor RUN-DIRECTORY [CGROUP-PARENT] (started by network-processor, not by hand)"
        );
        return ExitCode::from(64);
    };
    match supervise::run(&dir, cgroup_parent.as_deref()) {
        Ok(supervise::Done::Recorded) => ExitCode::SUCCESS,
        Ok(supervise::Done::NothingToDo) => ExitCode::from(3),
        Err(error) => {
            eprintln!("{} job-processor {}: {error}", os::clock::wall_ms(), dir.run_id());
            ExitCode::FAILURE
        }
    }
}

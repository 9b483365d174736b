//! Errands for a network-processor that may not do them itself: to signal the processes of another user's job after its job-processor died, and to
//! empty its working directory when the run's time is over. Done as that user, with his rights and no others.
//!
//! `job-processor [--sudo] --signal NUMBER --user LINE PID:TICKS…` and `job-processor [--sudo] --empty --user LINE RUN-DIRECTORY`. Exit codes: 0 done; 1 not, or
//! not all; 64 not understood.

use crate::elevated;
use job::users::User;
use os::child::Credentials;
use os::pidfd::Identity;
use os::signal::Signal;
use spool::RunDir;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is to be done, and as whom.
pub(crate) struct Errand {
    user: User,
    what: What,
}

enum What {
    Signal(Signal, Vec<Identity>),
    Empty(RunDir),
}

impl Errand {
    pub(crate) fn read(mut arguments: impl Iterator<Item = OsString>) -> Option<Errand> {
        let signal = match arguments.next()?.to_str()? {
            "--signal" => Some(Signal::from_named_raw(arguments.next()?.to_str()?.parse().ok()?)?),
            _ => None,
        };
        if arguments.next()? != "--user" {
            return None;
        }
        let user = User::read(arguments.next()?.to_str()?)?;
        let what = match signal {
            Some(signal) => {
                let identities = arguments.map(|argument| read_identity(argument.to_str()?));
                What::Signal(signal, identities.collect::<Option<_>>()?)
            }
            None => What::Empty(RunDir::at(&PathBuf::from(arguments.next()?))?),
        };
        Some(Errand { user, what })
    }
}

fn read_identity(text: &str) -> Option<Identity> {
    let (pid, start_ticks) = text.split_once(':')?;
    Some(Identity { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()?, pidfd_inode: 0 })
}

/// Does it.
pub(crate) fn run(errand: &Errand, elevated: bool) -> ExitCode {
    match attempt(errand, elevated) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} job-processor: {error}", os::clock::wall_ms());
            ExitCode::FAILURE
        }
    }
}

fn attempt(errand: &Errand, elevated: bool) -> Result<(), String> {
    if !elevated {
        return Err("errands are for a job-processor that has root's rights and its caller not".into());
    }
    let user = elevated::verify_user(os::process::real_uid(), &errand.user)?;
    // Entered with the caller's rights, emptied with the user's.
    if let What::Empty(dir) = &errand.what {
        elevated::verify(dir, None)?;
        std::env::set_current_dir(dir.work()).map_err(|e| format!("{}: {e}", dir.work().display()))?;
    }
    let credentials = Credentials { uid: user.uid, gid: user.gid, groups: user.groups };
    os::privilege::become_user(&credentials).map_err(|e| format!("cannot become {}: {e}", user.name))?;
    match &errand.what {
        What::Signal(signal, identities) => match os::tree::signal_all(identities, *signal) {
            hit if hit == identities.len() => Ok(()),
            hit => Err(format!("{hit} of {} processes were signalled", identities.len())),
        },
        What::Empty(dir) => empty(Path::new(".")).map_err(|e| format!("{}: {e}", dir.work().display())),
    }
}

fn empty(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => os::disk::remove_tree(&entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

//! The nursery: one job-processor that does nothing itself and becomes, by copying itself, the job-processor of every run. To start a program anew
//! costs three times as much as such a copy: the C library and the processor's features are looked at again, and nothing is shared.
//!
//! ```text
//! network-processor ─ run ─▶ nursery ── copy ──▶ job-processor of that run (a child of the network-processor, as if it had started it)
//!                   ◀─ pid ─
//! ```
//!
//! | goes                  | then                                                                                  |
//! |-----------------------|---------------------------------------------------------------------------------------|
//! | the nursery           | its copies do not notice; the network-processor starts another one, or each run by itself |
//! | the network-processor | the nursery reads the end of its socket and goes                                      |
//!
//! What is done here must stay harmless to copy: one thread, no lock of a log, no descriptor but the socket.

use job::users::User;
use rustix::net::{RecvFlags, SendFlags};
use spool::{DataRoot, RunDir, Shelf, nursery};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What a process is after the nursery.
pub(crate) enum Grown {
    /// The job-processor of a run.
    JobProcessor {
        /// The run.
        dir: RunDir,
        /// As whom its job runs.
        user: Option<User>,
    },
    /// The nursery, which is not needed any more.
    Over,
}

/// Serves the socket that is standard input until its other end is closed. Returns in each copy too. `pattern` is a run directory whose name stands
/// in this process's arguments for the runs' own.
pub(crate) fn serve(pattern: &RunDir, cgroup_parent: Option<&Path>) -> io::Result<Grown> {
    let root = pattern.root().ok_or(io::ErrorKind::InvalidInput)?;
    let _ = os::process::new_session(); // fails only if we lead one already
    let socket = os::process::take_stdin()?;
    let title = os::sibling::Title::find(&pattern.run_id().to_string());
    warm_up(cgroup_parent);
    loop {
        let mut question = [0u8; nursery::QUESTION_BYTES_MAX];
        let length = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&socket, &mut question, RecvFlags::empty()).map(|(length, _)| length)
        })?;
        if length == 0 {
            return Ok(Grown::Over);
        }
        let Some((run_id, user)) = nursery::asked(&question[..length]) else { continue };
        let born = match os::sibling::sibling() {
            Ok(None) => {
                let user = (!user.is_empty()).then(|| User::read(user).ok_or(io::ErrorKind::InvalidInput));
                let dir = grow(socket, &root, run_id, title.as_ref());
                return Ok(Grown::JobProcessor { dir, user: user.transpose()? });
            }
            Ok(Some(pid)) => Ok(pid),
            Err(e) => Err(e),
        };
        rustix::net::send(&socket, &nursery::answer(run_id, &born), SendFlags::NOSIGNAL)?;
    }
}

/// In the copy: lets go of what is the nursery's, and shows which run it is for.
fn grow(socket: OwnedFd, root: &DataRoot, run_id: job::RunId, title: Option<&os::sibling::Title>) -> RunDir {
    drop(socket); // else the nursery's end would not be seen
    if let Some(title) = title {
        title.show(&run_id.to_string());
    }
    root.run(Shelf::Live, run_id)
}

/// What every copy needs and is found out once.
fn warm_up(cgroup_parent: Option<&Path>) {
    store::checksum(b"");
    let _ = os::procfs::boot_id(); // a copy tries again
    if let Some(parent) = cgroup_parent {
        os::cgroup::warm_up(parent);
    }
}

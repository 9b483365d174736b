//! Out from under sudo. sudo waits for its command, relays signals to it, and may be killed with it; a job has one parent, which sees its end. So what
//! sudo started makes a copy of itself, tells its process id on standard output, and goes as soon as that has the run. sudo ends, and the copy comes to
//! the network-processor, as the reaper of orphans, which then has it as if it had started it by itself.
//!
//! ```text
//! network-processor ─▶ sudo ─▶ job-processor ── copy ──▶ job-processor of the run ── session, lock ─┐
//!        ◀─ pid, exit code 0 ◀─ ends ◀─── the line closes ◀──────────────────────────────────────────┘
//! ```
//!
//! | goes first                | then                                                                                                  |
//! |---------------------------|-------------------------------------------------------------------------------------------------------|
//! | the copy, before the lock | the line closes all the same; the log shows that nothing was executed, and another one is started     |
//! | the original, or sudo     | the copy does not notice; the log's lock says who has the run, and decides if there are two           |
//! | the network-processor     | the copy comes to the monitor, the next reaper of orphans; the next network-processor finds it by the lock |

use spool::RunDir;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

/// In the copy: the line whose end tells the original that the run is taken. `None`: this is the original, whose work is done.
pub(crate) fn detach(dir: &RunDir) -> io::Result<Option<OwnedFd>> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    if let Some(pid) = os::sibling::child()? {
        drop(theirs);
        let _ = writeln!(io::stdout(), "{pid}"); // without it the log's lock tells
        File::from(ours).read_to_end(&mut Vec::new())?; // nothing is ever written
        return Ok(None);
    }
    drop(ours);
    // sudo's own may be a terminal or a pipe that goes with it.
    os::process::replace_stdio(&complaints(dir)?)?;
    Ok(Some(theirs))
}

/// Where job-processors complain; opened with the caller's rights.
fn complaints(dir: &RunDir) -> io::Result<File> {
    let opened = dir.root().ok_or(io::ErrorKind::InvalidInput)?.job_processors_trace();
    opened.or_else(|_| File::options().write(true).open("/dev/null"))
}

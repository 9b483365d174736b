//! Programs with other rights than ours: job-processors that sudo starts as root, and errands. sudo may refuse, ask for what nobody can give, or hang.
//! None of that is an outcome of a job, and all of it is told in its own words.
//!
//! What sudo started makes a copy of itself, tells its process id, and goes when that has the run's lock (`job-processor/src/detach.rs`). The copy
//! is our child then, since we are the reaper of orphans. So:
//!
//! | sudo                             | means                                                  | what is done                                            |
//! |----------------------------------|--------------------------------------------------------|---------------------------------------------------------|
//! | ended with exit code 0           | a job-processor has the run, or had it                 | it is watched as one that we had started ourselves      |
//! | was killed                       | it may have started one                                | the log is read: its lock says who has the run, if any  |
//! | ended with another exit code     | it refused, or job-processor did before it had the run | NEVER STARTED, if the log under its lock agrees         |
//! | has not ended after [`SUDO_MAX`] | it hangs, and is not ours to kill                      | the same; a job-processor that comes after all reads it |
//! | cannot be executed               | it is not installed                                    | the same                                                |

use crate::disk::Disk;
use crate::event::Event;
use crate::launch::{JobProcessor, Launched, Launcher, NotLaunched};
use config::UserSwitch;
use job::RunId;
use os::helper::{self, Ended, Helped};
use os::pidfd::Pidfd;
use os::{procfs, seqpacket, wait};
use std::io;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long sudo may take, with all that it asks (directory services, name servers), until a job-processor has the run.
pub(crate) const SUDO_MAX: Duration = Duration::from_secs(20);
/// How soon a job-processor goes that finds that its run is over.
const LATE_MAX: Duration = Duration::from_secs(60);
/// Such programs under way at a time, those that hang included.
const HELPERS_MAX: usize = 8;
/// Between two looks whether there is room for another one.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// So much of what it says goes into a run's outcome.
const SAID_CHARS_MAX: usize = 300;

/// Room for such programs; each keeps its place until it has ended.
#[derive(Clone, Debug)]
pub(crate) struct Helpers(Arc<Semaphore>);

impl Default for Helpers {
    fn default() -> Helpers {
        Helpers(Arc::new(Semaphore::new(HELPERS_MAX)))
    }
}

impl Helpers {
    /// Runs it when there is room; on a thread that may wait.
    pub(crate) fn run(&self, command: &mut Command, time: Duration) -> io::Result<Ended> {
        let begun = Instant::now();
        let room = loop {
            match self.0.clone().try_acquire_owned() {
                Ok(room) => break room,
                Err(_) if begun.elapsed() >= time => return Err(no_room()),
                Err(_) => std::thread::sleep(ROOM_PAUSE),
            }
        };
        run(command, time, room)
    }
}

/// How it ended and what it said. One that hangs is an error of kind `TimedOut`; its room is free when it ended after all.
fn run(command: &mut Command, time: Duration, room: OwnedSemaphorePermit) -> io::Result<Ended> {
    match helper::run(command, time)? {
        Helped::Ended(ended) => Ok(ended),
        Helped::Hangs(hanging) => {
            let pid = hanging.child.id();
            let wait = move || {
                let ended = hanging.wait();
                tracing::warn!(pid, ?ended, "a program that hung has ended");
                drop(room);
                // A job-processor that came too late for its run is known to nobody else. One that has the run is found by its log.
                if let Some((_, pidfd)) = ended.ok().and_then(|ended| copy(&ended))
                    && seqpacket::wait_readable(&pidfd, LATE_MAX).unwrap_or(false)
                {
                    let _ = wait::reap_held(&pidfd);
                }
            };
            std::thread::Builder::new().name("hangs".to_owned()).spawn(wait)?;
            let what = format!("it did not answer within {} s (process {pid})", time.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, what))
        }
    }
}

/// The copy that job-processor told of, if it is our child: nobody else reaps it, so that the descriptor is its own.
fn copy(ended: &Ended) -> Option<(u32, Pidfd)> {
    let pid: u32 = ended.told.parse().ok()?;
    let pidfd = Pidfd::open(pid).ok()??;
    let parent = procfs::stat(pid).ok()??.ppid;
    (parent == std::process::id()).then_some((pid, pidfd))
}

fn no_room() -> io::Error {
    let what = format!("{HELPERS_MAX} that were started before it have not ended");
    io::Error::new(io::ErrorKind::WouldBlock, what)
}

impl Launcher {
    /// job-processor with the rights that it has here; only the arguments are missing.
    pub(crate) fn job_processor(&self) -> Command {
        let mut command = match self.users.switch {
            UserSwitch::None | UserSwitch::Root | UserSwitch::Setuid => Command::new(&self.program),
            UserSwitch::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["-n", "--"]).arg(&self.program).arg("--sudo");
                os::process::in_new_session(&mut command); // it would look for a terminal
                command
            }
        };
        // An agent that is root may itself have been started through sudo: whoever that was for, it is not for him.
        command.env_remove("SUDO_UID").env_remove("SUDO_GID");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Asks sudo for the job-processor of a run. Reports [`Event::Relaunched`].
    pub(crate) fn ask_sudo(&self, disk: &Disk, run_id: RunId, user: Option<String>) {
        let (launcher, disk) = (self.clone(), disk.clone());
        tokio::spawn(async move {
            // Waited for here, so that there are always threads for the disk.
            let room = tokio::time::timeout(SUDO_MAX, launcher.helpers.0.clone().acquire_owned()).await;
            disk.spawn(move |disk| {
                let Ok(Ok(room)) = room else {
                    return Event::Relaunched(run_id, Err(NotLaunched::NotNow(no_room())));
                };
                let mut command = launcher.own_command(disk, run_id, user.as_deref());
                let line = || spool::users::sudoers_line(os::process::effective_uid(), &launcher.program);
                let asked = run(&mut command, SUDO_MAX, room);
                match asked.as_ref() {
                    Ok(Ended { status, said, .. }) if status.success() => {
                        tracing::debug!(run = %run_id, "sudo says: {said}")
                    }
                    Ok(Ended { status, said, .. }) => {
                        tracing::warn!(run = %run_id, %status, "sudo says: {said}")
                    }
                    Err(e) => tracing::warn!(run = %run_id, "sudo: {e}"),
                }
                let begun = judge(asked, line).map(|ended| match copy(&ended) {
                    Some((pid, pidfd)) => JobProcessor::Child(pid, pidfd),
                    None => JobProcessor::Apart,
                });
                Event::Relaunched(run_id, begun.map(Launched::with))
            });
        });
    }
}

/// `Ok`: a job-processor may have the run. `line` says what must be in sudoers, and may ask the host's databases for it.
fn judge(asked: io::Result<Ended>, line: impl FnOnce() -> String) -> Result<Ended, NotLaunched> {
    let refused = |what: String| {
        Err(NotLaunched::Refused(format!("job-processor could not be started as root: {what}")))
    };
    match asked {
        Ok(ended) => {
            let Some(code) = ended.status.code().filter(|code| *code != 0) else { return Ok(ended) };
            let said: String = ended.said.chars().take(SAID_CHARS_MAX).collect();
            refused(format!(
                "sudo ended with {code} and says \"{said}\"; in sudoers there must be: {}; platform-agent --check as that user says more",
                line()
            ))
        }
        Err(e) if e.kind() == io::ErrorKind::TimedOut => refused(format!(
            "sudo hangs: {e}; look what it waits for (name servers, directory services), or set another [users] switch"
        )),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            refused(format!("sudo cannot be executed: {e}; install it, or set another [users] switch"))
        }
        Err(e) => Err(NotLaunched::NotNow(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn only_what_nobody_has_started_is_refused_and_sudo_itself_says_why() {
        let judged = |wait_status: i32, said: &str| {
            let status = ExitStatus::from_raw(wait_status);
            let ended = Ended { status, told: String::new(), said: said.to_owned() };
            let judged = judge(Ok(ended), || "ann ALL=(root) NOPASSWD: /p".to_owned());
            judged.map(drop).map_err(|e| e.to_string())
        };
        for (wait_status, said) in [(0, ""), (0, "sudo: unable to resolve host"), (9, ""), (15, "Terminated")]
        {
            assert_eq!(judged(wait_status, said), Ok(()), "the log tells");
        }
        let refused = judged(1 << 8, &"sudo: a password is required ".repeat(100)).unwrap_err();
        assert!(refused.contains("ended with 1 and says \"sudo: a password is required"), "{refused}");
        assert!(refused.contains("NOPASSWD: /p;") && refused.chars().count() < 800, "{refused}");
    }

    #[test]
    fn what_is_not_sudos_word_is_tried_again() {
        let judged = |kind: io::ErrorKind| judge(Err(kind.into()), String::new);
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied, io::ErrorKind::TimedOut] {
            assert!(matches!(judged(kind), Err(NotLaunched::Refused(_))), "{kind}");
        }
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::OutOfMemory] {
            assert!(matches!(judged(kind), Err(NotLaunched::NotNow(_))), "{kind}");
        }
    }

    #[test]
    fn helpers_that_hang_take_all_room_until_they_have_ended() {
        let (helpers, none) = (Helpers::default(), Duration::ZERO);
        let dir = tempfile::tempdir().unwrap();
        let go = dir.path().join("go");
        let mut waits = Command::new("/bin/sh");
        waits.args(["-c", &format!("while [ ! -e {} ]; do sleep 0.01; done", go.display())]);
        for _ in 0..HELPERS_MAX {
            assert_eq!(helpers.run(&mut waits, none).unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        let mut quick = Command::new("/bin/true");
        assert_eq!(helpers.run(&mut quick, none).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        std::fs::write(&go, "").unwrap();
        assert!(helpers.run(&mut quick, Duration::from_secs(60)).unwrap().status.success());
    }

    #[test]
    fn only_a_child_of_ours_is_taken_for_the_copy() {
        let told = |told: &str| Ended {
            status: ExitStatus::from_raw(0),
            told: told.to_owned(),
            said: String::new(),
        };
        let mut child = Command::new("/bin/true").spawn().unwrap();
        assert_eq!(copy(&told(&child.id().to_string())).map(|(pid, _)| pid), Some(child.id()));
        child.wait().unwrap();
        for strange in [String::new(), "1".to_owned(), child.id().to_string(), std::process::id().to_string()]
        {
            assert!(copy(&told(&strange)).is_none(), "{strange}");
        }
    }
}

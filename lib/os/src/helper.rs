//! A program that is asked for something and has a time for it: how it ended, and what it complained of.

use crate::pidfd::Pidfd;
use crate::process::memory_file;
use crate::seqpacket::wait_readable;
use std::io::{self, Read, Seek};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// So much of what it says on standard error is kept, bytes.
const SAID_BYTES_MAX: u64 = 2_000;

/// What became of it.
#[derive(Debug)]
pub enum Helped {
    /// It ended.
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said on standard error, for people.
        said: String,
    },
    /// It has not ended. It was left alone: it may not be ours to kill.
    Hangs(Child),
}

/// Runs the program for as long as it takes, but not longer than `time`. What it says goes into a file in memory: a pipe would stay open as
/// long as anybody has it whom the program left behind.
pub fn run(command: &mut Command, time: Duration) -> io::Result<Helped> {
    let mut words = memory_file("stderr")?;
    let mut child = command.stderr(words.try_clone()?).spawn()?;
    // Nobody but us reaps it, so the pid is surely still its own.
    let pidfd = Pidfd::open(child.id())?.ok_or(io::ErrorKind::NotFound)?;
    if !wait_readable(&pidfd, time)? {
        return Ok(Helped::Hangs(child));
    }
    let status = child.wait()?;
    let mut said = Vec::new();
    words.rewind()?;
    words.take(SAID_BYTES_MAX).read_to_end(&mut said)?;
    Ok(Helped::Ended { status, said: String::from_utf8_lossy(&said).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(text: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn what_a_helper_complained_of_is_kept_even_if_somebody_keeps_its_standard_error() {
        let mut command = shell("sleep 600 & echo $! >&2; echo not now >&2; exit 3");
        let Helped::Ended { status, said } = run(&mut command, LONG).unwrap() else { panic!("it ended") };
        let (pid, words) = said.split_once('\n').unwrap();
        let left = Pidfd::open(pid.parse().unwrap()).unwrap().unwrap();
        left.signal(crate::signal::Signal::KILL).unwrap();
        assert_eq!((status.code(), words), (Some(3), "not now"));
        let mut command = shell("head -c 100000 /dev/zero | tr '\\0' x >&2");
        let Helped::Ended { status, said } = run(&mut command, LONG).unwrap() else { panic!("it ended") };
        assert_eq!((status.success(), said.len()), (true, 2000));
    }

    #[test]
    fn a_helper_that_hangs_is_given_back_as_it_is() {
        let Helped::Hangs(mut child) = run(&mut shell("exec sleep 600"), Duration::from_millis(1)).unwrap()
        else {
            panic!("it cannot have ended")
        };
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = run(&mut Command::new("/no/such/program"), LONG).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

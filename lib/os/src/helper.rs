//! A program that is asked for something and has a time for it: how it ended, what it told, and what it complained of.

use crate::pidfd::Pidfd;
use crate::process::memory_file;
use crate::seqpacket::wait_readable;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// So much of what it writes to each of its two outputs is kept, bytes.
const WORDS_BYTES_MAX: u64 = 2_000;

/// What became of it.
#[derive(Debug)]
pub enum Helped {
    /// It ended.
    Ended(Ended),
    /// It has not ended. It was left alone: it may not be ours to kill.
    Hangs(Hanging),
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// As it says itself.
    pub status: ExitStatus,
    /// Its standard output.
    pub told: String,
    /// Its standard error, for people.
    pub said: String,
}

/// A program whose time is over.
#[derive(Debug)]
pub struct Hanging {
    /// It.
    pub child: Child,
    words: [File; 2],
}

/// Runs the program for as long as it takes, but not longer than `time`. What it writes goes into files in memory: a pipe would stay open as
/// long as anybody has it whom the program left behind.
pub fn run(command: &mut Command, time: Duration) -> io::Result<Helped> {
    let words = [memory_file("stdout")?, memory_file("stderr")?];
    let child = command.stdout(words[0].try_clone()?).stderr(words[1].try_clone()?).spawn()?;
    // Nobody but us reaps it, so the pid is surely still its own.
    let pidfd = Pidfd::open(child.id())?.ok_or(io::ErrorKind::NotFound)?;
    let running = Hanging { child, words };
    match wait_readable(&pidfd, time)? {
        true => running.wait().map(Helped::Ended),
        false => Ok(Helped::Hangs(running)),
    }
}

impl Hanging {
    /// Waits until it has ended after all.
    pub fn wait(mut self) -> io::Result<Ended> {
        let status = self.child.wait()?;
        let [told, said] = self.words.map(|mut file| {
            let mut bytes = Vec::new();
            file.rewind()?;
            file.take(WORDS_BYTES_MAX).read_to_end(&mut bytes)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        });
        Ok(Ended { status, told: told?, said: said? })
    }
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
        let mut command = shell("sleep 600 & echo $! >&2; echo a word; echo not now >&2; exit 3");
        let Helped::Ended(ended) = run(&mut command, LONG).unwrap() else { panic!("it ended") };
        let Ended { status, told, said } = ended;
        let (pid, words) = said.split_once('\n').unwrap();
        let left = Pidfd::open(pid.parse().unwrap()).unwrap().unwrap();
        left.signal(crate::signal::Signal::KILL).unwrap();
        assert_eq!((status.code(), told.as_str(), words), (Some(3), "a word", "not now"));
        let mut command = shell("head -c 100000 /dev/zero | tr '\\0' x >&2");
        let Helped::Ended(ended) = run(&mut command, LONG).unwrap() else { panic!("it ended") };
        assert_eq!((ended.status.success(), ended.said.len()), (true, 2000));
    }

    #[test]
    fn a_helper_that_hangs_is_given_back_as_it_is_and_can_be_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let go = dir.path().join("go");
        let mut command = shell(&format!("while [ ! -e {} ]; do sleep 0.01; done; echo late", go.display()));
        let Helped::Hangs(mut hanging) = run(&mut command, Duration::from_millis(1)).unwrap() else {
            panic!("it cannot have ended")
        };
        assert!(hanging.child.try_wait().unwrap().is_none());
        std::fs::write(&go, "").unwrap();
        assert_eq!(hanging.wait().unwrap().told, "late");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = run(&mut Command::new("/no/such/program"), LONG).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

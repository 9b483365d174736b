//! Our end of the nursery: a job-processor that copies itself for every run (the head of `job-processor/src/nursery.rs` says why). Without it, or
//! if it does not answer, runs get job-processors that are started one by one: slower, and otherwise the same.

use crate::disk::THREADS_MAX;
use job::RunId;
use os::seqpacket::{self, Received};
use spool::nursery;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a nursery may take for an answer. One that takes longer is stopped or worse, and is given up.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// The present nursery, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Nursery {
    line: Mutex<Option<Arc<Line>>>,
}

/// The line to one nursery. Many threads ask at once and do not wait for each other; one of those that wait takes the answers for all.
#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    process: Mutex<Child>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<RunId, io::Result<u32>>,
    receiving: bool,
    broken: bool,
}

impl Nursery {
    /// The process id of the run's new job-processor, a child of this process. `command` starts a nursery if there is none. An error of kind
    /// `NotConnected`: there is no nursery to be had.
    pub(crate) fn job_processor(
        &self,
        run_id: RunId,
        user: Option<&str>,
        command: impl FnOnce() -> Command,
    ) -> io::Result<u32> {
        let question = nursery::ask(run_id, user.unwrap_or_default()).ok_or(io::ErrorKind::NotConnected)?;
        let line = self.line(command)?;
        line.ask(run_id, &question).inspect_err(|e| {
            if e.kind() == io::ErrorKind::NotConnected {
                self.give_up(&line);
            }
        })
    }

    /// Lets the next run begin with a new nursery.
    pub(crate) fn renew(&self) {
        *lock(&self.line) = None;
    }

    fn line(&self, command: impl FnOnce() -> Command) -> io::Result<Arc<Line>> {
        let mut present = lock(&self.line);
        if let Some(line) = present.as_ref() {
            return Ok(line.clone());
        }
        let line = Arc::new(Line::open(command())?);
        *present = Some(line.clone());
        Ok(line)
    }

    fn give_up(&self, broken: &Arc<Line>) {
        let mut present = lock(&self.line);
        if present.as_ref().is_some_and(|line| Arc::ptr_eq(line, broken)) {
            tracing::warn!("the nursery of job-processors does not answer; another one is started");
            *present = None;
        }
    }
}

impl Line {
    fn open(mut command: Command) -> io::Result<Line> {
        let (ours, theirs) = seqpacket::pair()?;
        let process = Mutex::new(command.stdin(theirs).spawn()?);
        Ok(Line { socket: ours, process, state: Mutex::default(), changed: Condvar::new() })
    }

    fn ask(&self, run_id: RunId, question: &[u8]) -> io::Result<u32> {
        if seqpacket::send(&self.socket, question, None).is_err() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let mut state = lock(&self.state);
        loop {
            if let Some(born) = state.answers.remove(&run_id) {
                return born;
            }
            if state.broken {
                return Err(io::ErrorKind::NotConnected.into());
            }
            if state.receiving {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.receiving = true;
            drop(state);
            let answer = self.receive();
            state = lock(&self.state);
            state.receiving = false;
            match answer {
                Some((run_id, born)) => drop(state.answers.insert(run_id, born)),
                None => state.broken = true,
            }
            debug_assert!(state.answers.len() <= THREADS_MAX, "an answer for each thread that asked");
            self.changed.notify_all();
        }
    }

    fn receive(&self) -> Option<(RunId, io::Result<u32>)> {
        if !seqpacket::wait_readable(&self.socket, ANSWER_MAX).unwrap_or(false) {
            return None;
        }
        match seqpacket::receive(&self.socket) {
            Ok(Received::Message(bytes, _)) => nursery::answered(&bytes),
            Ok(Received::Nothing | Received::Closed) | Err(_) => None,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut process = lock(&self.process);
        let _ = process.kill(); // it may be stopped; its copies are not it
        let _ = process.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

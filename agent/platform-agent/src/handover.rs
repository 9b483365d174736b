//! What one image of the monitor leaves to the next when it replaces itself by exec(2): the process, its children and its locks stay (a POSIX
//! record lock lives as long as its descriptor stays open in the process); what has to be said is which descriptor is what.
//!
//! A text in a file in memory, one line each:
//!
//! | line                                        | means                                                              |
//! |---------------------------------------------|--------------------------------------------------------------------|
//! | `lastword-monitor 1`                        | the version of this format; a newer one is refused before the exec |
//! | `lock FD`                                   | `agent.lock`, locked                                               |
//! | `listener FD`                               | `monitor.sock`                                                     |
//! | `network-processor PID FD`                  | it runs                                                            |
//! | `network-processor-due MS`                  | it is started then                                                 |
//! | `connection FD`                             | of somebody who hands over no job                                  |
//! | `connection FD RUN PID FD`                  | of a job-processor, with its job                                   |
//! | `orphan RUN PID FD DUE TRIES`               | a job without a job-processor; `DUE` is `-` while it runs          |
//! | `end`                                       | nothing is missing                                                 |

use crate::child::NetworkProcessor;
use crate::monitor::Connection;
use crate::witness::{Held, Orphan};
use anyhow::{Context, bail};
use job::RunId;
use os::pidfd::Pidfd;
use os::process::{memory_file, set_inherited, take_inherited};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The version of the format that this program writes, and the highest that it reads.
pub(crate) const VERSION: u32 = 1;
/// A state is not longer; a line is about 100 bytes and a monitor has at most some ten thousand jobs.
const STATE_BYTES_MAX: u64 = 64 << 20;

/// Everything that is handed over.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) lock: File,
    pub(crate) listener: OwnedFd,
    pub(crate) network_processor: NetworkProcessor,
    pub(crate) connections: Vec<Connection>,
    pub(crate) orphans: Vec<Orphan>,
}

/// Collects what is handed over.
pub(crate) struct Draft<'a> {
    text: String,
    descriptors: Vec<BorrowedFd<'a>>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        lock: &'a File,
        listener: &'a OwnedFd,
        network_processor: &'a NetworkProcessor,
    ) -> Draft<'a> {
        let mut draft = Draft { text: format!("lastword-monitor {VERSION}\n"), descriptors: Vec::new() };
        let (lock, listener) = (draft.pass(lock.as_fd()), draft.pass(listener.as_fd()));
        draft.text += &format!("lock {lock}\nlistener {listener}\n");
        let line = match network_processor {
            NetworkProcessor::Running { pid, pidfd } => {
                format!("network-processor {pid} {}\n", draft.pass(pidfd.as_fd()))
            }
            NetworkProcessor::Due(at_ms) => format!("network-processor-due {at_ms}\n"),
        };
        draft.text += &line;
        draft
    }

    pub(crate) fn connection(&mut self, connection: &'a Connection) {
        let socket = self.pass(connection.socket.as_fd());
        let line = match &connection.held {
            Some(Held { run_id, pid, pidfd }) => {
                format!("connection {socket} {run_id} {pid} {}\n", self.pass(pidfd.as_fd()))
            }
            None => format!("connection {socket}\n"),
        };
        self.text += &line;
    }

    pub(crate) fn orphan(&mut self, orphan: &'a Orphan) {
        let Held { run_id, pid, pidfd } = &orphan.held;
        let due = orphan.due_ms.map_or("-".to_owned(), |at_ms| at_ms.to_string());
        let pidfd = self.pass(pidfd.as_fd());
        self.text += &format!("orphan {run_id} {pid} {pidfd} {due} {}\n", orphan.tries());
    }

    /// Writes the state into a file in memory; everything that is passed stays open over the next exec.
    pub(crate) fn seal(mut self) -> anyhow::Result<Sealed<'a>> {
        self.text += "end\n";
        let mut file = memory_file("lastword-monitor").context("cannot make a file in memory")?;
        file.write_all(self.text.as_bytes()).context("cannot write the state")?;
        file.seek(SeekFrom::Start(0)).context("cannot rewind the state")?;
        let sealed = Sealed { file, descriptors: self.descriptors };
        sealed.keep(true).context("cannot keep the descriptors")?;
        Ok(sealed)
    }

    fn pass(&mut self, descriptor: BorrowedFd<'a>) -> i32 {
        self.descriptors.push(descriptor);
        descriptor.as_raw_fd()
    }
}

/// A state that is ready. Dropped (the exec failed), its descriptors are closed by the next exec again.
pub(crate) struct Sealed<'a> {
    file: File,
    descriptors: Vec<BorrowedFd<'a>>,
}

impl Sealed<'_> {
    /// The number of the descriptor of the state.
    pub(crate) fn number(&self) -> i32 {
        self.file.as_raw_fd()
    }

    fn keep(&self, inherited: bool) -> std::io::Result<()> {
        set_inherited(&self.file, inherited)?;
        self.descriptors.iter().try_for_each(|descriptor| set_inherited(descriptor, inherited))
    }
}

impl Drop for Sealed<'_> {
    fn drop(&mut self) {
        if let Err(e) = self.keep(false) {
            tracing::error!("children will inherit descriptors of the monitor: {e}");
        }
    }
}

/// Reads what the image before left behind that descriptor.
pub(crate) fn take(state: i32) -> anyhow::Result<Handover> {
    let file = File::from(take_inherited(state).context("the state's descriptor")?);
    let mut text = String::new();
    file.take(STATE_BYTES_MAX).read_to_string(&mut text).context("the state")?;
    parse(&text)
}

fn parse(text: &str) -> anyhow::Result<Handover> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    anyhow::ensure!(
        head == format!("lastword-monitor {VERSION}"),
        "the state begins with {head:?}, this program reads version {VERSION}"
    );
    let (mut lock, mut listener, mut network_processor, mut complete) = (None, None, None, false);
    let (mut connections, mut orphans) = (Vec::new(), Vec::new());
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["lock", fd] => lock = Some(File::from(descriptor(fd)?)),
            ["listener", fd] => listener = Some(descriptor(fd)?),
            ["network-processor", pid, fd] => {
                let pidfd = Pidfd::from_fd(descriptor(fd)?);
                network_processor = Some(NetworkProcessor::Running { pid: pid.parse()?, pidfd });
            }
            ["network-processor-due", at_ms] => {
                network_processor = Some(NetworkProcessor::Due(at_ms.parse()?))
            }
            ["connection", fd] => connections.push(Connection { socket: descriptor(fd)?, held: None }),
            ["connection", fd, run, pid, pidfd] => {
                let held = Some(held(run, pid, pidfd)?);
                connections.push(Connection { socket: descriptor(fd)?, held });
            }
            ["orphan", run, pid, pidfd, due, tries] => {
                let due_ms = if *due == "-" { None } else { Some(due.parse()?) };
                orphans.push(Orphan::taken_over(held(run, pid, pidfd)?, due_ms, tries.parse()?));
            }
            ["end"] => complete = true,
            _ => bail!("the state has a line that is not known here: {line:?}"),
        }
    }
    anyhow::ensure!(complete, "the state has no end");
    Ok(Handover {
        lock: lock.context("the state has no lock")?,
        listener: listener.context("the state has no listener")?,
        network_processor: network_processor.context("the state has no network-processor")?,
        connections,
        orphans,
    })
}

fn descriptor(text: &str) -> anyhow::Result<OwnedFd> {
    take_inherited(text.parse()?).with_context(|| format!("descriptor {text}"))
}

fn held(run: &str, pid: &str, pidfd: &str) -> anyhow::Result<Held> {
    let run_id: RunId = run.parse()?;
    Ok(Held { run_id, pid: pid.parse()?, pidfd: Pidfd::from_fd(descriptor(pidfd)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    fn number(fd: impl Into<OwnedFd>) -> i32 {
        fd.into().into_raw_fd()
    }

    fn file() -> File {
        memory_file("test").unwrap()
    }

    #[test]
    fn what_is_handed_over_is_taken_over() {
        let us = || Pidfd::open(std::process::id()).unwrap().unwrap();
        let held = |n| Held { run_id: RunId::new(n, 1), pid: 77, pidfd: us() };
        let (lock, listener) = (file(), OwnedFd::from(file()));
        let running = NetworkProcessor::Running { pid: 5, pidfd: us() };
        let connections = [
            Connection { socket: file().into(), held: None },
            Connection { socket: file().into(), held: Some(held(1)) },
        ];
        let orphan = Orphan::taken_over(held(2), Some(9), 3);
        let mut draft = Draft::new(&lock, &listener, &running);
        connections.iter().for_each(|connection| draft.connection(connection));
        draft.orphan(&orphan);
        let text = draft.text.clone() + "end\n";
        // As after an exec: the numbers are all there is.
        drop(draft);
        for owned in [number(lock), number(listener)] {
            assert!(owned > 2);
        }
        std::mem::forget((running, connections, orphan));
        let taken = parse(&text).unwrap();
        assert!(matches!(taken.network_processor, NetworkProcessor::Running { pid: 5, .. }));
        assert_eq!(taken.connections.len(), 2);
        assert_eq!(taken.connections[1].held.as_ref().unwrap().run_id, RunId::new(1, 1));
        assert_eq!(
            (taken.orphans[0].held.pid, taken.orphans[0].due_ms, taken.orphans[0].tries()),
            (77, Some(9), 3)
        );
    }

    #[test]
    fn a_state_that_is_newer_or_not_whole_is_refused() {
        let refused = |text: &str, why: &str| {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused("lastword-monitor 2\nend\n", "reads version 1");
        refused("", "reads version 1");
        refused("lastword-monitor 1\n", "no end");
        refused("lastword-monitor 1\nlater 1\nend\n", "not known here");
        refused("lastword-monitor 1\nlock 2\nend\n", "descriptor 2");
        refused("lastword-monitor 1\nend\n", "no lock");
    }
}

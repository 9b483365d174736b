//! What the monitor waits for: descriptors with a meaning, by epoll(7).

use job::RunId;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What a descriptor means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Watched {
    /// Signals.
    Signals,
    /// The listening socket.
    Listener,
    /// The network-processor's end.
    NetworkProcessor,
    /// A connection of a job-processor or of the network-processor.
    Connection(u64),
    /// The end of an orphaned job.
    Orphan(RunId),
}

/// The set of watched descriptors.
#[derive(Debug)]
pub(crate) struct Watch {
    epoll: OwnedFd,
    next: u64,
    meanings: HashMap<u64, Watched>,
    numbers: HashMap<Watched, u64>,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Watch> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Watch { epoll, next: 0, meanings: HashMap::new(), numbers: HashMap::new() })
    }

    pub(crate) fn add(&mut self, fd: impl AsFd, meaning: Watched) -> io::Result<()> {
        let number = self.next;
        epoll::add(&self.epoll, fd, EventData::new_u64(number), EventFlags::IN)?;
        self.next += 1;
        self.meanings.insert(number, meaning);
        self.numbers.insert(meaning, number);
        Ok(())
    }

    /// Call it before the descriptor is closed.
    pub(crate) fn remove(&mut self, fd: impl AsFd, meaning: Watched) {
        if let Some(number) = self.numbers.remove(&meaning) {
            self.meanings.remove(&number);
            let _ = epoll::delete(&self.epoll, fd); // fails only if it is not there, which is what is wanted
        }
    }

    /// Waits for something or until the time is over.
    pub(crate) fn wait(&self, timeout_ms: Option<u64>) -> io::Result<Vec<Watched>> {
        let timeout = timeout_ms.map(|ms| {
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            rustix::time::Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
        });
        let mut events = Vec::with_capacity(64);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(events.iter().filter_map(|event| self.meanings.get(&event.data.u64()).copied()).collect())
    }
}

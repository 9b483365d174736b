//! Lines to stderr by a thread of their own: a terminal that is stopped, or a pipe that nobody reads, holds up the thread and
//! not the program. What does not fit into its queue is dropped.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait for the terminal.
const QUEUED_LINES_MAX: usize = 1024;

/// How long the end of the program waits for the last lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Terminal {
    queue: SyncSender<Item>,
}

enum Item {
    Line(Vec<u8>),
    /// Everything before it was written.
    Flushed(SyncSender<()>),
}

impl Terminal {
    pub(crate) fn start() -> Terminal {
        let (queue, items) = sync_channel(QUEUED_LINES_MAX);
        // Without a thread the queue is closed and every line is dropped: best effort.
        drop(std::thread::Builder::new().name("trace-stderr".to_owned()).spawn(move || write_all(&items)));
        Terminal { queue }
    }

    pub(crate) fn write_line(&self, line: Vec<u8>) {
        drop(self.queue.try_send(Item::Line(line)));
    }

    pub(crate) fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        if self.queue.try_send(Item::Flushed(done)).is_ok() {
            let _ = flushed.recv_timeout(FLUSH_MAX);
        }
    }
}

fn write_all(items: &Receiver<Item>) {
    for item in items {
        match item {
            Item::Line(line) => drop(std::io::stderr().write_all(&line)),
            Item::Flushed(done) => drop(done.try_send(())),
        }
    }
}

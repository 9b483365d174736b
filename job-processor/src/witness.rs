//! The connection to the monitor, who holds the job's pidfd and records the end if this process cannot. Best effort: without a monitor the job
//! runs all the same, and a new monitor is found within seconds, as a rule at once.

use job::RunId;
use os::pidfd::Pidfd;
use os::seqpacket;
use spool::monitor::Request;
use spool::{DataRoot, MONITOR_SOCKET};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Between the first two tries to reach a monitor, milliseconds; it doubles up to the longest.
const AGAIN_MS_MIN: u64 = 100;
const AGAIN_MS_MAX: u64 = 3_000;

/// The link to the monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    root: DataRoot,
    hold: Request,
    run_id: RunId,
    connection: Option<OwnedFd>,
    again_at_ms: u64,
    pause_ms: u64,
}

impl Monitor {
    /// Hands the pidfd over, if a monitor is there.
    pub(crate) fn introduce(root: DataRoot, run_id: RunId, pid: u32, pidfd: &Pidfd, now_ms: u64) -> Monitor {
        let hold = Request::Hold { run_id, pid };
        let mut monitor =
            Monitor { root, hold, run_id, connection: None, again_at_ms: now_ms, pause_ms: AGAIN_MS_MIN };
        monitor.reconnect(pidfd, now_ms);
        monitor
    }

    /// Tries again if there is no connection and it is time.
    pub(crate) fn reconnect(&mut self, pidfd: &Pidfd, now_ms: u64) {
        if self.connection.is_some() || now_ms < self.again_at_ms {
            return;
        }
        let connected = seqpacket::connect(self.root.path(), MONITOR_SOCKET);
        let told = connected.and_then(|socket| {
            seqpacket::send(&socket, &self.hold.encode(), Some(pidfd.as_fd()))?;
            Ok(socket)
        });
        self.connection = told.ok(); // an absent monitor is no error of this run
        if self.connection.is_some() {
            self.pause_ms = AGAIN_MS_MIN;
        } else {
            self.again_at_ms = now_ms.saturating_add(self.pause_ms);
            self.pause_ms = AGAIN_MS_MAX.min(self.pause_ms * 2);
        }
    }

    /// The monitor went away.
    pub(crate) fn on_closed(&mut self, now_ms: u64) {
        self.connection = None;
        self.again_at_ms = now_ms.saturating_add(AGAIN_MS_MIN);
    }

    /// The outcome is on disk: no witness is needed any more.
    pub(crate) fn done(&self) {
        if let Some(connection) = &self.connection {
            let _ = seqpacket::send(connection, &Request::Done { run_id: self.run_id }.encode(), None);
        }
    }

    /// What to poll for the monitor's end.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    /// When to try again, `CLOCK_BOOTTIME` milliseconds.
    pub(crate) fn next_tick_ms(&self) -> Option<u64> {
        self.connection.is_none().then_some(self.again_at_ms)
    }
}

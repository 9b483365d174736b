//! The identity file beside the event loop: the loop has the values, and threads for the disk write them, so that a slow disk keeps no heartbeat.
//!
//! Two rules hold whichever write is first: a fence is never lowered, and what says up to when runs were removed is on disk, and seen by
//! everybody, before the first of them is removed.

use job::AgentId;
use spool::Fence;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the loop knows.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) agent_id: AgentId,
    pub(crate) incarnation: u64,
    pub(crate) fence: Fence,
    pub(crate) acked: ([u8; 16], u64),
    /// `acked` changed and is not on disk.
    pub(crate) dirty: bool,
    pub(crate) file: IdentityFile,
}

/// The file, for whoever writes it.
#[derive(Clone, Debug)]
pub(crate) struct IdentityFile {
    file: Arc<Mutex<spool::Identity>>,
    expired_ms: Arc<AtomicU64>,
}

impl Identity {
    pub(crate) fn new(identity: spool::Identity) -> Identity {
        let expired_ms = Arc::new(AtomicU64::new(identity.expired_ms));
        Identity {
            agent_id: identity.agent_id,
            incarnation: identity.incarnation,
            fence: identity.fence,
            acked: identity.acked,
            dirty: false,
            file: IdentityFile { file: Arc::new(Mutex::new(identity)), expired_ms },
        }
    }
}

impl IdentityFile {
    /// Of a run that was made then or before nobody can tell any more whether it ran here. Ask after its directory was looked for.
    pub(crate) fn expired_ms(&self) -> u64 {
        self.expired_ms.load(Ordering::SeqCst)
    }

    /// Writes down what was last acknowledged.
    pub(crate) fn save_acked(&self, acked: ([u8; 16], u64)) -> io::Result<()> {
        self.write(|identity| identity.acked = acked)
    }

    /// Raises the fence durably; an error if a higher one was raised meanwhile.
    pub(crate) fn raise(&self, fence: Fence) -> io::Result<()> {
        let mut identity = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if !identity.fence.admits(&fence) {
            return Err(io::Error::other("a server of a later epoch was admitted meanwhile"));
        }
        identity.raise(fence)
    }

    /// Writes down that runs made up to then may be removed, and only then makes it known.
    pub(crate) fn expire(&self, latest_ms: u64) -> io::Result<()> {
        if latest_ms > self.expired_ms() {
            self.write(|identity| identity.expired_ms = identity.expired_ms.max(latest_ms))?;
            self.expired_ms.fetch_max(latest_ms, Ordering::SeqCst);
        }
        Ok(())
    }

    fn write(&self, change: impl FnOnce(&mut spool::Identity)) -> io::Result<()> {
        let mut identity = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut identity);
        identity.save()
    }
}

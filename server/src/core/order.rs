//! On whose behalf a command is given, and under which conditions.
//!
//! The interface wraps the handling of each request in [`Order::during`]. Every command that is given meanwhile carries the order to the core
//! by itself: no handler has to pass it on, so none can forget it, and what it changes is audited in the transaction of the change.

use crate::auth::Caller;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A request that may change something.
#[derive(Debug, Default)]
pub struct Order {
    /// Who gave it.
    pub caller: Caller,
    /// The address it came from.
    pub from: String,
    /// The program it came by, as it calls itself.
    pub via: String,
    /// Why, in the words of whoever gave it.
    pub reason: Option<String>,
    /// Only if the object is still one of these versions (`If-Match`).
    pub if_match: Option<Vec<String>>,
    /// Only once.
    pub once: Option<Once>,
    parts: AtomicU32,
    repeated: AtomicBool,
    checked: AtomicBool,
    on_record: AtomicBool,
}

/// What makes a second order the same as the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The caller's own key.
    pub key: String,
    /// SHA-256 of the request: another request under the same key is an error.
    pub digest: [u8; 32],
}

tokio::task_local! {
    static ORDER: Arc<Order>;
}

impl Order {
    /// An order of this caller, from that address, by that program.
    pub fn new(caller: Caller, from: String, via: String) -> Order {
        Order { caller, from, via, ..Order::default() }
    }

    /// Handles a request: its commands are given by this order.
    pub async fn during<F: Future>(self: Arc<Order>, handling: F) -> F::Output {
        ORDER.scope(self, handling).await
    }

    /// The order that is being handled by this task; none if the server acts by itself.
    pub(crate) fn present() -> Option<Arc<Order>> {
        ORDER.try_with(Arc::clone).ok()
    }

    /// The number of the next command of this order, from 0.
    pub(super) fn next_part(&self) -> u32 {
        self.parts.fetch_add(1, Ordering::Relaxed)
    }

    /// The first of its commands had been carried out before, by an earlier order with its key.
    pub(crate) fn on_repeated(&self) {
        self.repeated.store(true, Ordering::Relaxed);
    }

    /// One of its commands is in the audit.
    pub(super) fn on_record(&self) {
        self.on_record.store(true, Ordering::Relaxed);
    }

    /// Whether the audit has something of it.
    pub(crate) fn is_on_record(&self) -> bool {
        self.on_record.load(Ordering::Relaxed)
    }

    /// Whether the version was not checked yet; it is from now on.
    pub(super) fn is_first_check(&self) -> bool {
        !self.checked.swap(true, Ordering::Relaxed)
    }

    /// Whether the answer is that of an earlier order with the same key.
    pub fn is_repeated(&self) -> bool {
        self.repeated.load(Ordering::Relaxed)
    }
}

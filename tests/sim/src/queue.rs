//! The clock and what is going to happen: the earliest first, of one moment the one that was planned first.

use std::collections::BTreeMap;

/// Simulated milliseconds since the beginning.
pub(crate) type Ms = u64;

/// Planned events.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    now_ms: Ms,
    planned: u64,
    events: BTreeMap<(Ms, u64), E>,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Queue<E> {
        Queue { now_ms: 0, planned: 0, events: BTreeMap::new() }
    }

    pub(crate) fn now_ms(&self) -> Ms {
        self.now_ms
    }

    /// Plans an event; one for the past happens now.
    pub(crate) fn at(&mut self, at_ms: Ms, event: E) {
        self.planned += 1;
        self.events.insert((at_ms.max(self.now_ms), self.planned), event);
    }

    pub(crate) fn after(&mut self, delay_ms: Ms, event: E) {
        self.at(self.now_ms + delay_ms, event);
    }

    /// The next event; the clock goes to its moment.
    pub(crate) fn next(&mut self) -> Option<E> {
        let ((at_ms, _), event) = self.events.pop_first()?;
        self.now_ms = at_ms;
        Some(event)
    }
}

//! How much output may be on its way at once.
//!
//! The window follows the delay that we ourselves cause, in the manner of LEDBAT (RFC 6817): each receipt tells how long its piece was on the
//! way; the shortest that was ever seen is the way itself, and what is above it is a queue. While the queue is shorter than
//! [`TRANSIT_DELAY_MS`] the window grows by what arrives, beyond that it shrinks alike, never out of its bounds. So a slow line holds little
//! of ours at a time, and a long one can still be filled.

use super::{StreamError, TRANSIT_BYTES_MAX, TRANSIT_BYTES_MIN, TRANSIT_DELAY_MS};
use std::collections::VecDeque;

/// Moments that are remembered of what is on its way; beyond that they are counted to the last one.
const MARKS_MAX: usize = 1024;

/// The way of one connection, as the agent sees it.
#[derive(Debug)]
pub struct Pace {
    window: u64,
    sent: u64,
    received: u64,
    /// How much had been sent at which time, oldest first.
    marks: VecDeque<(u64, u64)>,
    shortest_ms: Option<u64>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { window: TRANSIT_BYTES_MIN, sent: 0, received: 0, marks: VecDeque::new(), shortest_ms: None }
    }
}

impl Pace {
    /// How many bytes may be sent now.
    pub fn room(&self) -> u64 {
        self.window.saturating_sub(self.in_transit())
    }

    /// How many bytes are on their way.
    pub fn in_transit(&self) -> u64 {
        self.sent - self.received
    }

    /// So many bytes are sent now.
    pub fn on_sent(&mut self, now_ms: u64, bytes: u64) {
        self.sent += bytes;
        let full = self.marks.len() >= MARKS_MAX;
        match self.marks.back_mut() {
            Some((sent, at_ms)) if *at_ms == now_ms || full => *sent = self.sent,
            Some(_) | None => self.marks.push_back((self.sent, now_ms)),
        }
    }

    /// The peer has received so many bytes in all.
    pub fn on_receipt(&mut self, now_ms: u64, received: u64) -> Result<(), StreamError> {
        if received > self.sent {
            return Err(StreamError::ReceivedTooMuch { received, sent: self.sent });
        }
        let arrived = received.saturating_sub(self.received);
        let was_full = self.in_transit() >= self.window / 2;
        self.received += arrived;
        let mut took_ms = None;
        while let Some((sent, at_ms)) = self.marks.front().copied().filter(|(sent, _)| *sent <= received) {
            took_ms = Some(now_ms.saturating_sub(at_ms));
            debug_assert!(sent <= self.sent);
            self.marks.pop_front();
        }
        if let Some(took_ms) = took_ms {
            self.adapt(took_ms, arrived, was_full);
        }
        Ok(())
    }

    fn adapt(&mut self, took_ms: u64, arrived: u64, was_full: bool) {
        let shortest_ms = self.shortest_ms.map_or(took_ms, |shortest| shortest.min(took_ms));
        self.shortest_ms = Some(shortest_ms);
        let queued_ms = took_ms - shortest_ms;
        // A window that was not used says nothing about a greater one.
        let grown = match queued_ms.checked_sub(TRANSIT_DELAY_MS) {
            None if was_full => self.window + arrived * (TRANSIT_DELAY_MS - queued_ms) / TRANSIT_DELAY_MS,
            None => self.window,
            Some(over_ms) => {
                let less = arrived.saturating_mul(over_ms.min(TRANSIT_DELAY_MS)) / TRANSIT_DELAY_MS;
                self.window.saturating_sub(less)
            }
        };
        self.window = grown.clamp(TRANSIT_BYTES_MIN, TRANSIT_BYTES_MAX);
    }
}

//! The server's end of one stream: keeps the agent to its credit and its order, and says when to grant more.

use super::{PIECE_BYTES_MAX, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
use crate::message::StreamPiece;

/// The other side broke the rules of streams: the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// More than the credit.
    #[error("a stream got {received} bytes, {granted} were granted")]
    BeyondCredit {
        /// With this piece.
        received: u64,
        /// All grants.
        granted: u64,
    },
    /// More than one piece may have.
    #[error("a piece of a stream has {bytes} bytes, {PIECE_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Nothing, and not at the beginning.
    #[error("a piece of a stream is empty")]
    Empty,
    /// Not where the last one ended.
    #[error("a piece of a stream begins at byte {offset}, byte {due} was due")]
    OutOfOrder {
        /// Where it begins.
        offset: u64,
        /// Where it had to.
        due: u64,
    },
    /// More than was sent.
    #[error("the receipt of {received} bytes of output came, {sent} were sent")]
    ReceivedTooMuch {
        /// What the receipt says.
        received: u64,
        /// What was sent.
        sent: u64,
    },
}

/// One stream, as the server sees it. Nothing of it is kept here but numbers; pieces go straight to the reader's queue, which is bounded by
/// the credit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    window: u64,
    granted: u64,
    received: u64,
    taken: u64,
    /// When the window was last widened.
    taken_then: u64,
    /// Where the next piece begins.
    due: Option<u64>,
}

impl Default for Sink {
    fn default() -> Sink {
        Sink {
            window: WINDOW_BYTES_MIN,
            granted: WINDOW_BYTES_MIN,
            received: 0,
            taken: 0,
            taken_then: 0,
            due: None,
        }
    }
}

impl Sink {
    /// All that was granted since the opening.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// What the reader may have waiting.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// A piece came.
    pub fn on_piece(&mut self, piece: &StreamPiece) -> Result<(), StreamError> {
        let (bytes, offset) = (piece.data.len(), piece.offset.unwrap_or(0));
        if bytes > PIECE_BYTES_MAX {
            return Err(StreamError::TooLong { bytes });
        }
        let skips = |due| piece.gap().is_some_and(|gap| gap.contains(&due) && gap.end == offset);
        if let Some(due) = self.due.filter(|due| *due != offset && !skips(*due)) {
            return Err(StreamError::OutOfOrder { offset, due });
        }
        if bytes == 0 && self.due.is_some() {
            return Err(StreamError::Empty);
        }
        let received = self.received + bytes as u64;
        if received > self.granted {
            return Err(StreamError::BeyondCredit { received, granted: self.granted });
        }
        self.received = received;
        self.due = Some(offset.saturating_add(bytes as u64));
        Ok(())
    }

    /// The reader took so many bytes. Gives what is to be granted now, if it is worth a frame.
    pub fn on_taken(&mut self, bytes: u64) -> Option<u64> {
        self.taken = (self.taken + bytes).min(self.received);
        let granted = self.taken + self.window;
        if granted - self.granted < self.window / 2 {
            return None;
        }
        self.granted = granted;
        Some(granted)
    }

    /// Whether the reader is so quick that more credit would help: it took a whole window since the last time.
    pub fn wants_more(&self) -> bool {
        self.window < WINDOW_BYTES_MAX && self.taken - self.taken_then >= self.window
    }

    /// Doubles the window: whoever calls has as much room for it as [`Sink::window`] says before.
    pub fn widen(&mut self) {
        self.window = (self.window * 2).min(WINDOW_BYTES_MAX);
        self.taken_then = self.taken;
    }
}

//! Streams of output: a server reads files of an agent's runs, many at a time, over the connection on which statuses travel.
//!
//! ```text
//! server                                            agent
//!   StreamOpen (run, file, offset, follow, credit) ──▶
//!   ◀── StreamPiece … StreamPiece                        never more than the credit, never more than PIECE_BYTES_MAX at once
//!   StreamReceipt ──▶                                    at arrival: what is on its way is bounded for all streams together
//!   StreamGrant ──▶                                      when the reader took bytes: what waits is bounded for each
//!   ◀── StreamEnd                                        behind the last piece; or StreamCancel ──▶ at any time
//! ```
//!
//! Two limits, because they are for two things. **Credit** ([`Sink`]) bounds what one stream may have unread at the server: a reader that is
//! slow stalls its own stream and no other. **Transit** ([`Pace`]) bounds what all streams have on the way between the two programs, buffers of
//! the kernel and of every box between them included: a status that is sent behind it waits for no more than that. The agent takes its turns
//! stream by stream ([`Sources`]), so that many streams share the connection fairly.
//!
//! Who follows is sent what is written until the run is complete; what a program of the agent traces never is. An agent without streams does
//! nothing at all.

mod pace;
mod sink;
mod source;
#[cfg(test)]
mod tests;

pub use pace::Pace;
pub use sink::{Sink, StreamError};
pub use source::{Found, Look, Opening, Sources, Subject, Wanted, Which};

/// Bytes in one piece: a status waits for no more than this where both wait for the same socket.
pub const PIECE_BYTES_MAX: usize = 32 << 10;
/// The credit with which a stream begins; also what a reader that takes nothing may have waiting.
pub const WINDOW_BYTES_MIN: u64 = 64 << 10;
/// The credit that a stream may grow to while its reader takes all that comes.
pub const WINDOW_BYTES_MAX: u64 = 1 << 20;
/// Streams of one connection.
pub const STREAMS_MAX: usize = 1024;
/// What all streams of a connection may always have on the way.
pub const TRANSIT_BYTES_MIN: u64 = 64 << 10;
/// What they may have on the way where that delays nothing.
pub const TRANSIT_BYTES_MAX: u64 = 1 << 20;
/// What is on the way may make the way so much longer, and then becomes less.
pub const TRANSIT_DELAY_MS: u64 = 20;
/// Between two looks at a file that does not grow: from the first to the longest, growing.
pub const LOOK_MS_MIN: u64 = 10;
/// The longest.
pub const LOOK_MS_MAX: u64 = 250;

//! Frames: how messages stand one behind the other in the byte stream.
//!
//! ```text
//! | u32 length of the rest | u16 kind | u8 flags | u8 zero | payload: a protobuf message |      all big-endian
//! ```
//!
//! Flags are written as 0 and not looked at. A kind that this version does not know is passed over as
//! [`Frame::Unknown`]: the session answers it politely and goes on. Everything else that is not as it must be ends the
//! connection, since nobody knows where the next frame would begin.

use crate::message::{
    Acks, AgentHello, AgentState, Answer, AuthHello, AuthProof, Facts, Goodbye, Kill, NoRecord, Ping, Pong,
    Query, Refused, Resume, ServerHello, Start, StreamCancel, StreamEnd, StreamGrant, StreamOpen,
    StreamPiece, StreamReceipt, Suspend, Unsupported,
};
use prost::Message;

/// The greatest length of a frame (the value of its length field) from a peer that has not proved itself.
pub const FRAME_BYTES_MAX_BEFORE_AUTH: usize = 4 << 10;
/// The greatest length of a frame (the value of its length field) from a peer that has proved itself.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// The length field.
pub const LENGTH_BYTES: usize = 4;
/// Kind, flags and the reserved byte: the part of the head that the length counts.
pub const HEAD_BYTES: usize = 4;

/// A buffer that grew beyond this for one big frame is given back as soon as it is empty.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

/// What goes first. Within a lane the order of sending is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Commands, statuses, acknowledgements, heartbeats.
    Urgent,
    /// Questions and their answers.
    Request,
    /// What jobs wrote.
    Output,
}

// The one table of capabilities: `since` is the protocol version that a peer must speak to be sent the frame, `in` its lane.
macro_rules! frames {
    ($($(#[$doc:meta])* $name:ident = $kind:literal as $constant:ident since $since:literal in $lane:ident,)*) => {
        /// The numbers of the kinds. A number is never used again for something else.
        pub mod kind {
            $($(#[$doc])* pub const $constant: u16 = $kind;)*
        }

        /// One frame.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Frame {
            $($(#[$doc])* $name($name),)*
            /// A kind of a newer version; its payload was passed over.
            Unknown {
                /// The number of the kind.
                kind: u16,
            },
        }

        impl Frame {
            /// The number of its kind.
            pub fn kind(&self) -> u16 {
                match self {
                    $(Frame::$name(_) => $kind,)*
                    Frame::Unknown { kind } => *kind,
                }
            }

            /// The name of its kind, for traces.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Frame::$name(_) => stringify!($name),)*
                    Frame::Unknown { .. } => "a kind of a newer version",
                }
            }

            /// The lane in which it travels.
            pub fn lane(&self) -> Lane {
                match self {
                    $(Frame::$name(_) => Lane::$lane,)*
                    Frame::Unknown { .. } => Lane::Urgent,
                }
            }

            fn payload_len(&self) -> usize {
                match self {
                    $(Frame::$name(message) => message.encoded_len(),)*
                    Frame::Unknown { .. } => 0,
                }
            }

            fn encode_payload(&self, out: &mut Vec<u8>) {
                match self {
                    $(Frame::$name(message) => message.encode_raw(out),)*
                    Frame::Unknown { .. } => {}
                }
            }

            fn decode_payload(kind: u16, payload: &[u8]) -> Result<Frame, FrameError> {
                match kind {
                    $($kind => match $name::decode(payload) {
                        Ok(message) => Ok(Frame::$name(message)),
                        Err(e) => Err(FrameError::Malformed { frame: stringify!($name), what: e.to_string() }),
                    },)*
                    kind => Ok(Frame::Unknown { kind }),
                }
            }
        }

        $(impl From<$name> for Frame {
            fn from(message: $name) -> Frame {
                Frame::$name(message)
            }
        })*

        /// The protocol version that a peer must speak to be sent a frame of this kind; `None`: we do not know the kind.
        pub fn since(kind: u16) -> Option<u32> {
            match kind {
                $($kind => Some($since),)*
                _ => None,
            }
        }

        #[cfg(test)]
        pub(crate) const KINDS: &[(&str, u16)] = &[$((stringify!($name), $kind),)*];
    };
}

frames! {
    /// Both ways, first: who speaks, which versions, a nonce.
    AuthHello = 1 as AUTH_HELLO since 1 in Urgent,
    /// Both ways, second: the proof of the shared secret.
    AuthProof = 2 as AUTH_PROOF since 1 in Urgent,
    /// Agent to server: its account of itself and its unsettled runs.
    AgentHello = 3 as AGENT_HELLO since 1 in Urgent,
    /// Server to agent: what the server has of them.
    ServerHello = 4 as SERVER_HELLO since 1 in Urgent,
    /// Server to agent: start a run.
    Start = 16 as START since 1 in Urgent,
    /// Server to agent: end a run.
    Kill = 17 as KILL since 1 in Urgent,
    /// Agent to server: durable messages of runs.
    Facts = 18 as FACTS since 1 in Urgent,
    /// Server to agent: what is committed.
    Acks = 19 as ACKS since 1 in Urgent,
    /// Agent to server: a run was not taken.
    Refused = 20 as REFUSED since 1 in Urgent,
    /// Agent to server: nothing is known of a run.
    NoRecord = 21 as NO_RECORD since 1 in Urgent,
    /// Agent to server: takes new runs, or no more.
    AgentState = 22 as AGENT_STATE since 1 in Urgent,
    /// Server to agent: let a run stand still.
    Suspend = 23 as SUSPEND since 2 in Urgent,
    /// Server to agent: let a run go on.
    Resume = 24 as RESUME since 2 in Urgent,
    /// Server to agent: a question about a run.
    Query = 32 as QUERY since 1 in Request,
    /// Agent to server: the answer.
    Answer = 33 as ANSWER since 1 in Request,
    /// Server to agent: send an output file, as far as there is credit.
    StreamOpen = 36 as STREAM_OPEN since 2 in Request,
    /// Server to agent: more credit for a stream.
    StreamGrant = 37 as STREAM_GRANT since 2 in Request,
    /// Server to agent: nobody reads a stream any more.
    StreamCancel = 38 as STREAM_CANCEL since 2 in Request,
    /// Agent to server: a piece of a stream.
    StreamPiece = 39 as STREAM_PIECE since 2 in Output,
    /// Agent to server: a stream is over. Behind its last piece, so in the same lane.
    StreamEnd = 40 as STREAM_END since 2 in Output,
    /// Server to agent: how much of all streams has arrived.
    StreamReceipt = 41 as STREAM_RECEIPT since 2 in Request,
    /// Both ways: a beat.
    Ping = 48 as PING since 1 in Urgent,
    /// Both ways: the answer to a beat.
    Pong = 49 as PONG since 1 in Urgent,
    /// Both ways: the last frame before a close on purpose.
    Goodbye = 50 as GOODBYE since 1 in Urgent,
    /// Both ways: the answer to a kind of frame that is not known.
    Unsupported = 51 as UNSUPPORTED since 1 in Urgent,
}

/// The stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than this peer may send now.
    #[error(
        "a frame of {bytes} bytes was announced, {bytes_max} are allowed: not our protocol, or not a peer in good order"
    )]
    TooLong {
        /// What the length field said.
        bytes: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// The head of the frame is not one of ours.
    #[error("the head of a frame is not one of ours: {what}")]
    BadHead {
        /// What is wrong.
        what: &'static str,
    },
    /// The payload is not the message that the kind says.
    #[error("the payload of a frame {frame} cannot be read: {what}")]
    Malformed {
        /// The name of the kind.
        frame: &'static str,
        /// What the decoder said.
        what: String,
    },
}

impl Frame {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let rest = HEAD_BYTES + self.payload_len();
        let length = u32::try_from(rest).unwrap_or(u32::MAX);
        assert!(length < u32::MAX, "a frame of 4 GiB: whoever built it ignored FRAME_BYTES_MAX");
        out.reserve(LENGTH_BYTES + rest);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.kind().to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        self.encode_payload(out);
    }

    /// The protocol version that a peer must speak to be sent this frame.
    pub fn since(&self) -> u32 {
        since(self.kind()).unwrap_or(u32::MAX)
    }

    /// The bytes that [`Frame::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        LENGTH_BYTES + HEAD_BYTES + self.payload_len()
    }

    /// Whether a peer takes it: whoever puts something of unbounded size into a frame must ask before sending.
    pub fn fits(&self) -> bool {
        HEAD_BYTES + self.payload_len() <= FRAME_BYTES_MAX
    }
}

/// Cuts a byte stream into frames.
///
/// Keeps only what was fed and not yet taken; a length field alone allocates nothing. Whoever feeds it takes every whole
/// frame before feeding more, so at most one frame of the limit and one read are kept.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    taken: usize,
    bytes_max: usize,
}

impl FrameDecoder {
    /// `bytes_max`: the greatest length of a frame, for example [`FRAME_BYTES_MAX_BEFORE_AUTH`].
    pub fn new(bytes_max: usize) -> FrameDecoder {
        FrameDecoder { buffer: Vec::new(), taken: 0, bytes_max }
    }

    /// Changes the limit, also for a frame whose first bytes are here already.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is here. After an error the stream is over.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((length, rest)) =
            self.buffer.get(self.taken..).and_then(|b| b.split_first_chunk::<LENGTH_BYTES>())
        else {
            return Ok(None);
        };
        let bytes = u64::from(u32::from_be_bytes(*length));
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        if length > self.bytes_max {
            return Err(FrameError::TooLong { bytes, bytes_max: self.bytes_max });
        }
        if length < HEAD_BYTES {
            return Err(FrameError::BadHead { what: "its length is less than that of a head" });
        }
        let Some((frame, _)) = rest.split_at_checked(length) else { return Ok(None) };
        let [kind_high, kind_low, _flags, zero, payload @ ..] = frame else { return Ok(None) };
        if *zero != 0 {
            return Err(FrameError::BadHead { what: "the reserved byte is not zero" });
        }
        let frame = Frame::decode_payload(u16::from_be_bytes([*kind_high, *kind_low]), payload)?;
        self.taken += LENGTH_BYTES + length;
        Ok(Some(frame))
    }

    /// Bytes that were fed and not taken.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len() - self.taken
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;

//! Output as a stream: opened by the server, sent in pieces as far as there is credit. What it means is told in [`crate::stream`].

use prost::{Enumeration, Message};
use std::ops::Range;

/// The output files of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum StreamKind {
    /// Not said.
    Unspecified = 0,
    /// `out`.
    Stdout = 1,
    /// `err`.
    Stderr = 2,
}

/// Send an output file of a run, or a file that was kept of it, in pieces, as far as there is credit. Since version 2.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StreamOpen {
    /// Chosen by the server, for this connection; everything about the stream carries it.
    #[prost(uint64, optional, tag = "1")]
    pub stream_id: Option<u64>,
    /// Which run.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub run_id: Option<Vec<u8>>,
    /// Which file; absent if it is a captured one.
    #[prost(enumeration = "StreamKind", optional, tag = "3")]
    pub stream: Option<i32>,
    /// From this byte, or from the end of the file if that comes first.
    #[prost(uint64, optional, tag = "4")]
    pub offset: Option<u64>,
    /// At most this many bytes; no limit if absent.
    #[prost(uint64, optional, tag = "5")]
    pub bytes_max: Option<u64>,
    /// What is written later is sent too, until the run is complete; else what is there now.
    #[prost(bool, tag = "6")]
    pub follow: bool,
    /// The first credit, as in [`StreamGrant`].
    #[prost(uint64, optional, tag = "7")]
    pub granted: Option<u64>,
    /// The server knows gaps: what the output limit left out is skipped, and not sent as zeros.
    #[prost(bool, tag = "8")]
    pub gaps: bool,
    /// What this program traced, instead of a run's file: then `run_id` is all zeros, `stream` is absent, and bytes are counted from where the
    /// stream begins.
    #[prost(enumeration = "TraceKind", optional, tag = "9")]
    pub trace: Option<i32>,
    /// Of a trace: so many bytes before its present end, at the beginning of a line. From its beginning, as far as it is kept, if absent.
    #[prost(uint64, optional, tag = "10")]
    pub tail: Option<u64>,
    /// The captured file of this name, as [`Captured`](super::Captured) says it.
    #[prost(string, optional, tag = "11")]
    pub file: Option<String>,
}

/// The programs of an agent that trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum TraceKind {
    /// Not said.
    Unspecified = 0,
    /// The network-processor: its link, its runs, its disk.
    NetworkProcessor = 1,
    /// The monitor.
    PlatformAgent = 2,
}

impl TraceKind {
    /// All that can be read.
    pub const ALL: [TraceKind; 2] = [TraceKind::NetworkProcessor, TraceKind::PlatformAgent];

    /// The program's name; empty if none was said.
    pub fn program(self) -> &'static str {
        match self {
            TraceKind::Unspecified => "",
            TraceKind::NetworkProcessor => "network-processor",
            TraceKind::PlatformAgent => "platform-agent",
        }
    }
}

/// More credit: so many bytes of this stream may be sent, counted from its opening. A number that is not greater than the last says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct StreamGrant {
    /// Which stream.
    #[prost(uint64, optional, tag = "1")]
    pub stream_id: Option<u64>,
    /// Bytes since the opening, all grants together.
    #[prost(uint64, optional, tag = "2")]
    pub granted: Option<u64>,
}

/// Nobody reads this stream any more. What is under way is passed over.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct StreamCancel {
    /// Which stream.
    #[prost(uint64, optional, tag = "1")]
    pub stream_id: Option<u64>,
}

/// A piece of a stream. The first one comes at once, empty if there is nothing (or no credit): it says where the stream begins.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StreamPiece {
    /// Which stream.
    #[prost(uint64, optional, tag = "1")]
    pub stream_id: Option<u64>,
    /// From this byte of the file.
    #[prost(uint64, optional, tag = "2")]
    pub offset: Option<u64>,
    /// The bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
    /// The size of the file now.
    #[prost(uint64, optional, tag = "4")]
    pub size: Option<u64>,
    /// The run has ended and its processes are gone: the file will not grow.
    #[prost(bool, tag = "5")]
    pub complete: bool,
    /// What the output limit left out of the file, as far as it is known now, begins at this byte. The stream skips it: the piece that follows
    /// begins at [`StreamPiece::gap_to`]. Only if [`StreamOpen::gaps`] asked for it.
    #[prost(uint64, optional, tag = "6")]
    pub gap_from: Option<u64>,
    /// What was left out ends before this byte.
    #[prost(uint64, optional, tag = "7")]
    pub gap_to: Option<u64>,
}

impl StreamPiece {
    /// What the output limit left out of the file.
    pub fn gap(&self) -> Option<Range<u64>> {
        let (from, to) = (self.gap_from?, self.gap_to?);
        (from < to).then_some(from..to)
    }
}

/// A stream is over: nothing of it follows.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StreamEnd {
    /// Which stream.
    #[prost(uint64, optional, tag = "1")]
    pub stream_id: Option<u64>,
    /// The file was sent to its end, and will not grow.
    #[prost(bool, tag = "2")]
    pub complete: bool,
    /// Why the rest cannot be sent, for people.
    #[prost(string, optional, tag = "3")]
    pub failed: Option<String>,
    /// It never will be: what was asked for is gone for good.
    #[prost(bool, tag = "4")]
    pub gone: bool,
}

/// How many bytes of pieces have arrived on this connection, all streams together: what is on its way is that much less.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct StreamReceipt {
    /// Bytes since the connection began.
    #[prost(uint64, optional, tag = "1")]
    pub received: Option<u64>,
}

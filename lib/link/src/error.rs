//! Why a link did not come about, or is over.

use protocol::frame::FrameError;
use protocol::handshake::HandshakeError;
use protocol::session::SessionError;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The link is over: [`crate::Receiver::recv`] says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link is closed")]
pub struct Closed;

/// A link did not come about, or is over; the text is the reason, for the trace.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// The name could not be looked up.
    #[error("cannot look up the address of {host}: {source}")]
    Lookup {
        /// The name.
        host: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// To where.
        address: SocketAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The address is not on the list of those allowed.
    #[error("the address {address} is not on the list of allowed addresses")]
    NotAllowed {
        /// The address.
        address: IpAddr,
    },
    /// TLS did not come about: not our protocol, or bytes were changed on the way.
    #[error("no TLS 1.3 with the peer: {source}")]
    Tls {
        /// What TLS said.
        source: Arc<io::Error>,
    },
    /// TLS and proofs took too long.
    #[error("the peer did not prove itself within {} s", after.as_secs_f32())]
    HandshakeTimeout {
        /// The time-out.
        after: Duration,
    },
    /// Too many others came while this one took its time.
    #[error(
        "closed before it proved itself: too many connections are at their proofs, and this was the oldest"
    )]
    Crowded,
    /// The proof failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The stream is not one of frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The conversation went wrong.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The peer closed on purpose and said so.
    #[error("the peer closed the link: {reason:?}")]
    Goodbye {
        /// What it said, for people.
        reason: String,
        /// It stops in a controlled manner.
        stopping: bool,
    },
    /// The connection ended without a goodbye: the peer died, was killed, or its host went away.
    #[error("the connection was closed by the peer without a goodbye")]
    PeerGone,
    /// Reading or writing failed.
    #[error("cannot {what} the connection: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The peer does not read.
    #[error("nothing could be written for {} s: the peer does not read", after.as_secs_f32())]
    WriteStalled {
        /// For how long.
        after: Duration,
    },
    /// We closed it.
    #[error("closed by this program")]
    ClosedByUs,
}

impl LinkError {
    /// How far an attempt came: of several addresses' failures the one that came farthest is told.
    pub(crate) fn progress(&self) -> u8 {
        match self {
            LinkError::NotAllowed { .. } => 0,
            LinkError::Lookup { .. } | LinkError::Connect { .. } => 1,
            LinkError::Tls { .. } | LinkError::HandshakeTimeout { .. } | LinkError::Crowded => 2,
            LinkError::Handshake(_) | LinkError::Frame(_) => 3,
            LinkError::Session(_)
            | LinkError::Goodbye { .. }
            | LinkError::PeerGone
            | LinkError::Io { .. }
            | LinkError::WriteStalled { .. }
            | LinkError::ClosedByUs => 4,
        }
    }
}

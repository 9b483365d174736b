//! How messages travel: one TLS 1.3 connection per agent and server, over which `protocol`'s machines are driven.
//!
//! ```text
//!  dial / accept ─▶ TLS ─▶ proof of the shared secret ─▶ Link { peer, sender, receiver }
//!                                                         sender ─▶ lanes ─▶ writer task ─▶ TLS
//!                                                         receiver ◀─ inbox ◀── reader task ◀── TLS
//! ```
//!
//! The happy path: either side dials; both prove the secret over the TLS exporter; from then on the two tasks of the link
//! keep the order of the session, the heartbeats and the limits, and the programs see frames only.
//!
//! What can fail, and what happens: a peer that is not what it must be costs one trace line and its connection; a peer that
//! does not read fills its bounded lanes, then its senders wait, then the link is closed; a peer that vanishes is noticed by
//! its silence. A link that is over says why; whoever used it dials or waits for the next one.
//!
//! Knows nothing of runs: what a frame means is the programs' business.
#![forbid(unsafe_code)]

mod admission;
mod auth;
mod drive;
mod endpoint;
mod error;
mod link;
mod listen;
mod range;
mod redial;
mod secret;
mod tls;
mod version;

pub use endpoint::{Endpoint, EndpointError, Options};
pub use error::{Closed, LinkError};
pub use link::{Link, Peer, Receiver, Sender};
pub use listen::listen;
pub use protocol::Role;
pub use range::{IpRange, ParseRangeError};
pub use redial::{AddressError, keep_dialled, split_address};
pub use secret::{SECRET_BYTES_MAX, SECRET_BYTES_MIN, Secret, SecretError, Secrets};

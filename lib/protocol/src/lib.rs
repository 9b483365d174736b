//! What agents and servers say to each other, and the machines that decide what to say next. Pure: bytes and `now_ms` in, bytes and
//! decisions out. `docs/protocol.md` is the same for readers of other languages.
#![forbid(unsafe_code)]

pub mod backoff;
pub mod convert;
pub mod frame;
pub mod glance;
pub mod handshake;
pub mod message;
pub mod needs;
pub mod outbox;
pub mod params;
pub mod reconcile;
mod role;
pub mod session;
pub mod stream;

pub use convert::Malformed;
pub use frame::Frame;
pub use message::RunSpec;
pub use role::Role;

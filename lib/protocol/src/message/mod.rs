//! What is said on the wire and kept on disk, as protobuf (prost, derive only).
//!
//! Rules: a number is never used again for something else; a field that must be known is `optional` here and checked
//! where it is read; unknown fields are ignored; unknown kinds of frames are refused politely. Golden bytes of every message are
//! in `golden/`.
//!
//! Ids are bytes (16); times named `*_at_ms` are wall-clock milliseconds since 1970 for display; durations `*_ms`.

mod run;
mod stream;
mod wire;

pub use run::*;
pub use stream::*;
pub use wire::*;

//! The operating system, as far as std and rustix do not have it: pidfds and their exit information, POSIX locks, the gated
//! child, file descriptors over sockets, control groups, durable file operations. The only crate with `unsafe`.
//!
//! Linux only. Every function says which kernel it needs and what it does on an older one.

pub mod account;
mod capability;
pub mod cgroup;
pub mod child;
pub mod clock;
pub mod crash;
pub mod disk;
pub mod give;
pub mod helper;
pub mod lock;
pub mod mounts;
pub mod pidfd;
pub mod power;
pub mod privilege;
pub mod process;
pub mod procfs;
pub mod seqpacket;
pub mod sibling;
pub mod signal;
pub mod tree;
pub mod trusted;
pub mod wait;

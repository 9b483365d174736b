//! The central server: decides what runs where and when, and keeps the record.
//!
//! ```text
//! agents (a session per connection) ──facts──▶ core: inbox ▶ engine ▶ commit ─▶ db
//!        ▲                                               │
//!        └──────────────── actions, acknowledgements ◀───┘
//! http ───── commands, questions ─────────────▶ core          http ── reads ─▶ db
//! ```
//!
//! Never acknowledges, acts on or reports anything before its own commit.

#![forbid(unsafe_code)]

pub mod agents;
mod args;
mod audited;
pub mod auth;
pub mod backup;
pub mod bundle;
pub mod core;
pub mod db;
mod disk;
pub mod files;
pub mod http;
mod offline;
pub mod operation;
mod recover;
pub mod restore;
mod retention;
mod run;
mod settings;
mod sweep;

pub use run::main;
pub use settings::check_text;

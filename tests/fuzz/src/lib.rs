//! What reads bytes of strangers, as functions of bytes: a peer on the wire, a disk, a file of a person, a request.
//!
//! `cargo xtask soak fuzz` lets a coverage-guided fuzzer look for inputs; what it found worth keeping is the corpus (`fuzz/corpus`), and the
//! tests here run all of that and mutations of it on every change. A target panics where a promise is broken: no input makes anything
//! panic, hang or take more memory than [`Target::memory_bytes_max`].

#![forbid(unsafe_code)]

mod api_bodies;
mod configuration;
mod engine;
mod frames;
mod log;
pub mod mutate;

/// One thing that reads bytes of strangers.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its fuzz target, and of its folder in the corpus.
    pub name: &'static str,
    /// Reads them.
    pub run: fn(&[u8]),
    /// Longer inputs tell nothing new.
    pub input_bytes_max: usize,
    /// What it may have allocated at once, in all.
    pub memory_bytes_max: usize,
}

const MIB: usize = 1 << 20;

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "frames", run: frames::frames, input_bytes_max: 64 << 10, memory_bytes_max: 4 * MIB },
    Target { name: "messages", run: frames::messages, input_bytes_max: 64 << 10, memory_bytes_max: 4 * MIB },
    Target { name: "session", run: frames::session, input_bytes_max: 64 << 10, memory_bytes_max: 4 * MIB },
    Target { name: "engine", run: engine::engine, input_bytes_max: 16 << 10, memory_bytes_max: 16 * MIB },
    Target { name: "log", run: log::log, input_bytes_max: 64 << 10, memory_bytes_max: 4 * MIB },
    Target {
        name: "agent_config",
        run: configuration::agent,
        input_bytes_max: 16 << 10,
        memory_bytes_max: 8 * MIB,
    },
    Target {
        name: "server_config",
        run: configuration::server,
        input_bytes_max: 16 << 10,
        memory_bytes_max: 8 * MIB,
    },
    Target {
        name: "api_bodies",
        run: api_bodies::api_bodies,
        input_bytes_max: 16 << 10,
        memory_bytes_max: 8 * MIB,
    },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Gives bytes to the target of that name.
///
/// # Panics
/// Where a promise is broken, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = target(name).unwrap_or_else(|| panic!("there is no target {name}"));
    (target.run)(bytes);
}

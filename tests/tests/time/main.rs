//! Clocks, process ids, hosts and data roots that are not what they were.
//!
//! The clock of this machine is never set: debug builds of the programs read by how much their wall clock is wrong from a file (`os::clock`), and the
//! boot id from a variable (`os::procfs`). Process ids are forced in a pid namespace (root only; skipped elsewhere).
//!
//! | what                                   | tried where                                                                                  |
//! |----------------------------------------|----------------------------------------------------------------------------------------------|
//! | clocks set by a year while jobs run, wait and end | [`clock`]; the engine's part: `lib/scheduler/tests/engine/policies.rs`; ages: `lib/os/src/clock.rs` |
//! | zones; the hour that is skipped or comes twice | [`clock`]; [`moments`]                                                               |
//! | tokens that end at a moment            | [`moments`]                                                                                  |
//! | a process id that is used again        | [`pids`]; the pieces: `another_process_with_the_same_pid_is_not_taken_for_it` (`lib/os/src/pidfd.rs`) |
//! | another boot id                        | [`identity`]; with the host gone amid a connection: `tests/tests/network/wires.rs`; the simulation's power cuts |
//! | each process stopped                   | [`stopped`]                                                                                  |
//! | a data root of yesterday               | [`identity`]; told to operators: `tests/tests/e2e/operate.rs`                                |
//! | two agents with one identity           | [`identity`]; every case: `lib/scheduler/tests/engine/identity.rs`; two on one root: `tests/tests/e2e/agents.rs` |
//!
//! `LASTWORD_TEST_STOP_SECONDS`: how long each process is stopped (25, which is longer than the 20 s of silence after which a link is dead).

mod clock;
mod identity;
mod moments;
mod pids;
mod stopped;

//! What may run where and when: queues, process servers, slots, the life of every job that is not final yet.
//!
//! [`Engine`] is a pure machine. An [`Input`] (a command of a user, a fact of an agent, a tick of the clock) goes in by
//! [`Engine::on`]; [`Engine::take`] hands out what has to be written ([`Change`]) and what is to be done *after* that was
//! written ([`Action`]). It owns no clock, no disk and no socket: the wall clock is the argument `now_ms`, random numbers come
//! from a seed.
//!
//! The happy path: submit → job inserted, run placed on the process server with the most room, [`Action::Start`] → the agent's
//! ACCEPTED → STARTED → ENDED, each stored and acknowledged.
//!
//! What can go wrong, and what is done:
//!
//! | what happens                                     | what follows                                                        |
//! |--------------------------------------------------|---------------------------------------------------------------------|
//! | the agent goes away                              | nothing: its runs stay what they are, nothing new is placed on it   |
//! | it comes back without a run that it accepted     | it is asked; no record → `Unknown`                                  |
//! | it comes back without a run that it did not accept | START again, the same run id                                      |
//! | it has no room                                   | that run is `Canceled`, the job goes back to its queue, the agent rests |
//! | a fact comes twice, or again after years         | dropped, acknowledged                                               |
//! | a fact is missing in a row                       | the rest is neither stored nor acknowledged: the agent sends again  |
//! | a fact of a run that nobody knows                | kept as a stray, acknowledged                                       |
//! | the true outcome of an `Unknown` run             | kept beside it; the status stays                                    |
//! | a retry, or a restart after `Unknown`, is due    | a new run with the next attempt number; see `docs/status-life.md`   |
//! | two hosts with one name or one data root         | see `identity`: the second is refused, and both are told            |
//! | another message under a number that is stored    | reported, not acknowledged                                          |
//! | it is drained                                    | what runs goes on, nothing new is placed                            |

#![forbid(unsafe_code)]

mod after;
mod agents;
mod became;
mod books;
mod engine;
mod event;
mod facts;
pub mod hear;
mod identity;
mod input;
mod jobs;
mod line;
mod pause;
mod place;
mod queues;
mod record;
mod recovery;
mod rejection;
mod restart;
mod settings;
mod spec;
mod stand;
mod views;
mod why;

pub use became::became;
pub use engine::{Engine, Passing, RestoreError};
pub use event::{Event, EventFilter, EventKind, EventRecord, Object, Severity};
pub use input::{
    Action, Change, Connected, FactIn, Input, InventoryEntry, NewAgent, Output, Over, Reply, Restart,
    Submitted,
};
pub use record::{
    AgentRecord, Counts, Dial, Drain, FactRecord, JobRecord, KeptFile, KillWish, LateOutcome, PauseWish,
    QueueRecord, RunRecord, Snapshot, StrayRecord, Trouble, Wait,
};
pub use recovery::{Recovery, RecoveryView};
pub use rejection::Rejection;
pub use spec::{JobSpec, SpecColumns};
pub use views::{AgentView, FailedProof, QueueView};

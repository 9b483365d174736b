//! The system as its users see it: one server, real agents, real jobs.

mod agents;
mod away;
mod cli;
mod control;
mod disk;
mod files;
mod operate;
mod outcomes;
mod output;
mod policies;
mod queues;
mod record;
mod restore;
mod stop;
mod sudo;
mod support;
mod upgrade;
mod users;
mod versions;

//! The engine from outside: what it promises, and what it holds to under random events.

mod events;
mod identity;
mod lab;
mod needs;
mod pause;
mod policies;
mod promises;
mod random;
mod recovery;
mod scale;
mod table;
mod why;

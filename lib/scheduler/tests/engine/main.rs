//! The engine from outside: what it promises, and what it holds to under random events.

mod events;
mod lab;
mod promises;
mod random;
mod why;

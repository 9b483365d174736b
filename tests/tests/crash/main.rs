//! `kill -9` at every point where it could matter, with the jobs' own ledger as the oracle.

mod accident;
mod commander;
mod deaths;
mod faults;
mod kept;
mod leftovers;
mod oracle;
mod point;
mod recovery;
mod wire;
mod witness;

//! Hosts that lose power: the data roots of agent and server lie on file systems that are shut down without a flush at random moments under load,
//! mounted again, recovered and compared. And one at the moment that something is told of ([`told`]).
//!
//! `LASTWORD_TEST_POWER_LOSSES`: how many rounds all of these tests make together (200). `LASTWORD_TEST_SEED` repeats the choices, though not the
//! timing. What a disk's own cache loses is not tried: what reached the loop device counts as written.

mod host;
mod told;

use host::Hosts;
use tests::FileSystem;

/// Rounds of all tests together.
const LOSSES: u64 = 200;
/// Of so many rounds, for each of the three ...
const PARTS: u64 = 12;
/// ... so many are on ext4, and the last one is on XFS.
const EXT4_PARTS: u64 = 3;

/// The share of one test in all rounds; at least one.
fn rounds(kind: FileSystem) -> u64 {
    let all = std::env::var("LASTWORD_TEST_POWER_LOSSES").ok().and_then(|n| n.parse().ok()).unwrap_or(LOSSES);
    let parts = match kind {
        FileSystem::Ext4 => EXT4_PARTS,
        FileSystem::Xfs | FileSystem::Tmpfs => 1,
    };
    (all * parts).div_ceil(PARTS)
}

#[test]
fn an_agent_whose_host_loses_power_on_ext4_loses_nothing_that_it_told() {
    host::lose_power(Hosts { agent: true, server: false }, FileSystem::Ext4, rounds(FileSystem::Ext4));
}

#[test]
fn a_server_whose_host_loses_power_on_ext4_loses_nothing_that_it_acknowledged() {
    host::lose_power(Hosts { agent: false, server: true }, FileSystem::Ext4, rounds(FileSystem::Ext4));
}

#[test]
fn agent_and_server_that_lose_power_together_on_ext4_lose_nothing() {
    host::lose_power(Hosts { agent: true, server: true }, FileSystem::Ext4, rounds(FileSystem::Ext4));
}

#[test]
fn an_agent_whose_host_loses_power_on_xfs_loses_nothing_that_it_told() {
    host::lose_power(Hosts { agent: true, server: false }, FileSystem::Xfs, rounds(FileSystem::Xfs));
}

#[test]
fn a_server_whose_host_loses_power_on_xfs_loses_nothing_that_it_acknowledged() {
    host::lose_power(Hosts { agent: false, server: true }, FileSystem::Xfs, rounds(FileSystem::Xfs));
}

#[test]
fn agent_and_server_that_lose_power_together_on_xfs_lose_nothing() {
    host::lose_power(Hosts { agent: true, server: true }, FileSystem::Xfs, rounds(FileSystem::Xfs));
}

#[test]
fn what_an_agent_tells_is_on_its_ext4_already() {
    told::lose_power(FileSystem::Ext4);
}

#[test]
fn what_an_agent_tells_is_on_its_xfs_already() {
    told::lose_power(FileSystem::Xfs);
}

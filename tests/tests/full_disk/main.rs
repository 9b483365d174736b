//! Disks that are filled at random moments under load: what runs keeps its outcome, new runs are refused with the reason, and everything goes on
//! when there is room again. And disks of which not one block is left when jobs end.
//!
//! `LASTWORD_TEST_FULL_DISKS`: how often all of these tests fill a disk together (24). `LASTWORD_TEST_SEED` repeats the choices, though not the
//! timing.

mod agent;
mod round;
mod server;

use tests::FileSystem;

#[test]
fn an_agent_whose_tmpfs_is_full_keeps_every_outcome_and_refuses_new_runs() {
    agent::fill(FileSystem::Tmpfs);
}

#[test]
fn an_agent_whose_tmpfs_has_not_one_block_left_tells_how_its_jobs_ended() {
    agent::leave_nothing(FileSystem::Tmpfs);
}

#[test]
fn an_agent_whose_ext4_is_full_keeps_every_outcome_and_refuses_new_runs() {
    agent::fill(FileSystem::Ext4);
}

#[test]
fn an_agent_whose_ext4_has_not_one_block_left_tells_how_its_jobs_ended() {
    agent::leave_nothing(FileSystem::Ext4);
}

#[test]
fn an_agent_whose_xfs_is_full_keeps_every_outcome_and_refuses_new_runs() {
    agent::fill(FileSystem::Xfs);
}

#[test]
fn an_agent_whose_xfs_has_not_one_block_left_tells_how_its_jobs_ended() {
    agent::leave_nothing(FileSystem::Xfs);
}

#[test]
fn a_server_whose_tmpfs_is_full_loses_nothing_and_takes_no_new_jobs() {
    server::fill(FileSystem::Tmpfs);
}

#[test]
fn a_server_whose_tmpfs_has_not_one_block_left_records_how_jobs_ended() {
    server::leave_nothing(FileSystem::Tmpfs);
}

#[test]
fn a_server_whose_ext4_is_full_loses_nothing_and_takes_no_new_jobs() {
    server::fill(FileSystem::Ext4);
}

#[test]
fn a_server_whose_ext4_has_not_one_block_left_records_how_jobs_ended() {
    server::leave_nothing(FileSystem::Ext4);
}

#[test]
fn a_server_whose_xfs_is_full_loses_nothing_and_takes_no_new_jobs() {
    server::fill(FileSystem::Xfs);
}

#[test]
fn a_server_whose_xfs_has_not_one_block_left_records_how_jobs_ended() {
    server::leave_nothing(FileSystem::Xfs);
}

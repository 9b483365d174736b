//! The oracle can fail: of each rule that a driver breaks on purpose it finds the breach.

use sim::{Mutation, simulate_near};

/// Within so many seeds.
const SEEDS_MAX: u64 = 3_000;

fn is_found(mutation: Mutation) {
    let broken = |seed| {
        simulate_near(seed, mutation, true).err().filter(|_| simulate_near(seed, mutation, false).is_ok())
    };
    let found = (0..SEEDS_MAX).find_map(|seed| Some((seed, broken(seed)?)));
    let Some((seed, broken)) = found else { panic!("{mutation:?} is not found in {SEEDS_MAX} seeds") };
    println!("{mutation:?} is found by seed {seed}: {broken}");
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    is_found(Mutation::AckBeforeCommit);
}

#[test]
fn a_run_that_is_settled_before_it_is_acknowledged_is_found() {
    is_found(Mutation::SettleBeforeAck);
}

#[test]
fn a_gate_that_opens_before_started_is_synced_is_found() {
    is_found(Mutation::GateBeforeStarted);
}

#[test]
fn a_start_that_is_obeyed_twice_is_found() {
    is_found(Mutation::ForgetDedup);
}

#[test]
fn a_directory_that_is_not_synced_after_the_rename_is_found() {
    is_found(Mutation::NoDirectorySync);
}

#[test]
fn a_server_of_a_lower_epoch_that_is_obeyed_is_found() {
    is_found(Mutation::LowerEpoch);
}

#[test]
fn a_record_that_is_told_before_it_is_synced_is_found() {
    is_found(Mutation::TellBeforeSync);
}

#[test]
fn room_that_is_told_while_an_agent_catches_up_and_not_heard_is_found() {
    is_found(Mutation::ForgetRoom);
}

#[test]
fn a_run_that_was_refused_and_is_accepted_after_all_is_found() {
    is_found(Mutation::ForgetRefusals);
}

#[test]
fn a_child_that_is_taken_for_its_job_is_found() {
    is_found(Mutation::TrustChild);
}

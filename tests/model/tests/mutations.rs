//! Each protection is needed: without it the checker finds a way to break a promise. And where the system is weaker than its promises, the way
//! is shown too, so that it is noticed when that changes.

use model::{
    ACKED_CAN_COME, ACKED_IS_KEPT, AT_MOST_ONCE, Back, Bounds, FINAL_STAYS, JOB_AT_MOST_ONCE, NEVER_INVENTED,
    NOTHING_LOST, OLDER_NOT_OBEYED, Promise, Rules, Second, World,
};
use stateright::{Checker, HasDiscoveries, Model};

/// Without some rule the promise breaks, and with it, within the same bounds, it holds.
fn needs(bounds: Bounds, without: Rules, promise: Promise) {
    breaks(bounds, without, promise);
    assert_eq!(shortest_way(bounds, Rules::ALL, promise), None, "it breaks with all rules too");
}

/// The promise breaks.
fn breaks(bounds: Bounds, rules: Rules, promise: Promise) {
    let way = shortest_way(bounds, rules, promise);
    println!("\"{}\" breaks after {:#?}", promise().name, way.as_ref().expect("it holds"));
}

/// The fewest steps after which the promise is broken.
fn shortest_way(bounds: Bounds, rules: Rules, promise: Promise) -> Option<Vec<model::Action>> {
    let world = World { bounds, rules, promises: vec![promise] };
    let checker = world.checker().finish_when(HasDiscoveries::Any).spawn_bfs().join();
    checker.discovery(promise().name).map(stateright::Path::into_actions)
}

#[test]
fn without_the_start_gate_a_run_is_executed_twice() {
    let bounds = Bounds { jp_crashes: 1, ..Bounds::QUIET };
    needs(bounds, Rules { start_gate: false, ..Rules::ALL }, AT_MOST_ONCE);
}

#[test]
fn a_start_before_the_log_is_synced_is_repeated_after_a_power_cut() {
    let bounds = Bounds { power_cuts: 1, ..Bounds::QUIET };
    needs(bounds, Rules { sync_before_start: false, ..Rules::ALL }, AT_MOST_ONCE);
}

#[test]
fn a_start_before_the_directory_is_synced_is_repeated_after_a_power_cut() {
    let bounds = Bounds { links: 2, power_cuts: 1, ..Bounds::QUIET };
    needs(bounds, Rules { sync_before_launch: false, ..Rules::ALL }, AT_MOST_ONCE);
}

#[test]
fn an_acknowledgement_before_the_commit_loses_an_outcome() {
    let bounds = Bounds { links: 2, server_crashes: 1, np_crashes: 1, ..Bounds::QUIET };
    needs(bounds, Rules { commit_before_ack: false, ..Rules::ALL }, ACKED_IS_KEPT);
}

#[test]
fn settling_before_the_acknowledgement_loses_an_outcome() {
    let bounds = Bounds { links: 2, breaks: 1, ..Bounds::QUIET };
    needs(bounds, Rules { ack_before_settle: false, ..Rules::ALL }, NOTHING_LOST);
}

#[test]
fn without_the_epoch_check_a_server_that_stood_still_is_obeyed() {
    let bounds = Bounds { links: 2, second: Second::TakesOver, ..Bounds::QUIET };
    needs(bounds, Rules { epoch_check: false, ..Rules::ALL }, OLDER_NOT_OBEYED);
}

#[test]
fn an_equal_epoch_of_another_start_must_not_be_obeyed() {
    let bounds = Bounds { links: 2, second: Second::Twin, ..Bounds::QUIET };
    needs(bounds, Rules { incarnation_check: false, ..Rules::ALL }, OLDER_NOT_OBEYED);
}

#[test]
fn a_run_that_is_forgotten_when_it_is_settled_is_executed_again() {
    let bounds = Bounds { links: 2, server_crashes: 1, back: Back::Restored, ..Bounds::QUIET };
    needs(bounds, Rules { settled_is_known: false, ..Rules::ALL }, AT_MOST_ONCE);
}

#[test]
fn a_late_outcome_that_is_not_put_beside_changes_a_final_status() {
    let bounds =
        Bounds { runs: 2, links: 3, jp_crashes: 2, server_crashes: 1, back: Back::Restored, ..Bounds::QUIET };
    breaks(bounds, Rules { final_stays: false, ..Rules::ALL }, FINAL_STAYS);
}

#[test]
fn a_restored_database_that_does_not_wait_for_its_agents_runs_a_job_twice() {
    let bounds = Bounds { runs: 2, links: 2, server_crashes: 1, back: Back::Restored, ..Bounds::QUIET };
    needs(bounds, Rules { recovery_waits: false, ..Rules::ALL }, JOB_AT_MOST_ONCE);
}

#[test]
fn a_farewell_after_the_announcement_of_another_child_says_that_a_running_job_never_started() {
    let bounds = Bounds { jp_crashes: 2, ..Bounds::QUIET };
    needs(bounds, Rules { farewell_is_own: false, ..Rules::ALL }, NEVER_INVENTED);
}

#[test]
fn a_start_that_is_told_before_it_is_synced_hides_a_never_started() {
    let bounds = Bounds { links: 2, power_cuts: 1, jp_crashes: 2, ..Bounds::QUIET };
    needs(bounds, Rules { synced_before_report: false, ..Rules::ALL }, NOTHING_LOST);
}

#[test]
fn a_position_that_counts_before_what_is_sent_again_is_acknowledged_lacks_an_outcome_if_a_link_breaks() {
    let bounds = Bounds { links: 2, breaks: 1, server_crashes: 1, back: Back::ByHand, ..Bounds::QUIET };
    needs(bounds, Rules { resent_is_acked: false, ..Rules::ALL }, ACKED_CAN_COME);
}

// What follows is no mutation: the system as it is, in the face of what docs/model.md calls its weakness.

#[test]
fn weakness_a_database_put_back_by_hand_runs_a_job_twice() {
    let bounds = Bounds { runs: 2, links: 2, server_crashes: 1, back: Back::ByHand, ..Bounds::QUIET };
    breaks(bounds, Rules::ALL, JOB_AT_MOST_ONCE);
}

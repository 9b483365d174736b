//! With every protection in force the promises hold, in every order of steps within these bounds, and what should be reachable is reached.

use model::{
    ACKED_IS_KEPT, AT_MOST_ONCE, Back, Bounds, COMPLETES, FINAL_STAYS, JOB_AT_MOST_ONCE, NEVER_INVENTED,
    NOTHING_LOST, OLDER_NOT_OBEYED, ORDERED_AGAIN, PLACED_AGAIN, Promise, Rules, SETTLED, Second, TAKEN_OVER,
    UNKNOWN, World,
};
use stateright::{Checker, Model};
use std::collections::BTreeSet;

/// What holds however many servers there are.
const ALWAYS: [Promise; 6] =
    [AT_MOST_ONCE, ACKED_IS_KEPT, NOTHING_LOST, FINAL_STAYS, OLDER_NOT_OBEYED, NEVER_INVENTED];

/// Looks at every state. `more`: what else has to hold, and what has to be reached.
fn check(bounds: Bounds, more: &[Promise]) {
    let promises = ALWAYS.iter().chain(more).copied().collect();
    let checker = World { bounds, rules: Rules::ALL, promises }.checker().threads(2).spawn_bfs().join();
    println!("{} states, the deepest after {} steps", checker.unique_state_count(), checker.max_depth());
    let names = |of: &[stateright::Property<World>]| of.iter().map(|p| p.name).collect::<BTreeSet<_>>();
    let (found, all) = (checker.discoveries(), checker.model().properties());
    for (name, path) in &found {
        if checker.discovery_classification(name).to_string() == "counterexample" {
            panic!("\"{name}\" does not hold after {:#?}", path.clone().into_actions());
        }
    }
    let reached: Vec<_> = all.into_iter().filter(|p| !p.expectation.discovery_is_failure()).collect();
    let missed: Vec<_> = names(&reached).into_iter().filter(|name| !found.contains_key(name)).collect();
    assert_eq!(missed, Vec::<&str>::new(), "never reached");
    assert!(checker.is_done());
}

#[test]
fn the_processes_of_an_agent_may_die_between_any_two_steps() {
    let bounds = Bounds { links: 2, np_crashes: 1, jp_crashes: 2, monitor_crashes: 1, ..Bounds::QUIET };
    check(bounds, &[JOB_AT_MOST_ONCE, COMPLETES, UNKNOWN, SETTLED]);
}

#[test]
fn a_host_may_lose_its_power_between_any_two_steps() {
    let bounds = Bounds { links: 3, power_cuts: 2, jp_crashes: 1, ..Bounds::QUIET };
    check(bounds, &[JOB_AT_MOST_ONCE, COMPLETES, UNKNOWN, ORDERED_AGAIN, SETTLED]);
}

#[test]
fn links_may_break_frames_may_come_twice_and_the_server_may_die() {
    let bounds =
        Bounds { links: 3, breaks: 1, repeats: 2, server_crashes: 1, np_crashes: 1, ..Bounds::QUIET };
    check(bounds, &[JOB_AT_MOST_ONCE, COMPLETES, ORDERED_AGAIN, SETTLED]);
}

#[test]
fn a_job_that_never_started_is_placed_again_on_either_agent() {
    let bounds = Bounds { agents: 2, runs: 2, links: 2, jp_crashes: 2, ..Bounds::QUIET };
    check(bounds, &[JOB_AT_MOST_ONCE, COMPLETES, PLACED_AGAIN, SETTLED]);
}

#[test]
fn a_restored_database_gets_back_what_it_lacks_and_starts_nothing_twice() {
    let bounds =
        Bounds { agents: 2, runs: 2, links: 4, server_crashes: 1, back: Back::Restored, ..Bounds::QUIET };
    check(bounds, &[JOB_AT_MOST_ONCE, COMPLETES, ORDERED_AGAIN, TAKEN_OVER, SETTLED]);
}

#[test]
fn links_may_break_while_a_restored_database_is_told() {
    let bounds =
        Bounds { runs: 2, links: 3, breaks: 1, server_crashes: 1, back: Back::Restored, ..Bounds::QUIET };
    check(bounds, &[JOB_AT_MOST_ONCE, COMPLETES, TAKEN_OVER, SETTLED]);
}

#[test]
fn a_server_that_stood_still_while_another_took_over_commands_nobody() {
    let bounds = Bounds { runs: 2, links: 2, second: Second::TakesOver, ..Bounds::QUIET };
    check(bounds, &[COMPLETES, SETTLED]);
}

#[test]
fn an_agent_may_go_to_and_fro_between_two_servers() {
    let bounds = Bounds { links: 3, second: Second::TakesOver, ..Bounds::QUIET };
    check(bounds, &[JOB_AT_MOST_ONCE, COMPLETES, ORDERED_AGAIN, SETTLED]);
}

#[test]
fn of_two_servers_in_one_epoch_an_agent_obeys_one() {
    let bounds = Bounds { runs: 2, links: 3, np_crashes: 1, second: Second::Twin, ..Bounds::QUIET };
    check(bounds, &[COMPLETES, SETTLED]);
}

//! Many queues that share many process servers, one of which dies: the others take the rest, and nothing is done twice.

use crate::lab::{Lab, accepted, exited, started, starts};
use job::{RunId, Status};
use scheduler::{Action, Input, JobSpec, NewAgent, Reply};
use std::collections::{BTreeMap, VecDeque};

const QUEUES: usize = 1_000;
const AGENTS: usize = 50;
const SLOTS: u32 = 4;
/// Of each queue.
const JOBS: usize = 3;

/// What the agents were ordered and have not finished, in the order of the orders.
type Orders = VecDeque<(String, RunId)>;

fn take(orders: &mut Orders, actions: &[Action]) {
    orders.extend(starts(actions));
}

/// Every queue is served by all.
fn floor() -> Lab {
    let mut lab = Lab::new();
    let queues: Vec<String> = (0..QUEUES).map(|n| format!("q{n}")).collect();
    for name in &queues {
        lab.act(Input::CreateQueue { name: name.clone() });
    }
    for n in 0..AGENTS {
        lab.act(Input::AddAgent(NewAgent {
            name: format!("a{n}"),
            slots: SLOTS,
            dial: None,
            secret: vec![1; 32],
            queues: queues.clone(),
        }));
    }
    lab
}

fn submit(lab: &mut Lab) -> Vec<Action> {
    let job = |n: usize| JobSpec { queue: format!("q{}", n % QUEUES), ..crate::lab::spec() };
    let (reply, actions) = lab.on(Input::Submit((0..QUEUES * JOBS).map(job).collect())).expect("is taken");
    assert!(matches!(reply, Reply::Submitted(jobs) if jobs.len() == QUEUES * JOBS));
    actions
}

/// The agent does what it was told, to the end.
fn finish(lab: &mut Lab, agent: &str, run: RunId, from_seq: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    for (seq, body) in (1..).zip([accepted(), started(), exited(0)]).filter(|(seq, _)| *seq >= from_seq) {
        actions.extend(lab.say(agent, run, seq, body));
    }
    actions
}

fn used(orders: &Orders) -> BTreeMap<&str, u32> {
    let mut used = BTreeMap::new();
    orders.iter().for_each(|(agent, _)| *used.entry(agent.as_str()).or_default() += 1);
    used
}

#[test]
fn a_thousand_queues_share_fifty_process_servers_and_the_death_of_one_holds_up_its_own_runs_only() {
    let mut lab = floor();
    let mut orders = Orders::new();
    let mut sessions = BTreeMap::new();
    for n in 0..AGENTS {
        let (session, actions) = lab.connect(&format!("a{n}"), &[]);
        sessions.insert(format!("a{n}"), session);
        take(&mut orders, &actions);
    }
    let actions = submit(&mut lab);
    take(&mut orders, &actions);
    assert_eq!(used(&orders).len(), AGENTS, "all have some");
    assert!(used(&orders).values().all(|runs| *runs == SLOTS), "and none more than its slots");
    // One dies amid its work. Two of its runs were told of, two not.
    let dead = "a7";
    let mut held: Vec<RunId> =
        orders.iter().filter(|(agent, _)| agent == dead).map(|(_, run)| *run).collect();
    held.sort_unstable(); // as they are told again
    held[..2].iter().for_each(|run| drop(lab.say(dead, *run, 1, accepted())));
    lab.disconnect(dead, sessions[dead]);
    orders.retain(|(agent, _)| agent != dead);
    let mut done = 0;
    while let Some((agent, run)) = orders.pop_front() {
        assert_ne!(agent, dead, "nothing is ordered of it");
        let actions = finish(&mut lab, &agent, run, 1);
        take(&mut orders, &actions);
        assert!(used(&orders).values().all(|runs| *runs <= SLOTS));
        done += 1;
    }
    assert_eq!(done, QUEUES * JOBS - held.len(), "the others took all the rest");
    assert_eq!(
        lab.engine.counts().of(Status::Dispatched),
        held.len() as u64,
        "and nothing is invented of these"
    );
    let waits = lab.store.runs[&held[0]].job;
    assert!(lab.why(waits).contains("agent \"a7\", which is not connected"), "{}", lab.why(waits));
    // It is back with what it had accepted: it tells how that ended, and is ordered the rest once more.
    let (_, actions) = lab.connect(dead, &[(held[0], 3), (held[1], 3)]);
    let again: Vec<RunId> = starts(&actions).into_iter().map(|(_, run)| run).collect();
    assert_eq!(again, held[2..], "the same runs, not new ones");
    held[..2].iter().for_each(|run| drop(finish(&mut lab, dead, *run, 2)));
    again.iter().for_each(|run| drop(finish(&mut lab, dead, *run, 1)));
    let all = (QUEUES * JOBS) as u64;
    assert_eq!(lab.engine.counts().of(Status::Completed), all);
    assert_eq!(lab.store.runs.len() as u64, all, "each job had one run");
}

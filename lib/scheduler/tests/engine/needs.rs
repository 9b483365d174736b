//! Jobs that ask for what older agents do not know.

use crate::lab::{Lab, accepted, new_agent, spec, starts};
use job::{JobId, Status, Umask};
use scheduler::{Action, Input, JobSpec};

fn newer() -> JobSpec {
    JobSpec { umask: Some(Umask(0o27)), nice: Some(3), ..spec() }
}

/// An agent that speaks that version.
fn agent(lab: &mut Lab, name: &str, protocol: u32, slots: u32) -> u64 {
    lab.act(new_agent(name, slots, &["default"]));
    lab.connect_as(name, protocol, &[]).0
}

fn stands(lab: &Lab, job: JobId) -> (Status, Option<&str>) {
    (lab.job(job).status, lab.job(job).agent.as_deref())
}

#[test]
fn a_job_is_not_placed_on_an_agent_that_would_ignore_what_it_asks_for_and_why_names_both_numbers() {
    let mut lab = Lab::new();
    let session = agent(&mut lab, "a", 1, 5);
    for pin in [None, Some("a".to_owned())] {
        let (job, actions) = lab.submit(JobSpec { agent: pin, ..newer() });
        assert_eq!((starts(&actions), stands(&lab, job)), (Vec::new(), (Status::Queued, None)));
        let why = "agent \"a\" speaks protocol 1, and umask, nice needs 2: upgrade the agent";
        assert!(lab.why(job).contains(why), "{}", lab.why(job));
    }
    let (plain, _) = lab.submit(spec());
    assert_eq!(stands(&lab, plain), (Status::Dispatched, Some("a")), "others are not in its way");
    // It is upgraded.
    lab.disconnect("a", session);
    let (_, actions) = lab.connect_as("a", 2, &[(lab.run_of(plain).id, 1)]);
    assert_eq!(starts(&actions).len(), 2);
    let says_so = |action: &Action| !matches!(action, Action::Start { spec, .. } if spec.needs != Some(2));
    assert!(actions.iter().all(says_so), "{actions:?}");
}

#[test]
fn a_job_that_waits_for_a_newer_agent_stands_in_nobodys_way() {
    let mut lab = Lab::new();
    agent(&mut lab, "new", 2, 1);
    let (first, _) = lab.submit(spec());
    assert_eq!(stands(&lab, first), (Status::Dispatched, Some("new")));
    let (high, _) = lab.submit(JobSpec { priority: 9, ..newer() });
    let (low, _) = lab.submit(spec());
    agent(&mut lab, "old", 1, 2);
    assert_eq!(stands(&lab, high), (Status::Queued, None));
    assert_eq!(stands(&lab, low), (Status::Dispatched, Some("old")));
    assert!(lab.why(high).contains("all 1 slots of the 1 connected process servers"), "{}", lab.why(high));
    assert!(lab.why(high).contains("1 more are too old for the job's umask, nice"), "{}", lab.why(high));
    let run = lab.run_of(first).id;
    lab.run_through("new", run, 0);
    assert_eq!(stands(&lab, high), (Status::Dispatched, Some("new")));
}

#[test]
fn where_no_connected_agent_is_new_enough_why_says_so() {
    let mut lab = Lab::new();
    agent(&mut lab, "a", 1, 1);
    agent(&mut lab, "b", 1, 1);
    let (job, _) = lab.submit(newer());
    let why = "none of the 2 connected process servers of queue \"default\" speaks protocol 2, which umask, nice needs";
    assert!(lab.why(job).contains(why), "{}", lab.why(job));
}

#[test]
fn a_run_whose_agent_comes_back_as_an_older_one_is_not_ordered_again_and_that_is_no_attempt() {
    let mut lab = Lab::new();
    let mut session = agent(&mut lab, "a", 2, 1);
    let (job, _) = lab.submit(newer());
    for _ in 0..5 {
        assert_eq!(stands(&lab, job), (Status::Dispatched, Some("a")));
        lab.disconnect("a", session);
        let (older, actions) = lab.connect_as("a", 1, &[]); // it was never received
        assert_eq!((starts(&actions), stands(&lab, job).0), (Vec::new(), Status::Queued));
        lab.disconnect("a", older);
        session = lab.connect_as("a", 2, &[]).0;
    }
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    lab.disconnect("a", session);
    // What it has on its disk is its own.
    lab.connect_as("a", 1, &[(run, 1)]);
    assert_eq!(stands(&lab, job), (Status::Dispatched, Some("a")));
    lab.act(Input::KillJob { job, by: "me".into(), grace_ms: None });
}

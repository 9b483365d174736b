//! `why` names the blocker, in one sentence each.

use crate::lab::{Lab, accepted, exited, new_agent, spec, started};
use crate::policies::{retry, unknown};
use job::{JobId, OnUnknown, RestartSafe};
use scheduler::{Input, JobSpec};
use std::collections::BTreeSet;

fn assert_why(lab: &Lab, job: JobId, parts: &[&str]) {
    let text = lab.why(job);
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
}

#[test]
fn a_queue_without_agents_is_named() {
    let mut lab = Lab::new();
    let (job, _) = lab.submit(spec());
    assert_why(&lab, job, &["no process server is attached to queue \"default\""]);
}

#[test]
fn a_hold_is_named() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    lab.act(Input::HoldQueue { name: "default".into(), held: true });
    let (job, _) = lab.submit(spec());
    assert_why(&lab, job, &["queue \"default\" is held", "lastword queue release default"]);
    lab.act(Input::HoldJob { job });
    assert_why(&lab, job, &["it is held", &format!("lastword job release {job}")]);
    lab.act(Input::ReleaseJob { job });
    lab.act(Input::HoldQueue { name: "default".into(), held: false });
    assert_why(&lab, job, &["dispatched to agent \"a\", which has not accepted it yet"]);
}

#[test]
fn an_agent_that_is_not_connected_is_named_and_since_when() {
    let mut lab = Lab::new();
    lab.act(new_agent("a", 1, &["default"]));
    let (job, _) = lab.submit(spec());
    assert_why(&lab, job, &["agent \"a\" is not connected and never was"]);
    let (session, _) = lab.connect("a", &[]);
    lab.disconnect("a", session);
    assert_why(
        &lab,
        job,
        &["it is dispatched to agent \"a\", which is not connected since 2027-01-15T08:00:00.000Z"],
    );
    let (next, _) = lab.submit(spec());
    assert_why(&lab, next, &["agent \"a\" is not connected since 2027-01-15T08:00:00.000Z"]);
    let (session, _) = lab.connect("a", &[]);
    lab.act(Input::AgentDisconnected { agent: "a".into(), session, stopping: true });
    assert_why(&lab, next, &["stopped on purpose"]);
    lab.connect("a", &[]);
    lab.restart();
    assert_why(&lab, next, &["since this server started"]);
    lab.act(new_agent("b", 1, &["default"]));
    assert_why(&lab, next, &["none of the 2 process servers of queue \"default\" is connected: a, b"]);
}

#[test]
fn taken_slots_are_counted() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    lab.submit(spec());
    let (first, _) = lab.submit(spec());
    assert_why(&lab, first, &["all 1 slots of agent \"a\" are taken"]);
    lab.agent("b", 1);
    let (job, _) = lab.submit(spec());
    assert_why(&lab, job, &["all 2 slots of the 2 connected process servers of queue \"default\" are taken"]);
    lab.act(new_agent("c", 1, &["default"]));
    assert_why(&lab, job, &["and 1 more are not connected"]);
}

#[test]
fn an_agent_that_refuses_is_quoted() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    lab.act(Input::AgentRefusing { agent: "a".into(), session, refusing: "disk full".into() });
    let (job, _) = lab.submit(spec());
    assert_why(&lab, job, &["agent \"a\" refuses new runs: disk full"]);
    lab.agent("b", 1);
    lab.submit(spec());
    let (job, _) = lab.submit(spec());
    assert_why(&lab, job, &["agent \"a\" refuses new runs: disk full"]);
}

#[test]
fn a_job_for_a_certain_agent_names_that_agent() {
    let mut lab = Lab::new();
    lab.agent("b", 1);
    lab.act(new_agent("a", 1, &[]));
    let (job, _) = lab.submit(JobSpec { agent: Some("a".into()), ..spec() });
    assert_why(&lab, job, &["may only run on agent \"a\", which is not attached to queue \"default\""]);
    lab.act(Input::Attach { queue: "default".into(), agent: "a".into() });
    assert_why(&lab, job, &["agent \"a\" is not connected and never was"]);
}

#[test]
fn a_running_job_says_where_it_runs() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    assert_why(&lab, job, &["agent \"a\" accepted it at 2027-01-15T08:00:00.000Z"]);
    lab.say("a", run, 2, started());
    assert_why(&lab, job, &["it runs on agent \"a\" since 2027-01-15T08:00:00.000Z"]);
    lab.disconnect("a", session);
    assert_why(&lab, job, &["as far as is known", "not connected since"]);
}

#[test]
fn jobs_that_go_first_are_counted_and_those_of_a_higher_priority_are_named() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (first, _) = lab.submit(spec());
    lab.submit(spec());
    let (job, _) = lab.submit(spec());
    lab.submit(JobSpec { priority: 1, ..spec() });
    lab.submit(JobSpec { priority: 2, ..spec() });
    let by = format!(
        "all 1 slots of agent \"a\" are taken, by job {first} since 2027-01-15T08:00:00.000Z the longest"
    );
    assert_why(
        &lab,
        job,
        &[&by, "3 jobs are before it in queue \"default\", 2 of them by a higher priority"],
    );
}

#[test]
fn a_job_for_an_agent_that_was_removed_says_so() {
    let mut lab = Lab::new();
    lab.act(new_agent("a", 1, &["default"]));
    let (job, _) = lab.submit(JobSpec { agent: Some("a".into()), ..spec() });
    lab.act(Input::RemoveAgent { name: "a".into(), force: false, by: "me".into() });
    assert_why(&lab, job, &["it may only run on agent \"a\", which was removed"]);
}

#[test]
fn a_kill_that_is_not_confirmed_is_told_with_who_asked_and_when() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let kill = || Input::KillJob { job, by: "op".into(), grace_ms: None };
    lab.act(kill());
    let asked = "; op asked for its end at 2027-01-15T08:00:00.000Z, which its agent has not confirmed";
    assert_why(&lab, job, &["has not accepted it yet since", asked]);
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, started());
    assert_why(&lab, job, &["it runs on agent \"a\"", asked]);
}

/// One job of each kind that does not run, and why.
fn sentences() -> Vec<String> {
    let mut lab = Lab::new();
    let session = lab.agent("a", 9);
    for queue in ["held", "empty", "full"] {
        lab.act(Input::CreateQueue { name: queue.into() });
    }
    lab.act(Input::HoldQueue { name: "held".into(), held: true });
    lab.act(Input::Attach { queue: "full".into(), agent: "a".into() });
    lab.act(Input::SetQueue { name: "full".into(), slots: Some(Some(1)), priority: None });
    lab.act(new_agent("b", 1, &[]));
    lab.act(new_agent("c", 1, &["default"]));
    let mut jobs: Vec<JobId> = Vec::new();
    let mut add = |lab: &mut Lab, spec: JobSpec| {
        let (job, _) = lab.submit(spec);
        jobs.push(job);
        job
    };
    add(&mut lab, JobSpec { held: true, ..spec() });
    add(&mut lab, JobSpec { delay_ms: Some(5_000), ..spec() });
    for queue in ["held", "empty", "full", "full"] {
        add(&mut lab, JobSpec { queue: queue.into(), ..spec() });
    }
    for agent in ["b", "c"] {
        add(&mut lab, JobSpec { agent: Some(agent.into()), ..spec() });
    }
    let pausing = add(&mut lab, JobSpec { policy: retry(2), ..spec() });
    lab.run_through("a", lab.run_of(pausing).id, 7);
    let asks = unknown(OnUnknown::None, RestartSafe::Ask);
    let asking = add(&mut lab, JobSpec { policy: asks, ..spec() });
    lab.lose("a", session, asking);
    let accepted_one = add(&mut lab, spec());
    lab.say("a", lab.run_of(accepted_one).id, 1, accepted());
    let running = add(&mut lab, spec());
    let run = lab.run_of(running).id;
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, started());
    lab.act(Input::AgentRefusing { agent: "a".into(), session, refusing: "disk full".into() });
    add(&mut lab, JobSpec { agent: Some("a".into()), ..spec() });
    add(&mut lab, JobSpec { agent: Some("a".into()), ..spec() });
    lab.act(Input::SetSlots { name: "a".into(), slots: 1 });
    lab.act(Input::AgentRefusing { agent: "a".into(), session, refusing: String::new() });
    add(&mut lab, JobSpec { agent: Some("a".into()), ..spec() });
    let (over, _) = lab.submit(JobSpec { held: true, ..spec() });
    lab.act(Input::CancelJob { job: over, by: "me".into() });
    assert_eq!(lab.engine.why(over, lab.now_ms), None, "the record tells of what is over");
    lab.say("a", run, 3, exited(0));
    jobs.iter().filter(|job| **job != running).map(|job| lab.why(*job)).collect()
}

#[test]
fn every_cause_has_its_own_sentence() {
    let sentences = sentences();
    // Without names, numbers and times they are still different.
    let bare = |text: &String| {
        let words = text.split(' ').filter(|word| !word.contains(|c: char| c.is_ascii_digit() || c == '"'));
        words.collect::<Vec<_>>().join(" ")
    };
    let kinds: BTreeSet<String> = sentences.iter().map(bare).collect();
    assert!(kinds.len() >= 12, "{} kinds of {sentences:#?}", kinds.len());
}

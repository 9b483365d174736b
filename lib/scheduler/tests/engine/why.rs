//! `why` names the blocker, in one sentence each.

use crate::lab::{Lab, accepted, new_agent, spec, started};
use job::JobId;
use scheduler::{Input, JobSpec};

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

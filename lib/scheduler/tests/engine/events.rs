//! What is told: everything that was committed, once, in order, and nothing else.

use crate::lab::{Lab, accepted, account, exited, spec, started};
use job::Status;
use prost::Message;
use protocol::message::{Captured, Fact, FactBody};
use scheduler::{EventKind, FactIn, Input, JobSpec, KeptFile, Severity};

/// The kinds since `from`, with the status or text.
fn told(lab: &Lab, from: usize) -> Vec<String> {
    let words = |record: &scheduler::EventRecord| {
        let event = &record.event;
        let status = event.data.get("status").and_then(|status| status.as_str());
        format!("{} {} {}", event.object, event.kind.name(), status.unwrap_or(&event.text))
    };
    lab.store.events[from..].iter().map(words).collect()
}

#[test]
fn the_life_of_a_job_is_told_in_the_statuses_that_were_committed() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let from = lab.store.events.len();
    let (job, actions) = lab.submit(JobSpec { name: "n".into(), ..spec() });
    let run = crate::lab::starts(&actions)[0].1;
    lab.run_through("a", run, 3);
    let expected = [
        "job/1 job.status Dispatched",
        "job/1 job.status Running",
        "job/1 run.outcome Error",
        "job/1 job.status Error",
    ];
    assert_eq!(told(&lab, from), expected);
    let last = &lab.store.events.last().unwrap().event;
    assert_eq!((last.severity, last.queue.as_deref()), (Severity::Warning, Some("default")));
    assert_eq!((&last.data["exit_code"], &last.data["name"]), (&3.into(), &"n".into()));
    // The same facts again, as after a lost acknowledgement, are no news.
    let before = lab.store.events.len();
    lab.run_through("a", run, 3);
    assert_eq!((lab.store.events.len(), lab.job(job).exit_code), (before, Some(3)));
}

#[test]
fn a_file_that_an_agent_kept_is_written_down_once_with_its_job_and_agent() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, actions) = lab.submit(spec());
    let run = crate::lab::starts(&actions)[0].1;
    lab.run_through("a", run, 0);
    for _ in 0..2 {
        let file = Captured { name: "../x".into(), bytes: Some(7), sha256: vec![1; 32] };
        lab.say("a", run, 4, FactBody::Captured(file));
    }
    let KeptFile { name, bytes, agent, .. } = &lab.store.files[0];
    assert_eq!((lab.store.files.len(), lab.store.files[0].job, *bytes), (1, job, 7));
    assert_eq!((name.as_str(), agent.as_str()), ("../x", "a"));
}

#[test]
fn what_is_told_of_a_run_while_its_end_is_written_is_in_the_next_batch_and_then_it_leaves_the_memory() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, actions) = lab.submit(spec());
    let run = crate::lab::starts(&actions)[0].1;
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, started());
    let hear = |lab: &mut Lab, seq, body| {
        let fact = FactIn::new(run, seq, Fact::new(lab.now_ms, body).encode_to_vec());
        lab.engine.on(Input::Facts { agent: "a".into(), facts: vec![fact] }, lab.now_ms).unwrap();
    };
    let file = Captured { name: "x".into(), bytes: Some(7), sha256: vec![1; 32] };
    hear(&mut lab, 3, exited(0));
    let end = lab.engine.take();
    hear(&mut lab, 4, FactBody::Captured(file));
    lab.store.apply(&end.changes);
    lab.engine.on_committed(end.passing, end.changes);
    assert!(lab.engine.has_run(run), "or what came meanwhile would be lost");
    let more = lab.engine.take();
    lab.store.apply(&more.changes);
    lab.engine.on_committed(more.passing, more.changes);
    assert_eq!((lab.store.files.len(), lab.store.runs[&run].acked_seq), (1, 4));
    assert_eq!((lab.job(job).status, lab.store.facts.len()), (Status::Completed, 4));
    assert!(!lab.engine.has_run(run) && !lab.engine.has_job(job));
}

#[test]
fn a_restart_tells_nothing_twice_and_goes_on_counting() {
    let mut lab = Lab::new();
    let (job, _) = lab.submit(spec());
    lab.act(Input::HoldJob { job });
    let before = lab.store.events.len();
    lab.restart();
    lab.act(Input::Tick);
    assert_eq!(lab.store.events.len(), before);
    lab.act(Input::ReleaseJob { job });
    assert_eq!(told(&lab, before), ["job/1 job.status Queued"]);
}

#[test]
fn agents_and_queues_are_told_of_and_what_changes_nothing_is_not() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let from = lab.store.events.len();
    let refusing =
        |refusing: &str| Input::AgentRefusing { agent: "a".into(), session, refusing: refusing.into() };
    for _ in 0..2 {
        lab.act(refusing("no room"));
        lab.act(Input::HoldQueue { name: "default".into(), held: true });
    }
    lab.act(refusing(""));
    lab.act(Input::AgentConnected(account("a", 99, "another")));
    lab.disconnect("a", session);
    lab.disconnect("a", session);
    let kinds: Vec<EventKind> = lab.store.events[from..].iter().map(|record| record.event.kind).collect();
    let expected = [
        EventKind::AgentRefusing,
        EventKind::QueueHeld,
        EventKind::AgentTaking,
        EventKind::AgentTwoIdentities,
        EventKind::AgentRefused,
        EventKind::AgentLost,
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn failed_proofs_are_told_once_until_the_agent_connects() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let from = lab.store.events.len();
    let unproven = |address: &str| Input::AgentUnproven {
        agent: "a".into(),
        address: address.into(),
        reason: "wrong secret".into(),
    };
    for n in 0..3 {
        lab.act(unproven(&format!("192.0.2.{n}:1")));
    }
    assert_eq!(lab.engine.agent("a").unwrap().failed_proof.unwrap().address, "192.0.2.2:1");
    lab.connect("a", &[]);
    lab.act(unproven("192.0.2.9:1"));
    let kinds: Vec<EventKind> = lab.store.events[from..].iter().map(|record| record.event.kind).collect();
    assert_eq!(kinds, [EventKind::AgentUnproven, EventKind::AgentConnected, EventKind::AgentUnproven]);
}

//! `why` names the blocker, in one sentence each.

use crate::lab::{Lab, accepted, ended, exited, new_agent, spec, started};
use crate::policies::{retry, unknown};
use job::{End, JobId, OnUnknown, Outcome, RestartSafe, StopCause, Usage, Witness};
use protocol::message::{FactBody, RefusalKind, Resumed, Suspended};
use scheduler::{Input, JobSpec, Recovery, became};
use std::collections::BTreeSet;

/// The lab's clock, as a sentence says it.
const NOW: &str = "2027-01-15T08:00:00.000Z";

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

#[test]
fn a_full_queue_names_its_longest_run_and_one_without_slots_says_how_to_get_some() {
    let mut lab = Lab::new();
    lab.agent("a", 9);
    let slots = |slots| Input::SetQueue { name: "default".into(), slots: Some(Some(slots)), priority: None };
    lab.act(slots(1));
    let (first, _) = lab.submit(spec());
    let (job, _) = lab.submit(spec());
    let by = format!("all 1 slots of queue \"default\" are taken, by job {first} since {NOW} the longest");
    assert_why(&lab, job, &[&by, "lastword queue set default --slots N"]);
    lab.act(slots(0));
    assert_why(
        &lab,
        job,
        &["queue \"default\" has no slots; `lastword queue set default --slots N` gives it some"],
    );
    lab.act(slots(9));
    let (job, _) = lab.submit(spec());
    lab.act(Input::SetSlots { name: "a".into(), slots: 0 });
    let (other, _) = lab.submit(spec());
    assert_why(&lab, job, &["dispatched to agent \"a\""]);
    assert_why(&lab, other, &["agent \"a\" has no slots; `lastword agent set a --slots N` gives it some"]);
}

#[test]
fn a_drained_agent_is_named_with_who_since_when_and_why() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    lab.act(Input::DrainAgent { name: "a".into(), by: "anna".into(), reason: "new kernel".into() });
    let (job, _) = lab.submit(spec());
    let said = format!("agent \"a\" is drained by anna since {NOW} (new kernel)");
    assert_why(&lab, job, &[&said, "lastword agent resume a"]);
}

#[test]
fn an_agent_that_had_no_room_tells_when_it_is_asked_again_and_what_it_said() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    lab.refuse("a", session, lab.run_of(job).id, RefusalKind::NoRoom);
    let said = "agent \"a\" had no room and is asked again at 2027-01-15T08:00:05.000Z";
    assert_why(&lab, job, &[said, "before that, agent \"a\" had no room: disk full"]);
}

#[test]
fn an_agent_that_is_away_and_in_trouble_says_so() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (done, _) = lab.submit(spec());
    let run = lab.run_of(done).id;
    lab.run_through("a", run, 0);
    let other = protocol::message::Fact::new(lab.now_ms, exited(1));
    let stored = protocol::message::Fact::new(lab.now_ms, exited(0));
    let fact = scheduler::FactIn::new(run, 3, prost::Message::encode_to_vec(&other));
    let fact = scheduler::FactIn { stored: Some(prost::Message::encode_to_vec(&stored)), ..fact };
    lab.act(Input::Facts { agent: "a".into(), facts: vec![fact] });
    lab.disconnect("a", session);
    let (job, _) = lab.submit(spec());
    assert_why(&lab, job, &["agent \"a\" is not connected since", "; trouble with it: message 3 of run"]);
}

#[test]
fn what_waits_for_a_time_for_a_pause_or_for_somebody_says_until_when_and_what_can_be_done() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 9);
    let (late, _) = lab.submit(JobSpec { delay_ms: Some(5_000), ..spec() });
    assert_why(&lab, late, &["it was submitted for 2027-01-15T08:00:05.000Z: that time has not come"]);
    let (pausing, _) = lab.submit(JobSpec { policy: retry(2), ..spec() });
    lab.run_through("a", lab.run_of(pausing).id, 7);
    let now = format!("`lastword job restart {pausing}` begins it now");
    let said = "it pauses until 2027-01-15T08:00:10.000Z before its next attempt: attempt 1 of 2 ended Error (exit code 7)";
    assert_why(&lab, pausing, &[said, &now]);
    lab.act(Input::HoldJob { job: pausing });
    assert_why(&lab, pausing, &["it is held", "before that, attempt 1 of 2 ended Error"]);
    let asks = unknown(OnUnknown::None, RestartSafe::Ask);
    let (asking, _) = lab.submit(JobSpec { policy: asks, ..spec() });
    lab.lose("a", session, asking);
    let abandon = format!("lastword job abandon {asking} --reason TEXT");
    assert_why(&lab, asking, &["it waits for an operator's decision: attempt 1 ended Unknown", &abandon]);
}

#[test]
fn a_suspended_job_says_how_it_goes_on_and_a_wish_that_is_not_confirmed_is_told() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, started());
    lab.act(Input::SuspendJob { job, by: "op".into() });
    let wish = format!("; op asked that it stands still at {NOW}, which its agent has not confirmed");
    assert_why(&lab, job, &["it runs on agent \"a\"", &wish]);
    lab.say("a", run, 3, FactBody::Suspended(Suspended::default()));
    assert_why(&lab, job, &["it is suspended on agent \"a\"", &format!("lastword job resume {job}")]);
    lab.act(Input::ResumeJob { job, by: "op".into() });
    let text = lab.why(job);
    assert!(text.contains("op asked that it goes on at") && !text.contains("lastword job resume"), "{text}");
    lab.say("a", run, 4, FactBody::Resumed(Resumed::default()));
    assert_why(&lab, job, &["it runs on agent \"a\""]);
}

#[test]
fn a_job_of_a_restored_backup_names_the_agents_that_have_not_told() {
    let mut lab = Lab::new();
    lab.act(new_agent("a", 1, &["default"]));
    let (job, _) = lab.submit(spec());
    lab.store.recovery = Some(Recovery { last_job: job.0, untold: BTreeSet::from(["a".to_owned()]) });
    lab.restart();
    assert_why(
        &lab,
        job,
        &["restored from a backup", "until these agents have told what they ran: a", "end-recovery"],
    );
}

/// What is said of a job that is over.
fn became_of(lab: &Lab, job: JobId) -> String {
    let record = lab.job(job);
    became(record, record.run.map(|run| &lab.store.runs[&run]))
}

#[test]
fn a_job_that_is_over_says_how_why_where_when_and_who_saw_it() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 9);
    let ended_by =
        |end, cause, usage| ended(&Outcome::Ended { end, cause, witness: Witness::Monitor, usage });
    let signaled = End::Signaled { signal: 9, core: false };
    let oom = Some(Usage { oom_kills: Some(2), ..Usage::default() });
    let kill = Some(StopCause::Kill { by: "op".into() });
    let late = Some(StopCause::TimedOut { timeout_ms: 5_000 });
    let never = Outcome::CannotExecute { reason: "/bin/x: No such file".into() };
    let at = format!(", on agent \"a\", at {NOW}, seen by");
    for (end, said) in [
        (exited(0), format!("Completed: exit code 0{at} job-processor")),
        (exited(7), format!("Error: exit code 7{at} job-processor")),
        (
            ended_by(signaled, None, oom),
            format!(
                "Error: ended by signal 9; the kernel killed 2 of its processes for want of memory{at} monitor"
            ),
        ),
        (ended_by(signaled, kill, None), format!("Killed: signal 9; killed by op{at} monitor")),
        (
            ended_by(End::Exited { code: 3 }, late, None),
            format!("Killed: exit code 3; timed out after 5s{at} monitor"),
        ),
        (ended(&never), format!("Error: /bin/x: No such file{at} job-processor")),
    ] {
        let (job, _) = lab.submit(spec());
        let run = lab.run_of(job).id;
        lab.say("a", run, 1, accepted());
        lab.say("a", run, 2, started());
        lab.say("a", run, 3, end);
        assert_eq!(became_of(&lab, job), format!("it is over, {said}"));
    }
    let (lost, _) = lab.submit(spec());
    lab.lose("a", session, lost);
    let text = became_of(&lab, lost);
    assert!(
        text.starts_with("it is over, Unknown: agent \"a\" has no record")
            && text.ends_with("seen by nobody"),
        "{text}"
    );
    lab.say("a", lab.run_of(lost).id, 2, exited(0));
    let text = became_of(&lab, lost);
    assert!(
        text.ends_with("its true outcome came later and is shown beside: Completed, exit code 0"),
        "{text}"
    );
    let (canceled, _) = lab.submit(JobSpec { held: true, ..spec() });
    lab.act(Input::CancelJob { job: canceled, by: "op".into() });
    assert_eq!(
        became_of(&lab, canceled),
        format!("it is over, Canceled: canceled by op before it started, at {NOW}")
    );
    let (retried, _) = lab.submit(JobSpec { policy: retry(1), ..spec() });
    lab.run_through("a", lab.run_of(retried).id, 7);
    assert_eq!(became_of(&lab, retried), format!("it is over, Error: exit code 7{at} job-processor"));
    let (gone, _) = lab.submit(spec());
    lab.disconnect("a", session);
    lab.act(Input::AbandonJob { job: gone, by: "op".into(), reason: "scrapped".into() });
    assert_eq!(
        became_of(&lab, gone),
        format!("it is over, Abandoned: abandoned by op: scrapped, on agent \"a\", at {NOW}")
    );
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

#[test]
fn an_agent_that_fails_to_prove_itself_is_not_taken_for_one_that_is_merely_stopped() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    lab.act(Input::AgentDisconnected { agent: "a".into(), session, stopping: true });
    let (job, _) = lab.submit(spec());
    let unproven = || Input::AgentUnproven {
        agent: "a".into(),
        address: "192.0.2.7:7412".into(),
        reason: "wrong secret".into(),
    };
    lab.act(unproven());
    assert_why(
        &lab,
        job,
        &["stopped on purpose; the last try at ", " to reach it at 192.0.2.7:7412 failed: wrong secret"],
    );
    lab.act(new_agent("b", 1, &["default"]));
    assert_why(&lab, job, &["none of the 2", "a (its tries fail: wrong secret), b"]);
    lab.connect("a", &[]);
    assert_eq!(lab.engine.agent("a").unwrap().failed_proof, None);
    lab.act(Input::AgentUnproven { agent: "nobody".into(), address: String::new(), reason: String::new() });
}

//! What the engine promises, one promise at a time.

use crate::lab::{
    Lab, accepted, account, ended, exited, has_ack, has_any_ack, kills, new_agent, spec, started, starts,
};
use job::{JobId, Never, Outcome, Status};
use protocol::message::{FactBody, RefusalKind};
use scheduler::{Action, Input, JobSpec, Rejection, Reply, Submitted};

#[test]
fn a_job_is_placed_in_the_same_step_if_there_is_a_slot() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, actions) = lab.submit(spec());
    assert_eq!(lab.job(job).status, Status::Dispatched);
    assert_eq!(starts(&actions), [("a".to_owned(), lab.run_of(job).id)]);
    assert_eq!((lab.job(job).spec.name.as_str(), lab.run_of(job).attempt), ("true", 1));
}

#[test]
fn a_run_goes_through_its_stages_to_the_exact_outcome() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    assert_eq!((lab.job(job).status, lab.run_of(job).accepted_at_ms), (Status::Dispatched, Some(lab.now_ms)));
    lab.now_ms += 10;
    lab.say("a", run, 2, started());
    assert_eq!((lab.job(job).status, lab.job(job).started_at_ms), (Status::Running, Some(lab.now_ms)));
    let actions = lab.say("a", run, 3, exited(7));
    let (job, run) = (lab.job(job).clone(), lab.run_of(job).clone());
    assert_eq!((job.status, job.exit_code, job.signal), (Status::Error, Some(7), None));
    assert_eq!(
        (run.status, run.exit_code, run.usage.cpu_ms, run.acked_seq),
        (Status::Error, Some(7), Some(5), 3)
    );
    assert!(has_ack(&actions, run.id, 3));
    assert!(
        lab.engine.job(job.id).is_none() && !lab.engine.has_run(run.id),
        "what is over leaves the memory"
    );
}

#[test]
fn the_higher_priority_goes_first_and_then_the_lower_number() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (running, _) = lab.submit(spec());
    let (late, _) = lab.submit(spec());
    let (later, _) = lab.submit(spec());
    let (urgent, _) = lab.submit(JobSpec { priority: 5, ..spec() });
    let mut order = Vec::new();
    let mut run = lab.run_of(running).id;
    for _ in 0..3 {
        let actions = lab.run_through("a", run, 0);
        run = starts(&actions)[0].1;
        order.push(lab.store.runs[&run].job);
    }
    assert_eq!(order, [urgent, late, later]);
}

#[test]
fn a_job_for_one_certain_agent_does_not_block_those_behind_it() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    lab.act(new_agent("away", 1, &["default"]));
    let (pinned, _) = lab.submit(JobSpec { agent: Some("away".into()), ..spec() });
    let (free, _) = lab.submit(spec());
    assert_eq!((lab.job(pinned).status, lab.job(free).status), (Status::Queued, Status::Dispatched));
    let (_, actions) = lab.connect("away", &[]);
    assert_eq!(starts(&actions).len(), 1);
    assert_eq!(lab.run_of(pinned).agent, "away");
}

#[test]
fn the_agent_with_the_greatest_share_of_free_slots_gets_the_job_and_then_the_name_decides() {
    let mut lab = Lab::new();
    lab.agent("b", 2);
    lab.agent("a", 2);
    lab.agent("small", 1);
    let jobs: Vec<_> = (0..5).map(|_| lab.submit(spec()).0).collect();
    let placed: Vec<_> = jobs.iter().map(|job| lab.run_of(*job).agent.as_str()).collect();
    assert_eq!(placed, ["a", "b", "small", "a", "b"]);
}

#[test]
fn slots_are_never_exceeded_and_a_freed_one_is_used_at_once() {
    let mut lab = Lab::new();
    lab.agent("a", 2);
    let jobs: Vec<_> = (0..3).map(|_| lab.submit(spec()).0).collect();
    assert_eq!(lab.job(jobs[2]).status, Status::Queued);
    assert_eq!(lab.engine.agent("a").unwrap().used, 2);
    let run = lab.run_of(jobs[0]).id;
    let actions = lab.run_through("a", run, 0);
    assert_eq!(starts(&actions).len(), 1);
    assert_eq!(lab.job(jobs[2]).status, Status::Dispatched);
    assert_eq!(starts(&lab.act(Input::SetSlots { name: "a".into(), slots: 9 })).len(), 0);
}

#[test]
fn a_fact_that_comes_twice_is_dropped_and_acknowledged_again() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    assert!(has_ack(&lab.say("a", run, 1, accepted()), run, 1));
    lab.say("a", run, 2, started());
    lab.say("a", run, 3, exited(0));
    let actions = lab.say("a", run, 3, exited(1));
    assert!(has_ack(&actions, run, 3), "also after years: the run is looked up");
    assert_eq!(lab.job(job).status, Status::Completed);
}

#[test]
fn a_gap_in_the_facts_is_neither_stored_nor_acknowledged() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    let actions = lab.say("a", run, 3, exited(0));
    assert!(!has_any_ack(&actions));
    assert_eq!((lab.job(job).status, lab.run_of(job).acked_seq), (Status::Dispatched, 1));
}

#[test]
fn a_fact_about_a_run_that_nobody_knows_is_kept_and_acknowledged() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let stranger = job::RunId::new(5, 5);
    assert!(has_ack(&lab.say("a", stranger, 1, accepted()), stranger, 1));
    assert!(lab.store.strays.contains(&(stranger, 1)));
}

#[test]
fn an_agent_cannot_speak_for_the_run_of_another() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    lab.agent("b", 1);
    let run = lab.run_of(job).id;
    lab.say("b", run, 1, exited(0));
    assert_eq!((lab.job(job).status, lab.store.strays.len()), (Status::Dispatched, 1));
}

#[test]
fn a_fact_that_cannot_be_read_is_stored_and_changes_nothing() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    let fact = scheduler::FactIn::new(run, 1, vec![0xff; 9]);
    let actions = lab.act(Input::Facts { agent: "a".into(), facts: vec![fact] });
    assert!(has_ack(&actions, run, 1) && lab.store.facts.contains(&(run, 1)));
    assert_eq!(lab.job(job).status, Status::Dispatched);
}

#[test]
fn a_run_that_was_not_accepted_is_ordered_again_with_the_same_id() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.disconnect("a", session);
    let (session, actions) = lab.connect("a", &[]);
    assert_eq!(starts(&actions), [("a".to_owned(), run)]);
    let actions = lab.act(Input::NoRecord { agent: "a".into(), session, run });
    assert_eq!(starts(&actions), [("a".to_owned(), run)]);
    let (_, actions) = lab.connect("a", &[(run, 0)]);
    assert!(starts(&actions).is_empty(), "it has it already");
}

#[test]
fn an_accepted_run_without_a_record_becomes_unknown_and_its_late_outcome_stands_beside() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    lab.disconnect("a", session);
    let (session, actions) = lab.connect("a", &[]);
    assert!(matches!(&actions[0], Action::Hello { missing, .. } if *missing == [run]));
    assert!(starts(&actions).is_empty());
    lab.act(Input::NoRecord { agent: "a".into(), session, run });
    assert_eq!(lab.job(job).status, Status::Unknown);
    assert!(lab.job(job).reason.as_ref().unwrap().contains("no record of a run that it had accepted"));
    lab.say("a", run, 2, started());
    let actions = lab.say("a", run, 3, exited(0));
    assert!(has_ack(&actions, run, 3));
    assert_eq!((lab.job(job).status, lab.run_of(job).status), (Status::Unknown, Status::Unknown));
    assert_eq!(lab.run_of(job).late.as_ref().unwrap().outcome.exit_code(), Some(0));
}

#[test]
fn the_word_of_an_older_session_does_not_count() {
    let mut lab = Lab::new();
    let old = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.connect("a", &[(run, 0)]);
    lab.say("a", run, 1, accepted());
    lab.act(Input::NoRecord { agent: "a".into(), session: old, run });
    lab.act(Input::AgentDisconnected { agent: "a".into(), session: old, stopping: false });
    assert_eq!(lab.job(job).status, Status::Dispatched);
    assert!(lab.engine.agent("a").unwrap().connected);
}

#[test]
fn the_agent_hears_what_the_server_has_of_its_runs() {
    let mut lab = Lab::new();
    lab.agent("a", 2);
    let (live, _) = lab.submit(spec());
    let (over, _) = lab.submit(spec());
    let (live, over) = (lab.run_of(live).id, lab.run_of(over).id);
    lab.say("a", live, 1, accepted());
    lab.run_through("a", over, 0);
    let (_, actions) = lab.connect("a", &[(live, 2), (over, 3), (job::RunId::new(1, 1), 1)]);
    let Action::Hello { known, missing, .. } = &actions[0] else { panic!("{actions:?}") };
    assert_eq!((known.as_slice(), missing.as_slice()), ([(live, 1), (over, 3)].as_slice(), [].as_slice()));
}

#[test]
fn killing_a_waiting_job_cancels_it_at_once() {
    let mut lab = Lab::new();
    let (job, _) = lab.submit(spec());
    let kill = |job| Input::KillJob { job, by: "me".into(), grace_ms: None };
    assert_eq!(kills(&lab.act(kill(job))), 0);
    assert_eq!(lab.job(job).status, Status::Canceled);
    assert_eq!(lab.reject(kill(JobId(99))), Rejection::NoSuchJob(JobId(99)));
    lab.agent("a", 1);
    assert_eq!(lab.job(job).run, None, "and it is never placed");
}

#[test]
fn the_wish_to_kill_a_run_is_durable_and_told_at_every_connection_until_there_is_an_outcome() {
    let mut lab = Lab::new();
    lab.agent("a", 2);
    let (running, _) = lab.submit(spec());
    let (sent, _) = lab.submit(spec());
    let run = lab.run_of(running).id;
    lab.say("a", run, 1, accepted());
    for job in [running, sent] {
        let actions = lab.act(Input::KillJob { job, by: "me".into(), grace_ms: Some(5) });
        assert_eq!((kills(&actions), lab.job(job).status), (1, Status::Dispatched));
    }
    lab.restart();
    let (_, actions) = lab.connect("a", &[(run, 1)]);
    assert_eq!((kills(&actions), starts(&actions).len()), (2, 0), "what is to end is not started");
    let canceled = Outcome::NeverStarted { reason: "canceled".into(), why: Never::Canceled };
    let tombstone = lab.run_of(sent).id;
    lab.say("a", tombstone, 1, ended(&canceled));
    assert_eq!(lab.job(sent).status, Status::Canceled);
    let (_, actions) = lab.connect("a", &[(run, 1)]);
    assert_eq!(kills(&actions), 1);
}

#[test]
fn an_agent_without_room_gets_nothing_for_a_growing_while_and_the_job_gets_a_new_run() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let first = lab.run_of(job).id;
    for pause_ms in [5_000, 10_000, 20_000, 40_000, 60_000, 60_000] {
        let run = lab.run_of(job).id;
        lab.refuse("a", session, run, RefusalKind::NoRoom);
        assert_eq!((lab.job(job).status, lab.store.runs[&run].status), (Status::Queued, Status::Canceled));
        assert!(
            lab.why(job).contains("is asked again at") && lab.why(job).contains("disk full"),
            "{}",
            lab.why(job)
        );
        lab.now_ms += pause_ms - 1;
        assert!(starts(&lab.act(Input::Tick)).is_empty());
        lab.now_ms += 1;
        assert_eq!(starts(&lab.act(Input::Tick)).len(), 1);
    }
    assert_eq!(lab.job(job).attempts, 7);
    assert_ne!(lab.run_of(job).id, first);
    let run = lab.run_of(job).id;
    lab.run_through("a", run, 0);
    assert_eq!(lab.job(job).status, Status::Completed);
}

#[test]
fn an_agent_that_has_room_again_says_so_and_is_asked_at_once() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.refuse("a", session, run, RefusalKind::NoRoom);
    let state =
        |refusing: &str| Input::AgentRefusing { agent: "a".into(), session, refusing: refusing.into() };
    assert!(starts(&lab.act(state("disk full"))).is_empty());
    assert!(lab.why(job).starts_with("agent \"a\" refuses new runs: disk full"), "{}", lab.why(job));
    assert_eq!(starts(&lab.act(state(""))).len(), 1);
}

#[test]
fn a_refused_run_goes_to_another_agent_if_there_is_one() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    lab.agent("b", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.refuse("a", session, run, RefusalKind::NoRoom);
    assert_eq!((lab.run_of(job).agent.as_str(), lab.run_of(job).attempt), ("b", 2));
}

#[test]
fn a_killed_job_that_is_refused_is_canceled() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    lab.act(Input::KillJob { job, by: "me".into(), grace_ms: None });
    let run = lab.run_of(job).id;
    lab.refuse("a", session, run, RefusalKind::NoRoom);
    assert_eq!(lab.job(job).status, Status::Canceled);
}

#[test]
fn each_refusal_has_its_own_consequence() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 3);
    let expected = [
        (RefusalKind::Expired, Status::Unknown),
        (RefusalKind::Invalid, Status::Error),
        (RefusalKind::Fenced, Status::Dispatched),
    ];
    for (kind, status) in expected {
        let (job, _) = lab.submit(spec());
        let run = lab.run_of(job).id;
        let actions = lab.refuse("a", session, run, kind);
        assert_eq!(lab.job(job).status, status, "{kind:?}");
        let fenced = actions.iter().any(|a| matches!(a, Action::Fenced { .. }));
        assert_eq!(fenced, kind == RefusalKind::Fenced);
    }
}

#[test]
fn a_run_that_never_started_is_placed_again_but_not_for_ever() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    for attempt in 1..=3 {
        assert_eq!(lab.run_of(job).attempt, attempt);
        let run = lab.run_of(job).id;
        lab.say("a", run, 1, accepted());
        lab.say("a", run, 2, started());
        let never = Outcome::NeverStarted { reason: "the job-processor died".into(), why: Never::Failed };
        lab.say("a", run, 3, FactBody::Ended((&never).into()));
    }
    assert_eq!(lab.job(job).status, Status::Error);
    assert_eq!(lab.job(job).attempts, 3);
}

#[test]
fn a_run_that_its_agent_accepted_and_had_no_room_to_start_is_no_attempt_however_often() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    for attempt in 1..=9 {
        assert_eq!((lab.job(job).status, lab.run_of(job).attempt), (Status::Dispatched, attempt));
        let run = lab.run_of(job).id;
        lab.say("a", run, 1, accepted());
        let never = Outcome::NeverStarted { reason: "disk full".into(), why: Never::NoRoom };
        lab.say("a", run, 2, FactBody::Ended((&never).into()));
        assert_eq!(lab.job(job).status, Status::Queued, "the agent rests");
        assert!(lab.why(job).contains("had no room"), "{}", lab.why(job));
        lab.now_ms += 60_000;
        lab.act(Input::Tick);
    }
    let run = lab.run_of(job).id;
    lab.run_through("a", run, 0);
    assert_eq!(lab.job(job).status, Status::Completed);
}

#[test]
fn a_slot_that_a_returned_run_frees_is_used_by_whichever_job_is_first_now() {
    for killed in [false, true] {
        let mut lab = Lab::new();
        let session = lab.agent("a", 1);
        let (first, _) = lab.submit(spec());
        let (second, _) = lab.submit(JobSpec { priority: 5, ..spec() });
        if killed {
            lab.act(Input::KillJob { job: first, by: "me".into(), grace_ms: None });
        }
        let run = lab.run_of(first).id;
        lab.say("a", run, 1, accepted());
        let never = Outcome::NeverStarted { reason: "no process".into(), why: Never::Failed };
        let actions = lab.say("a", run, 2, FactBody::Ended((&never).into()));
        assert_eq!(starts(&actions), [("a".to_owned(), lab.run_of(second).id)], "killed: {killed}");
        lab.disconnect("a", session);
    }
}

#[test]
fn a_run_that_is_asked_for_as_missing_is_not_killed_at_the_same_time() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    lab.disconnect("a", session);
    lab.act(Input::KillJob { job, by: "me".into(), grace_ms: None });
    let (_, actions) = lab.connect("a", &[]);
    assert!(matches!(&actions[0], Action::Hello { missing, .. } if *missing == [run]), "{actions:?}");
    assert_eq!(kills(&actions), 0);
}

#[test]
fn a_gap_in_an_agents_messages_makes_it_come_again() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    let actions = lab.say("a", run, 3, exited(0));
    assert!(actions.iter().any(|action| matches!(action, Action::Resync { .. })), "{actions:?}");
    assert!(!has_any_ack(&actions));
}

#[test]
fn a_pause_is_not_prolonged_by_a_clock_that_is_set_back() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.refuse("a", session, run, RefusalKind::NoRoom);
    lab.now_ms -= 3_600_000;
    assert_eq!(starts(&lab.act(Input::Tick)).len(), 1);
}

#[test]
fn an_accepted_run_whose_record_is_damaged_is_unknown() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, started());
    lab.refuse("a", session, run, RefusalKind::Damaged);
    assert_eq!(lab.job(job).status, Status::Unknown);
}

#[test]
fn a_run_that_was_accepted_cannot_be_refused_any_more() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    lab.refuse("a", session, run, RefusalKind::NoRoom);
    assert_eq!((lab.job(job).status, lab.job(job).attempts), (Status::Dispatched, 1));
}

#[test]
fn two_hosts_with_one_name_are_told_apart() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let refused = |actions: &[Action]| matches!(actions.last(), Some(Action::RefuseSession { .. }));
    let other = |session| Input::AgentConnected(account("a", session, "other"));
    assert!(refused(&lab.act(other(91))), "while the first is connected");
    let (job, _) = lab.submit(spec());
    lab.disconnect("a", session);
    assert!(refused(&lab.act(other(92))), "while the first has runs");
    let run = lab.run_of(job).id;
    lab.run_through("a", run, 0);
    assert!(!refused(&lab.act(other(93))), "a reinstalled host");
    assert!(lab.engine.agent("a").unwrap().connected);
}

#[test]
fn an_agent_with_runs_is_removed_by_force_only_and_its_runs_become_unknown() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let (waiting, _) = lab.submit(JobSpec { agent: Some("a".into()), ..spec() });
    let remove = |force| Input::RemoveAgent { name: "a".into(), force, by: "me".into() };
    assert!(matches!(lab.reject(remove(false)), Rejection::AgentInUse { runs: 1, .. }));
    lab.act(remove(true));
    assert_eq!((lab.job(job).status, lab.job(waiting).status), (Status::Unknown, Status::Queued));
    assert!(lab.why(waiting).contains("which was removed"));
    lab.agent("a", 1);
    assert_eq!(lab.job(waiting).status, Status::Dispatched, "the name is there again");
}

#[test]
fn the_same_idempotency_key_is_the_same_job() {
    let mut lab = Lab::new();
    let keyed = || JobSpec { idempotency_key: Some("k".into()), ..spec() };
    let (job, _) = lab.submit(keyed());
    let (reply, _) = lab.on(Input::Submit(vec![keyed(), spec()])).unwrap();
    let Reply::Submitted(jobs) = reply else { panic!("{reply:?}") };
    assert_eq!(jobs[0], Submitted { job, existing: true });
    assert!(!jobs[1].existing);
    let other = JobSpec { name: "other".into(), ..keyed() };
    assert!(matches!(lab.reject(Input::Submit(vec![other.clone()])), Rejection::KeyReused { .. }));
    let keys = |spec: JobSpec| JobSpec { idempotency_key: Some("new".into()), ..spec };
    assert!(matches!(lab.reject(Input::Submit(vec![keys(spec()), keys(other)])), Rejection::KeyTwice(_)));
    lab.act(Input::KillJob { job, by: "me".into(), grace_ms: None });
    assert!(!lab.engine.has_key("k"));
    let record = lab.job(job).clone();
    lab.engine.recall_key(&record);
    assert_eq!(lab.submit(keyed()).0, job, "also when it is over");
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let mut lab = Lab::new();
    let wrong = JobSpec { queue: "none".into(), ..spec() };
    assert_eq!(lab.reject(Input::Submit(vec![spec(), wrong])), Rejection::NoSuchQueue("none".into()));
    let empty = JobSpec { command: vec![], ..spec() };
    assert!(matches!(lab.reject(Input::Submit(vec![spec(), empty])), Rejection::BadSpec(_)));
    assert!(lab.store.jobs.is_empty());
}

#[test]
fn a_held_job_waits_and_a_placed_one_cannot_be_held() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (held, _) = lab.submit(JobSpec { held: true, ..spec() });
    assert_eq!(lab.job(held).status, Status::Held);
    let (other, _) = lab.submit(spec());
    assert!(matches!(lab.reject(Input::HoldJob { job: other }), Rejection::AlreadyPlaced { .. }));
    assert!(matches!(
        lab.reject(Input::CancelJob { job: other, by: "me".into() }),
        Rejection::AlreadyPlaced { .. }
    ));
    lab.act(Input::ReleaseJob { job: held });
    assert_eq!(lab.job(held).status, Status::Queued);
    lab.act(Input::HoldJob { job: held });
    let run = lab.run_of(other).id;
    lab.run_through("a", run, 0);
    assert_eq!(lab.job(held).status, Status::Held);
    assert!(matches!(lab.reject(Input::ReleaseJob { job: other }), Rejection::NoSuchJob(_)));
}

#[test]
fn names_that_could_confuse_are_refused() {
    let mut lab = Lab::new();
    for name in ["", "-x", "a b", "ü", "a/b", &"x".repeat(65)] {
        let input = Input::CreateQueue { name: name.into() };
        assert!(matches!(lab.reject(input), Rejection::BadName(..)), "{name}");
    }
    let input = Input::CreateQueue { name: "default".into() };
    assert!(matches!(lab.reject(input), Rejection::NameTaken(..)));
}

#[test]
fn a_queue_with_jobs_is_not_deleted() {
    let mut lab = Lab::new();
    let (job, _) = lab.submit(spec());
    let delete = || Input::DeleteQueue { name: "default".into() };
    assert!(matches!(lab.reject(delete()), Rejection::QueueInUse { jobs: 1, .. }));
    lab.act(Input::CancelJob { job, by: "me".into() });
    lab.act(delete());
    assert!(lab.engine.queues().is_empty() && lab.store.queues.is_empty());
}

#[test]
fn a_thousand_queues_with_fifty_agents_and_ten_thousand_jobs_are_worked_off() {
    let mut lab = Lab::new();
    let names: Vec<String> = (0..1000).map(|n| format!("q{n}")).collect();
    for name in &names {
        lab.act(Input::CreateQueue { name: name.clone() });
    }
    let queues: Vec<&str> = names.iter().map(String::as_str).collect();
    for n in 0..50 {
        lab.act(new_agent(&format!("a{n}"), 10, &queues));
    }
    let specs = (0..10_000).map(|n| JobSpec { queue: names[n % 1000].clone(), ..spec() }).collect();
    lab.act(Input::Submit(specs));
    let mut running = Vec::new();
    for n in 0..50 {
        running.extend(starts(&lab.connect(&format!("a{n}"), &[]).1));
    }
    assert_eq!(running.len(), 500);
    while let Some((agent, run)) = running.pop() {
        running.extend(starts(&lab.run_through(&agent, run, 0)));
    }
    assert_eq!(lab.engine.counts().of(Status::Completed), 10_000);
}

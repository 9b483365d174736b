//! Two hosts that claim to be one, data roots that went back in time, messages that changed, agents that are drained.

use crate::lab::*;
use job::{Never, Outcome, Status};
use prost::Message;
use protocol::message::{Fact, RefusalKind};
use scheduler::{Action, Connected, FactIn, Input};

/// An account from a host of that boot, after that many starts of the data root `a`.
fn from(session: u64, boot: u8, incarnation: u64) -> Connected {
    let platform = format!("host{boot} Linux");
    Connected { boot_id: [boot; 16], incarnation, platform, ..account("a", session, "a") }
}

fn connect(lab: &mut Lab, connected: Connected) -> Vec<Action> {
    lab.act(Input::AgentConnected(connected))
}

fn refusal(actions: &[Action]) -> Option<&str> {
    actions.iter().find_map(|action| {
        if let Action::RefuseSession { reason, .. } = action { Some(reason.as_str()) } else { None }
    })
}

fn notice(actions: &[Action]) -> Option<&str> {
    actions
        .iter()
        .find_map(|action| if let Action::Notice { text, .. } = action { Some(text.as_str()) } else { None })
}

fn answered(lab: &mut Lab, session: u64) -> Vec<Action> {
    lab.act(Input::AgentAnswered { agent: "a".into(), session })
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.act(new_agent("a", 2, &["default"]));
    lab
}

#[test]
fn a_copy_of_a_data_root_on_another_host_is_refused_and_both_are_told() {
    let mut lab = lab();
    connect(&mut lab, from(1, 1, 5));
    let actions = connect(&mut lab, from(2, 2, 6));
    assert!(refusal(&actions).unwrap().contains("host1") && refusal(&actions).unwrap().contains("host2"));
    assert!(actions.contains(&Action::Probe { agent: "a".into(), session: 1 }));
    assert_eq!(lab.store.agents["a"].trouble, None, "it may be the same host after a restart");
    let actions = answered(&mut lab, 1);
    assert!(notice(&actions).unwrap().contains("must not be used by two agents"));
    assert!(actions.iter().any(|action| matches!(action, Action::Warn(_))));
    let trouble = lab.store.agents["a"].trouble.clone().unwrap();
    assert_eq!(trouble.rival_boot_id, Some([2; 16]));
    // The copy does not get in when the first one is away, and not after a restart of the server either.
    lab.disconnect("a", 1);
    lab.restart();
    let actions = connect(&mut lab, from(3, 2, 7));
    assert!(refusal(&actions).unwrap().contains("agent resume a"));
    assert!(refusal(&connect(&mut lab, from(4, 1, 6))).is_none(), "the right one does");
    lab.disconnect("a", 4);
    lab.act(Input::ResumeAgent { name: "a".into() });
    assert!(refusal(&connect(&mut lab, from(5, 2, 8))).is_none(), "and the other one if an operator says so");
}

#[test]
fn a_host_that_was_restarted_gets_in_when_its_dead_session_is_noticed_and_nothing_is_reported() {
    let mut lab = lab();
    connect(&mut lab, from(1, 1, 5));
    assert!(refusal(&connect(&mut lab, from(2, 2, 6))).is_some());
    lab.disconnect("a", 1);
    answered(&mut lab, 1); // too late to count
    assert!(refusal(&connect(&mut lab, from(3, 2, 6))).is_none());
    assert_eq!(lab.store.agents["a"].trouble, None);
}

#[test]
fn a_new_start_on_the_same_host_takes_the_place_of_the_session_before() {
    let mut lab = lab();
    connect(&mut lab, from(1, 1, 5));
    assert!(refusal(&connect(&mut lab, from(2, 1, 6))).is_none());
    assert!(refusal(&connect(&mut lab, from(3, 1, 6))).is_none());
}

#[test]
fn a_data_root_that_went_back_in_time_is_let_in_and_reported() {
    let mut lab = lab();
    connect(&mut lab, from(1, 1, 5));
    lab.disconnect("a", 1);
    let actions = connect(&mut lab, from(2, 1, 3));
    assert!(refusal(&actions).is_none());
    assert!(notice(&actions).unwrap().contains("went back in time"));
    let position = |wanted: fn(&Action) -> bool| actions.iter().position(wanted);
    let greeted = position(|action| matches!(action, Action::Hello { .. }));
    assert!(greeted < position(|action| matches!(action, Action::Notice { .. })), "greeted first");
    assert!(lab.store.agents["a"].trouble.is_some());
}

#[test]
fn an_earlier_start_while_a_session_is_open_is_a_copy() {
    let mut lab = lab();
    connect(&mut lab, from(1, 1, 5));
    assert!(refusal(&connect(&mut lab, from(2, 1, 4))).is_some());
    answered(&mut lab, 1);
    assert_eq!(lab.store.agents["a"].trouble.clone().unwrap().rival_boot_id, None);
}

#[test]
fn another_data_root_under_a_name_that_is_connected_is_reported_once_a_minute() {
    let mut lab = lab();
    connect(&mut lab, from(1, 1, 5));
    let other = |session| Connected { boot_id: [2; 16], ..account("a", session, "other") };
    assert!(notice(&connect(&mut lab, other(2))).unwrap().contains("two hosts must not have one name"));
    assert!(notice(&connect(&mut lab, other(3))).is_none());
    assert!(lab.store.agents["a"].trouble.is_some());
}

#[test]
fn a_message_that_is_not_the_one_that_was_stored_is_reported_and_not_acknowledged() {
    let mut lab = lab();
    lab.connect("a", &[]);
    let (_, actions) = lab.submit(spec());
    let run = starts(&actions)[0].1;
    let bytes = |at_ms| Fact::new(at_ms, accepted()).encode_to_vec();
    lab.act(Input::Facts { agent: "a".into(), facts: vec![FactIn::new(run, 1, bytes(1))] });
    let again = |now, before| FactIn { stored: Some(bytes(before)), ..FactIn::new(run, 1, bytes(now)) };
    let actions = lab.act(Input::Facts { agent: "a".into(), facts: vec![again(1, 1)] });
    assert!(has_ack(&actions, run, 1));
    let actions = lab.act(Input::Facts { agent: "a".into(), facts: vec![again(2, 1)] });
    assert!(!has_any_ack(&actions));
    assert!(notice(&actions).unwrap().contains("not the one that was stored"));
    assert!(lab.store.agents["a"].trouble.is_some());
}

#[test]
fn a_message_that_changed_is_noticed_before_the_first_one_is_committed() {
    let mut lab = lab();
    lab.connect("a", &[]);
    let (_, actions) = lab.submit(spec());
    let run = starts(&actions)[0].1;
    let fact = |at_ms| FactIn::new(run, 1, Fact::new(at_ms, accepted()).encode_to_vec());
    let actions = lab.act(Input::Facts { agent: "a".into(), facts: vec![fact(1), fact(2)] });
    assert!(notice(&actions).is_some());
}

#[test]
fn a_drained_agent_gets_no_new_runs_until_it_is_resumed() {
    let mut lab = lab();
    lab.connect("a", &[]);
    let (_, actions) = lab.submit(spec());
    let run = starts(&actions)[0].1;
    lab.act(Input::DrainAgent { name: "a".into(), by: "me".into(), reason: "new kernel".into() });
    let (waiting, actions) = lab.submit(spec());
    assert!(starts(&actions).is_empty());
    let why = lab.why(waiting);
    assert!(
        why.contains("drained by me") && why.contains("new kernel") && why.contains("agent resume a"),
        "{why}"
    );
    assert!(starts(&lab.run_through("a", run, 0)).is_empty(), "what runs goes on, its slot stays empty");
    lab.restart();
    let (_, actions) = lab.connect("a", &[]);
    assert!(starts(&actions).is_empty(), "it is remembered");
    let actions = lab.act(Input::ResumeAgent { name: "a".into() });
    assert_eq!(starts(&actions).len(), 1);
    assert_eq!(lab.job(waiting).status, Status::Dispatched);
}

#[test]
fn refusals_for_want_of_room_do_not_use_up_the_attempts_of_a_run_that_never_starts() {
    let mut lab = lab();
    let (session, _) = lab.connect("a", &[]);
    let (id, _) = lab.submit(spec());
    for _ in 0..5 {
        let run = lab.run_of(id).id;
        lab.refuse("a", session, run, RefusalKind::NoRoom);
        lab.now_ms += 120_000;
        lab.act(Input::Tick);
    }
    let never = Outcome::NeverStarted { reason: "no process".into(), why: Never::Failed };
    for _ in 0..2 {
        let run = lab.run_of(id).id;
        lab.say("a", run, 1, accepted());
        lab.say("a", run, 2, ended(&never));
        assert!(!lab.job(id).status.is_final(), "{:?}", lab.job(id));
    }
    let run = lab.run_of(id).id;
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, ended(&never));
    assert_eq!(lab.job(id).status, Status::Error);
}

//! A restored database is a picture of the past: what agents ran since comes back, and nothing runs a second time.

use crate::lab::{Lab, Store, accepted, exited, has_any_ack, spec, started, starts};
use job::{JobId, Policy, RestartSafe, RunId, Status};
use prost::Message;
use protocol::message::{Fact, FactBody, RunSpec};
use scheduler::{Action, FactIn, Input, JobSpec, Recovery, Rejection, Restart};

/// What an agent has of a run.
struct Kept {
    agent: &'static str,
    run: RunId,
    spec: RunSpec,
    said: Vec<FactBody>,
}

impl Kept {
    fn of(agent: &'static str, actions: &[Action], said: Vec<FactBody>) -> Kept {
        let order = actions.iter().find_map(|action| {
            let Action::Start { agent: of, run, spec } = action else { return None };
            (of == agent).then(|| (*run, (**spec).clone()))
        });
        let (run, spec) = order.expect("it was started there");
        Kept { agent, run, spec, said }
    }

    fn facts(&self) -> Vec<FactIn> {
        let fact = |(seq, body): (u64, &FactBody)| {
            FactIn::new(self.run, seq, Fact::new(1_000, body.clone()).encode_to_vec())
        };
        (1..).zip(&self.said).map(fact).collect()
    }

    /// The agent sends it, and the server finds out what it was to run.
    fn told_to(&self, lab: &mut Lab) -> Result<Vec<Action>, Rejection> {
        let sent = lab.act(Input::Facts { agent: self.agent.into(), facts: self.facts() });
        assert!(has_any_ack(&sent), "a stray is stored and acknowledged");
        let spec = Box::new(self.spec.clone());
        lab.on(Input::Adopt { agent: self.agent.into(), spec, facts: self.facts() })
            .map(|(_, actions)| actions)
    }
}

fn all(code: u8) -> Vec<FactBody> {
    vec![accepted(), started(), exited(code)]
}

/// The server is destroyed, and `backup` takes its place.
fn restore(lab: &mut Lab, backup: Store) {
    let last_job = backup.jobs.keys().last().map_or(0, |id| id.0);
    let untold = backup.agents.keys().cloned().collect();
    lab.store = Store { recovery: Some(Recovery { last_job, untold }), ..backup };
    lab.restart();
}

fn tell_all(lab: &mut Lab, agent: &str) -> Vec<Action> {
    let (session, mut actions) = lab.connect(agent, &[]);
    actions.extend(lab.act(Input::CaughtUp { agent: agent.into(), session }));
    assert!(lab.engine.recovery().is_some_and(|view| view.caught_up.contains(&agent.to_owned())));
    actions.extend(lab.act(Input::Told { agent: agent.into() }));
    actions
}

#[test]
fn a_job_that_waited_in_the_backup_and_ran_since_is_not_started_again() {
    let mut lab = Lab::new();
    lab.act(crate::lab::new_agent("a", 9, &["default"]));
    let (ran, _) = lab.submit(spec());
    let backup = lab.store.clone();
    let (_, actions) = lab.connect("a", &[]);
    let kept = Kept::of("a", &actions, all(7));
    lab.run_through("a", kept.run, 7);
    restore(&mut lab, backup);
    assert!(
        lab.why(ran).contains("restored from a backup") && lab.why(ran).contains(": a."),
        "{}",
        lab.why(ran)
    );
    let (_, actions) = lab.connect("a", &[]);
    assert!(starts(&actions).is_empty(), "it may have run");
    assert!(starts(&kept.told_to(&mut lab).unwrap()).is_empty());
    let job = lab.job(ran);
    assert_eq!(
        (job.status, job.exit_code, job.attempts, job.run),
        (Status::Error, Some(7), 1, Some(kept.run))
    );
    assert!(lab.store.strays.is_empty());
    assert!(starts(&tell_all(&mut lab, "a")).is_empty());
    assert!(lab.engine.recovery().is_none() && lab.store.recovery.as_ref().unwrap().untold.is_empty());
}

#[test]
fn a_job_that_nobody_ran_goes_on_when_every_agent_has_told_and_new_jobs_do_not_wait() {
    let mut lab = Lab::new();
    lab.act(crate::lab::new_agent("a", 9, &["default"]));
    lab.act(crate::lab::new_agent("b", 9, &["default"]));
    let (old, _) = lab.submit(spec());
    let backup = lab.store.clone();
    restore(&mut lab, backup);
    assert!(starts(&tell_all(&mut lab, "a")).is_empty(), "b has not told");
    let (new, actions) = lab.submit(spec());
    assert_eq!(starts(&actions).len(), 1, "job {new} is new");
    lab.restart();
    assert!(starts(&lab.connect("a", &[]).1).len() == 1, "only the new one is ordered again");
    assert_eq!(lab.engine.recovery().unwrap().untold, ["b"]);
    lab.act(Input::EndRecovery);
    assert_eq!((lab.job(old).status, lab.job(new).status), (Status::Dispatched, Status::Dispatched));
}

#[test]
fn an_agent_that_is_removed_is_not_waited_for() {
    let mut lab = Lab::new();
    lab.agent("a", 9);
    let backup = lab.store.clone();
    restore(&mut lab, backup);
    let remove = Input::RemoveAgent { name: "a".into(), force: true, by: "me".into() };
    lab.act(remove);
    assert!(lab.engine.recovery().is_none());
}

#[test]
fn a_job_that_was_submitted_after_the_backup_is_put_back_from_its_order() {
    let mut lab = Lab::new();
    lab.agent("a", 9);
    let backup = lab.store.clone();
    let (new, actions) =
        lab.submit(JobSpec { name: "n".into(), idempotency_key: Some("k".into()), ..spec() });
    let kept = Kept::of("a", &actions, vec![accepted(), started()]);
    restore(&mut lab, backup);
    lab.connect("a", &[(kept.run, 2)]);
    assert!(lab.engine.recovery().unwrap().caught_up.is_empty());
    kept.told_to(&mut lab).unwrap();
    let job = lab.job(new);
    assert_eq!((job.id, job.spec.name.as_str(), job.status), (JobId(1), "n", Status::Running));
    assert_eq!(job.spec.idempotency_key.as_deref(), Some("k"));
    lab.say("a", kept.run, 3, exited(0));
    assert_eq!(lab.job(new).status, Status::Completed, "what comes after is no stray");
    assert_eq!(lab.submit(spec()).0, JobId(2), "its number is taken");
}

#[test]
fn a_later_attempt_elsewhere_ends_the_one_that_the_backup_has() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, actions) = lab.submit(spec());
    let first = Kept::of("a", &actions, Vec::new());
    let backup = lab.store.clone();
    lab.act(crate::lab::new_agent("b", 1, &["default"]));
    lab.refuse("a", session, first.run, protocol::message::RefusalKind::NoRoom);
    let (_, actions) = lab.connect("b", &[]);
    let second = Kept::of("b", &actions, all(0));
    restore(&mut lab, backup);
    let (_, actions) = lab.connect("a", &[]);
    assert!(starts(&actions).is_empty(), "it may have been executed elsewhere since: {actions:?}");
    lab.act(crate::lab::new_agent("b", 1, &["default"]));
    lab.connect("b", &[(second.run, 3)]);
    second.told_to(&mut lab).unwrap();
    assert_eq!((lab.job(job).status, lab.job(job).attempts), (Status::Completed, 2));
    let record = &lab.store.runs[&first.run];
    assert_eq!(record.status, Status::Unknown);
    assert!(record.reason.as_ref().unwrap().contains("attempt 2 was placed on b"));
}

/// A job that may be restarted and fails with 9: what its agent has of that.
fn fails(lab: &mut Lab) -> (JobId, Kept) {
    let policy = Policy { restart_safe: RestartSafe::AtLeastOnce, ..Policy::default() };
    let (job, actions) = lab.submit(JobSpec { policy, idempotency_key: Some("k".into()), ..spec() });
    let first = Kept::of("a", &actions, all(9));
    lab.run_through("a", first.run, 9);
    assert_eq!((lab.job(job).status, lab.job(job).exit_code), (Status::Error, Some(9)));
    (job, first)
}

/// It is all right then.
fn restarted(lab: &mut Lab, job: JobId) -> Kept {
    let restart = Restart { job, hold: false, force: false, by: "me".into(), reason: None };
    let actions = lab.act(Input::RestartJob(restart));
    let kept = Kept::of("a", &actions, all(0));
    lab.run_through("a", kept.run, 0);
    assert_eq!(lab.job(job).status, Status::Completed);
    kept
}

fn is_completed_by(lab: &Lab, job: JobId, last: &Kept) {
    let record = lab.job(job);
    assert_eq!((record.status, record.exit_code, record.attempts), (Status::Completed, Some(0), 2));
    assert_eq!((record.run, lab.store.runs[&last.run].status), (Some(last.run), Status::Completed));
}

#[test]
fn a_job_that_was_submitted_after_the_backup_is_over_as_its_last_attempt_was() {
    let mut lab = Lab::new();
    lab.agent("a", 9);
    let backup = lab.store.clone();
    let (job, first) = fails(&mut lab);
    let second = restarted(&mut lab, job);
    restore(&mut lab, backup);
    lab.connect("a", &[]);
    first.told_to(&mut lab).unwrap();
    assert!(starts(&second.told_to(&mut lab).unwrap()).is_empty());
    is_completed_by(&lab, job, &second);
    assert_eq!(lab.store.runs[&first.run].status, Status::Error, "a run's end is what it was");
    assert!(lab.store.strays.is_empty());
    assert!(starts(&tell_all(&mut lab, "a")).is_empty());
    lab.restart();
    is_completed_by(&lab, job, &second);
}

#[test]
fn a_job_that_was_over_in_the_backup_and_was_restarted_since_is_over_as_its_last_attempt_was() {
    let mut lab = Lab::new();
    lab.agent("a", 9);
    let (job, _) = fails(&mut lab);
    let backup = lab.store.clone();
    let second = restarted(&mut lab, job);
    restore(&mut lab, backup);
    lab.connect("a", &[]);
    assert_eq!(lab.job(job).status, Status::Error);
    assert!(starts(&second.told_to(&mut lab).unwrap()).is_empty());
    is_completed_by(&lab, job, &second);
    assert!(lab.store.strays.is_empty());
}

#[test]
fn an_earlier_attempt_that_is_told_after_a_later_one_changes_nothing() {
    let mut lab = Lab::new();
    lab.agent("a", 9);
    let backup = lab.store.clone();
    let (job, first) = fails(&mut lab);
    let second = restarted(&mut lab, job);
    restore(&mut lab, backup);
    lab.connect("a", &[]);
    second.told_to(&mut lab).unwrap();
    assert!(matches!(first.told_to(&mut lab), Err(Rejection::NotAdopted(_))));
    is_completed_by(&lab, job, &second);
    assert_eq!(lab.store.strays.len(), 3, "nothing that was told is lost");
}

#[test]
fn a_run_that_was_placed_before_the_backup_is_ordered_when_every_agent_has_told_and_none_knows_better() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (_, actions) = lab.submit(spec());
    let ordered = starts(&actions);
    let backup = lab.store.clone();
    restore(&mut lab, backup);
    lab.act(crate::lab::new_agent("b", 1, &["default"]));
    assert!(starts(&lab.connect("a", &[]).1).is_empty());
    assert!(lab.why(JobId(1)).contains("told what they ran: a"), "{}", lab.why(JobId(1)));
    assert_eq!(starts(&tell_all(&mut lab, "a")), ordered);
}

#[test]
fn what_does_not_fit_stays_a_stray_and_changes_nothing() {
    let mut lab = Lab::new();
    lab.agent("a", 9);
    let (job, actions) = lab.submit(spec());
    let kept = Kept::of("a", &actions, all(0));
    let backup = lab.store.clone();
    restore(&mut lab, backup);
    lab.connect("a", &[(kept.run, 3)]);
    let other = Kept { run: RunId::new(5, 5), ..kept };
    assert!(
        matches!(other.told_to(&mut lab), Err(Rejection::NotAdopted(_))),
        "attempt 1 is known as another run"
    );
    assert_eq!((lab.store.strays.len(), lab.job(job).status), (3, Status::Dispatched));
}

#[test]
fn an_agent_that_cannot_read_a_run_that_the_backup_lacks_has_not_told_until_a_person_decides() {
    let mut lab = Lab::new();
    lab.act(crate::lab::new_agent("a", 9, &["default"]));
    let (ran, _) = lab.submit(spec());
    let backup = lab.store.clone();
    let (_, actions) = lab.connect("a", &[]);
    let kept = Kept::of("a", &actions, all(7));
    lab.run_through("a", kept.run, 7);
    restore(&mut lab, backup);
    let (session, actions) = lab.connect("a", &[]);
    assert!(starts(&actions).is_empty());
    let untellable = |session| Input::Untellable { agent: "a".into(), session, runs: vec![kept.run] };
    lab.act(untellable(session - 1));
    assert_eq!(lab.store.agents["a"].trouble, None, "of an earlier session");
    lab.act(untellable(session));
    let trouble = lab.store.agents["a"].trouble.clone().expect("an operator is told").text;
    assert!(
        trouble.contains(&kept.run.to_string()) && trouble.contains("lastword server end-recovery"),
        "{trouble}"
    );
    let view = lab.engine.recovery().expect("it goes on");
    assert_eq!((view.untold, view.caught_up, view.kept_back), (vec!["a".to_owned()], Vec::new(), 1));
    assert_eq!(lab.job(ran).status, Status::Queued);
    assert_eq!(starts(&lab.act(Input::EndRecovery)).len(), 1);
}

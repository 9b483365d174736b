//! What follows an attempt: retries, Unknown outcomes, an operator's word, start times.

use crate::lab::{Lab, accepted, ended, exited, new_agent, spec, started, starts};
use job::{
    End, JobId, OnUnknown, Outcome, Policy, RestartSafe, Retry, RetryCause, RunId, Status, StopCause, Witness,
};
use protocol::message::{RefusalKind, RunSpec};
use scheduler::{Action, EventKind, Input, JobSpec, Rejection, Restart, Wait};

pub(crate) fn retry(attempts_max: u32) -> Policy {
    let retry = Retry {
        attempts_max,
        backoff_ms: 10_000,
        backoff_max_ms: 60_000,
        factor_percent: 200,
        on: vec![RetryCause::ExitCodes(7, 9)],
    };
    Policy { retry: Some(retry), ..Policy::default() }
}

pub(crate) fn unknown(on_unknown: OnUnknown, restart_safe: RestartSafe) -> Policy {
    Policy { retry: None, on_unknown, restart_safe }
}

fn with(policy: Policy) -> JobSpec {
    JobSpec { policy, ..spec() }
}

/// The orders among these actions.
fn orders(actions: &[Action]) -> Vec<(RunId, RunSpec)> {
    let order = |action: &Action| {
        if let Action::Start { run, spec, .. } = action { Some((*run, (**spec).clone())) } else { None }
    };
    actions.iter().filter_map(order).collect()
}

impl Lab {
    pub(crate) fn pass(&mut self, ms: i64) -> Vec<Action> {
        self.now_ms += ms;
        self.act(Input::Tick)
    }

    fn present_run(&self, job: JobId) -> RunId {
        self.job(job).run.expect("has a run")
    }

    /// The agent lost the record of a run that it had accepted.
    pub(crate) fn lose(&mut self, agent: &str, session: u64, job: JobId) -> Vec<Action> {
        let run = self.present_run(job);
        self.say(agent, run, 1, accepted());
        self.act(Input::NoRecord { agent: agent.into(), session, run })
    }

    pub(crate) fn restart_job(&self, job: JobId) -> Restart {
        assert!(self.store.jobs.contains_key(&job));
        Restart { job, by: "me".into(), hold: false, force: false, reason: None }
    }

    fn statuses(&self, job: JobId) -> Vec<Status> {
        let mut runs: Vec<_> = self.store.runs.values().filter(|run| run.job == job).collect();
        runs.sort_by_key(|run| run.attempt);
        runs.into_iter().map(|run| run.status).collect()
    }
}

#[test]
fn a_failed_attempt_is_followed_by_another_after_a_growing_pause() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, first) = lab.submit(with(retry(3)));
    let key = orders(&first)[0].1.idempotency_key.clone();
    assert_eq!(orders(&first)[0].1.previous_outcome, "");
    for (attempt, pause) in [(1, 10_000), (2, 20_000)] {
        lab.run_through("a", lab.present_run(job), 7);
        let record = lab.job(job);
        let until_ms = lab.now_ms + pause;
        assert_eq!((record.status, record.wait), (Status::Waiting, Some(Wait::Retry { until_ms })));
        assert_eq!((record.exit_code, record.tries), (Some(7), attempt));
        let reason = record.reason.clone().expect("has a reason");
        assert!(reason.contains(&format!("attempt {attempt} of 3 ended Error (exit code 7)")), "{reason}");
        assert!(lab.why(job).contains("before its next attempt"), "{}", lab.why(job));
        assert!(starts(&lab.pass(pause - 1)).is_empty(), "not before its time");
        let next = orders(&lab.pass(1));
        assert_eq!((next.len(), next[0].1.previous_outcome.as_str()), (1, "Error"));
        assert_eq!((next[0].1.attempt, &next[0].1.idempotency_key), (Some(attempt + 1), &key));
        assert_eq!((lab.job(job).exit_code, lab.job(job).wait), (None, None), "of the new run");
    }
    lab.run_through("a", lab.present_run(job), 8);
    let record = lab.job(job);
    assert_eq!((record.status, record.exit_code), (Status::Error, Some(8)));
    assert_eq!(record.reason.as_deref(), Some("it was attempt 3 of 3"));
    assert_eq!(lab.statuses(job), [Status::Error; 3]);
}

#[test]
fn a_retry_that_succeeds_ends_well_and_other_failures_are_not_repeated() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(with(retry(3)));
    lab.run_through("a", lab.present_run(job), 7);
    lab.pass(10_000);
    lab.run_through("a", lab.present_run(job), 0);
    assert_eq!((lab.job(job).status, lab.job(job).reason.as_deref()), (Status::Completed, None));
    let (other, _) = lab.submit(with(retry(3)));
    lab.run_through("a", lab.present_run(other), 1);
    assert_eq!(lab.job(other).status, Status::Error);
}

#[test]
fn a_pause_survives_a_restart_of_the_server_and_leaves_the_slot_to_others() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(with(retry(3)));
    let (other, _) = lab.submit(spec());
    lab.run_through("a", lab.present_run(job), 7);
    assert_eq!(lab.job(other).status, Status::Dispatched, "the slot is free in the pause");
    lab.restart();
    lab.connect("a", &[(lab.present_run(other), 0)]);
    lab.pass(10_000);
    assert_eq!(lab.job(job).status, Status::Queued, "the slot is taken");
    lab.run_through("a", lab.present_run(other), 0);
    assert_eq!((lab.job(job).status, lab.job(job).attempts), (Status::Dispatched, 2));
}

#[test]
fn a_kill_ends_the_retries_whenever_it_comes() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let kill = |job| Input::KillJob { job, by: "op".into(), grace_ms: None };
    let (job, _) = lab.submit(with(retry(3)));
    lab.run_through("a", lab.present_run(job), 7);
    lab.act(kill(job));
    let record = lab.job(job);
    assert_eq!((record.status, record.exit_code), (Status::Canceled, Some(7)));
    let reason = record.reason.clone().expect("has a reason");
    assert!(
        reason.starts_with("canceled by op before its next attempt; attempt 1 of 3 ended Error"),
        "{reason}"
    );
    assert!(starts(&lab.pass(100_000)).is_empty());
    let (job, _) = lab.submit(with(retry(3)));
    let run = lab.present_run(job);
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, started());
    lab.act(kill(job));
    lab.say("a", run, 3, exited(7)); // it ended by itself, before the kill reached it
    assert_eq!(lab.job(job).status, Status::Error);
    let (job, _) =
        lab.submit(with(Policy { retry: Some(Retry { on: vec![], ..retry(3).retry.unwrap() }), ..retry(3) }));
    let run = lab.present_run(job);
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, started());
    let killed = Outcome::Ended {
        end: End::Signaled { signal: 15, core: false },
        cause: Some(StopCause::Kill { by: "somebody on the host".into() }),
        witness: Witness::JobProcessor,
        usage: None,
    };
    lab.say("a", run, 3, ended(&killed));
    assert_eq!(lab.job(job).status, Status::Killed);
}

#[test]
fn a_pausing_job_can_be_held_released_restarted_and_canceled() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(with(retry(9)));
    let fail = |lab: &mut Lab| lab.run_through("a", lab.present_run(job), 7);
    fail(&mut lab);
    lab.act(Input::HoldJob { job });
    assert_eq!(lab.job(job).status, Status::Held);
    lab.act(Input::ReleaseJob { job });
    assert_eq!(lab.job(job).status, Status::Waiting, "the pause is not over");
    lab.act(Input::HoldJob { job });
    lab.pass(10_000);
    assert_eq!(lab.job(job).status, Status::Held);
    assert_eq!(starts(&lab.act(Input::ReleaseJob { job })).len(), 1, "the pause is over");
    fail(&mut lab);
    assert_eq!(starts(&lab.act(Input::RestartJob(lab.restart_job(job)))).len(), 1, "the pause is cut short");
    assert_eq!(lab.job(job).tries, 2, "it counts on");
    fail(&mut lab);
    lab.act(Input::CancelJob { job, by: "op".into() });
    assert_eq!(lab.job(job).status, Status::Canceled);
}

#[test]
fn a_clock_that_is_set_back_does_not_prolong_a_pause() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(with(retry(3)));
    lab.pass(0);
    lab.run_through("a", lab.present_run(job), 7);
    lab.pass(-86_400_000);
    assert_eq!(starts(&lab.pass(10_000)).len(), 1);
    let (delayed, _) = lab.submit(JobSpec { delay_ms: Some(60_000), ..spec() });
    let at = JobSpec { start_at_ms: Some(lab.now_ms + 60_000), ..spec() };
    let (later, _) = lab.submit(at);
    lab.pass(-86_400_000);
    assert_eq!(lab.job(delayed).status, Status::Scheduled);
    lab.pass(60_000);
    assert_ne!(lab.job(delayed).status, Status::Scheduled, "a delay is a pause");
    assert_eq!(lab.job(later).status, Status::Scheduled, "a start time is meant by the clock");
}

#[test]
fn a_clock_that_was_set_back_while_no_server_ran_does_not_prolong_a_pause() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(with(retry(3)));
    lab.run_through("a", lab.present_run(job), 7);
    let (delayed, _) = lab.submit(JobSpec { delay_ms: Some(60_000), ..spec() });
    lab.now_ms -= 86_400_000;
    lab.restart();
    lab.pass(0);
    assert_eq!((lab.job(job).status, lab.job(delayed).status), (Status::Waiting, Status::Scheduled));
    lab.pass(60_000);
    assert_eq!((lab.job(job).status, lab.job(delayed).status), (Status::Queued, Status::Queued));
}

#[test]
fn a_run_is_younger_than_all_before_it_also_when_the_clock_was_set_back() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (first, _) = lab.submit(spec());
    lab.run_through("a", lab.present_run(first), 0);
    lab.now_ms -= 86_400_000;
    let (second, _) = lab.submit(spec());
    let before = lab.present_run(second);
    assert!(lab.present_run(first).wall_ms() < before.wall_ms());
    lab.run_through("a", before, 0);
    lab.restart();
    lab.connect("a", &[]);
    let (third, _) = lab.submit(spec());
    assert!(before.wall_ms() < lab.present_run(third).wall_ms());
}

#[test]
fn an_unknown_outcome_is_final_unless_something_else_was_asked_for() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    for policy in [
        Policy::default(),
        unknown(OnUnknown::Escalate, RestartSafe::NeverTwice),
        unknown(OnUnknown::None, RestartSafe::AtLeastOnce),
        Policy { retry: Some(Retry { on: vec![], ..retry(3).retry.unwrap() }), ..Policy::default() },
    ] {
        let (job, _) = lab.submit(with(policy.clone()));
        assert!(starts(&lab.lose("a", session, job)).is_empty(), "{policy:?}");
        assert_eq!(lab.job(job).status, Status::Unknown, "{policy:?}");
        assert!(starts(&lab.pass(1_000_000)).is_empty(), "{policy:?}");
    }
    let restart = with(unknown(OnUnknown::Restart, RestartSafe::NeverTwice));
    assert!(matches!(lab.reject(Input::Submit(vec![restart])), Rejection::BadSettings(_)));
}

#[test]
fn what_may_be_executed_again_is_restarted_elsewhere_when_its_agent_is_removed() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(with(unknown(OnUnknown::Restart, RestartSafe::AtLeastOnce)));
    let (once, _) = lab.submit(spec());
    let run = lab.present_run(job);
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, started());
    lab.agent("b", 2);
    let remove = Input::RemoveAgent { name: "a".into(), force: true, by: "op".into() };
    let actions = lab.act(remove);
    assert_eq!(orders(&actions)[0].1.previous_outcome, "Unknown");
    assert_eq!((lab.job(job).agent.as_deref(), lab.job(job).attempts), (Some("b"), 2));
    assert_eq!(lab.statuses(job), [Status::Unknown, Status::Dispatched]);
    assert_eq!(lab.statuses(once), [Status::Dispatched], "that one ran on b all the time");
}

#[test]
fn a_job_that_asks_waits_for_an_operator_who_may_decide_anything() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let ask = with(unknown(OnUnknown::None, RestartSafe::Ask));
    let lost = |lab: &mut Lab| {
        let (job, _) = lab.submit(ask.clone());
        lab.lose("a", session, job);
        assert_eq!((lab.job(job).status, lab.job(job).wait), (Status::Waiting, Some(Wait::Decision)));
        assert!(starts(&lab.pass(1_000_000)).is_empty(), "no time decides it");
        job
    };
    let job = lost(&mut lab);
    let why = lab.why(job);
    assert!(why.contains("operator") && why.contains("lastword job restart"), "{why}");
    assert!(lab.store.events.iter().any(|record| record.event.kind == EventKind::JobEscalated));
    lab.restart();
    let session_again = lab.connect("a", &[]).0;
    assert_eq!(starts(&lab.act(Input::RestartJob(lab.restart_job(job)))).len(), 1);
    assert_eq!(lab.statuses(job), [Status::Unknown, Status::Dispatched]);
    lab.run_through("a", lab.present_run(job), 0);
    assert_eq!(lab.job(job).status, Status::Completed);
    let (job, _) = lab.submit(ask.clone());
    lab.lose("a", session_again, job);
    lab.act(Input::CancelJob { job, by: "op".into() });
    assert_eq!(lab.job(job).status, Status::Canceled);
    let (job, _) = lab.submit(ask.clone());
    lab.lose("a", session_again, job);
    lab.act(Input::AbandonJob { job, by: "op".into(), reason: "not worth it".into() });
    assert_eq!(lab.job(job).status, Status::Abandoned);
}

#[test]
fn an_escalated_job_tells_the_operators_and_says_so() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(with(unknown(OnUnknown::Escalate, RestartSafe::NeverTwice)));
    lab.lose("a", session, job);
    let reason = lab.job(job).reason.clone().expect("has a reason");
    assert!(reason.ends_with("; escalated to the operators"), "{reason}");
    let told = lab.store.events.iter().filter(|record| record.event.kind == EventKind::JobEscalated).count();
    assert_eq!(told, 1);
}

/// A job whose run is Unknown and that is about to be executed again, in each of the ways; and the facts that come later.
fn about_to_restart(lab: &mut Lab, session: u64, policy: Policy, hold: bool) -> (JobId, RunId) {
    lab.act(Input::HoldQueue { name: "default".into(), held: false });
    let (job, _) = lab.submit(with(policy));
    let run = lab.present_run(job);
    lab.act(Input::HoldQueue { name: "default".into(), held: true });
    lab.lose("a", session, job);
    if hold {
        lab.act(Input::HoldJob { job });
    }
    assert!(!lab.job(job).status.is_final());
    (job, run)
}

fn risky(retries: bool) -> Policy {
    let retry = retries.then(|| retry(3)).and_then(|policy| policy.retry);
    Policy { retry, ..unknown(OnUnknown::Restart, RestartSafe::AtLeastOnce) }
}

#[test]
fn a_true_completion_that_comes_late_stops_a_planned_restart() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    for (policy, hold, stands) in [
        (risky(false), false, Status::Queued),
        (risky(true), false, Status::Waiting),
        (risky(true), true, Status::Held),
        (unknown(OnUnknown::None, RestartSafe::Ask), false, Status::Waiting),
        (unknown(OnUnknown::None, RestartSafe::Ask), true, Status::Held),
    ] {
        let (job, run) = about_to_restart(&mut lab, session, policy, hold);
        assert_eq!(lab.job(job).status, stands);
        lab.say("a", run, 2, started());
        lab.say("a", run, 3, exited(0));
        let record = lab.job(job);
        assert_eq!((record.status, record.exit_code, record.wait), (Status::Completed, Some(0), None));
        assert_eq!(lab.statuses(job), [Status::Unknown], "the run stays what it was");
        assert!(lab.store.runs[&run].late.is_some());
        lab.act(Input::HoldQueue { name: "default".into(), held: false });
        assert!(starts(&lab.pass(1_000_000)).is_empty(), "it is not executed again");
    }
}

#[test]
fn a_true_failure_that_comes_late_decides_as_if_it_had_come_in_time() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, run) = about_to_restart(&mut lab, session, risky(false), false);
    lab.say("a", run, 2, started());
    lab.say("a", run, 3, exited(7));
    assert_eq!((lab.job(job).status, lab.job(job).exit_code), (Status::Error, Some(7)));
    let (job, run) = about_to_restart(&mut lab, session, risky(true), false);
    lab.say("a", run, 2, started());
    lab.say("a", run, 3, exited(7));
    assert_eq!((lab.job(job).status, lab.job(job).tries), (Status::Waiting, 1), "its retry covers that code");
    let (job, run) = about_to_restart(&mut lab, session, risky(true), true);
    lab.say("a", run, 2, started());
    lab.say("a", run, 3, exited(7));
    assert_eq!(lab.job(job).status, Status::Held);
}

#[test]
fn a_late_outcome_does_not_touch_an_attempt_that_was_placed_meanwhile() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(with(risky(false)));
    let first = lab.present_run(job);
    lab.lose("a", session, job);
    let second = lab.present_run(job);
    assert_ne!(first, second);
    lab.say("a", first, 2, started());
    lab.say("a", first, 3, exited(0));
    assert_eq!(lab.job(job).status, Status::Dispatched);
    assert!(lab.store.runs[&first].late.is_some());
    lab.run_through("a", second, 0);
    assert_eq!(lab.job(job).status, Status::Completed);
}

#[test]
fn a_job_that_is_over_is_restarted_under_its_number_and_its_runs_stay_what_they_are() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let policy = unknown(OnUnknown::None, RestartSafe::AtLeastOnce);
    let key = Some("k".to_owned());
    let (job, _) = lab.submit(JobSpec { idempotency_key: key.clone(), ..with(policy.clone()) });
    lab.run_through("a", lab.present_run(job), 7);
    lab.restart();
    lab.connect("a", &[]);
    let next = orders(&lab.act(Input::RestartJob(lab.restart_job(job))));
    assert_eq!((next[0].1.attempt, next[0].1.previous_outcome.as_str()), (Some(2), "Error"));
    assert_eq!(next[0].1.idempotency_key, "k");
    let (same, _) = lab.submit(JobSpec { idempotency_key: key, ..with(policy) });
    assert_eq!(same, job, "its key is its own again");
    lab.run_through("a", lab.present_run(job), 0);
    assert_eq!(lab.job(job).status, Status::Completed);
    assert_eq!(lab.statuses(job), [Status::Error, Status::Completed]);
    assert_eq!(lab.engine.counts(), lab.store.counts());
    let held = Restart { hold: true, ..lab.restart_job(job) };
    lab.act(Input::RestartJob(held));
    assert_eq!(lab.job(job).status, Status::Held);
    assert!(matches!(lab.reject(Input::RestartJob(lab.restart_job(job))), Rejection::NotOver { .. }));
    assert_eq!(starts(&lab.act(Input::ReleaseJob { job })).len(), 1);
}

#[test]
fn what_must_not_be_executed_twice_is_restarted_by_force_and_with_a_reason_only() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    lab.run_through("a", lab.present_run(job), 7);
    let plain = lab.restart_job(job);
    assert!(matches!(lab.reject(Input::RestartJob(plain.clone())), Rejection::NeverTwice { .. }));
    let forced = Restart { force: true, ..plain };
    assert_eq!(lab.reject(Input::RestartJob(forced.clone())), Rejection::NoReason);
    let reasoned = Restart { reason: Some("checked".into()), ..forced };
    assert_eq!(starts(&lab.act(Input::RestartJob(reasoned))).len(), 1);
    lab.run_through("a", lab.present_run(job), 0);
    lab.act(Input::HoldQueue { name: "default".into(), held: true });
    let (never, _) = lab.submit(spec());
    lab.act(Input::CancelJob { job: never, by: "me".into() });
    lab.act(Input::RestartJob(lab.restart_job(never)));
    assert_eq!(lab.job(never).status, Status::Queued, "it never executed");
    let reason = lab.job(never).reason.as_deref();
    assert_eq!(reason, Some("restarted by me"));
}

#[test]
fn a_job_whose_agent_will_never_come_back_is_given_up_and_what_comes_later_stands_beside() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(spec());
    let run = lab.present_run(job);
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, started());
    let abandon = |reason: &str| Input::AbandonJob { job, by: "op".into(), reason: reason.into() };
    assert!(matches!(lab.reject(abandon("gone")), Rejection::AgentPresent { .. }));
    lab.disconnect("a", session);
    assert_eq!(lab.reject(abandon(" ")), Rejection::NoReason);
    lab.act(abandon("gone"));
    assert_eq!((lab.job(job).status, lab.store.runs[&run].status), (Status::Abandoned, Status::Abandoned));
    assert_eq!(lab.job(job).reason.as_deref(), Some("abandoned by op: gone"));
    assert_eq!(lab.engine.agent("a").map(|agent| agent.used), Some(0));
    lab.connect("a", &[(run, 3)]);
    lab.say("a", run, 3, exited(0));
    assert_eq!(lab.job(job).status, Status::Abandoned, "a final status never changes");
    assert!(lab.store.runs[&run].late.is_some());
    assert!(matches!(lab.reject(Input::RestartJob(lab.restart_job(job))), Rejection::NeverTwice { .. }));
}

#[test]
fn a_job_starts_at_its_time_and_not_before() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let at = lab.now_ms + 3_600_000;
    let (timed, _) = lab.submit(JobSpec { start_at_ms: Some(at), ..spec() });
    let (delayed, _) = lab.submit(JobSpec { delay_ms: Some(600_000), ..spec() });
    let (past, _) = lab.submit(JobSpec { start_at_ms: Some(1), ..spec() });
    assert_eq!(lab.job(past).status, Status::Dispatched, "a time in the past is now");
    lab.run_through("a", lab.present_run(past), 0);
    assert_eq!((lab.job(timed).status, lab.job(delayed).status), (Status::Scheduled, Status::Scheduled));
    assert!(lab.why(timed).contains("that time has not come"), "{}", lab.why(timed));
    lab.restart();
    lab.connect("a", &[]);
    assert!(starts(&lab.pass(599_999)).is_empty());
    let due = lab.now_ms + 1;
    assert_eq!(orders(&lab.pass(1))[0].1.scheduled_at_ms, Some(due));
    lab.run_through("a", lab.present_run(delayed), 0);
    lab.act(Input::HoldJob { job: timed });
    assert!(lab.why(timed).contains("does not start before"), "{}", lab.why(timed));
    lab.act(Input::ReleaseJob { job: timed });
    assert_eq!(lab.job(timed).status, Status::Scheduled);
    assert_eq!(orders(&lab.pass(3_000_000))[0].1.scheduled_at_ms, Some(at));
    let both = JobSpec { start_at_ms: Some(at), delay_ms: Some(1), ..spec() };
    assert!(matches!(lab.reject(Input::Submit(vec![both])), Rejection::BadSpec(_)));
}

#[test]
fn a_run_that_was_never_executed_does_not_count_as_a_try() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, _) = lab.submit(with(retry(2)));
    lab.run_through("a", lab.present_run(job), 7);
    lab.pass(10_000);
    lab.refuse("a", session, lab.present_run(job), RefusalKind::NoRoom);
    let next = orders(&lab.pass(60_000));
    assert_eq!((next[0].1.attempt, next[0].1.previous_outcome.as_str()), (Some(3), "Error"));
    lab.run_through("a", lab.present_run(job), 7);
    assert_eq!((lab.job(job).status, lab.job(job).tries), (Status::Error, 2));
}

#[test]
fn parameters_that_meet_in_one_variable_are_refused() {
    let mut lab = Lab::new();
    let pairs = |names: [&str; 2]| names.map(|name| (name.to_owned(), "1".to_owned())).to_vec();
    let rejected = lab.reject(Input::Submit(vec![JobSpec { params: pairs(["a-b", "A_B"]), ..spec() }]));
    assert!(rejected.to_string().contains("LASTWORD_PARAM_A_B"), "{rejected}");
    lab.submit(JobSpec { params: pairs(["a", "b"]), ..spec() });
}

#[test]
fn four_process_servers_share_a_queue_and_when_one_dies_the_others_take_the_rest() {
    let mut lab = Lab::new();
    let names = ["a", "b", "c", "d"];
    let sessions: Vec<u64> = names.iter().map(|name| lab.agent(name, 2)).collect();
    let jobs: Vec<JobId> = (0..40).map(|_| lab.submit(spec()).0).collect();
    let lost: Vec<(RunId, JobId)> =
        lab.store.runs.values().filter(|run| run.agent == "a").map(|run| (run.id, run.job)).collect();
    assert_eq!(lost.len(), 2);
    lab.say("a", lost[0].0, 1, accepted());
    lab.say("a", lost[0].0, 2, started());
    lab.disconnect("a", sessions[0]);
    while let Some((run, agent)) = lab
        .store
        .runs
        .values()
        .find(|run| !run.status.is_final() && run.agent != "a")
        .map(|run| (run.id, run.agent.clone()))
    {
        lab.run_through(&agent, run, 0);
    }
    let open = jobs.iter().filter(|job| !lab.job(**job).status.is_final()).count();
    assert_eq!(open, 2, "only those of the dead one wait");
    assert!(lab.why(lost[0].1).contains("as far as is known"), "{}", lab.why(lost[0].1));
    // It is back: it has the one that ran, and never heard of the other.
    let (_, actions) = lab.connect("a", &[(lost[0].0, 3)]);
    assert_eq!(starts(&actions), [("a".to_owned(), lost[1].0)], "the same run again, not a new one");
    lab.say("a", lost[0].0, 3, exited(0));
    lab.run_through("a", lost[1].0, 0);
    assert!(jobs.iter().all(|job| lab.job(*job).status == Status::Completed));
    assert!(jobs.iter().all(|job| lab.job(*job).attempts == 1), "none was started twice");
}

#[test]
fn a_queue_has_no_more_jobs_with_agents_than_slots_of_its_own() {
    let mut lab = Lab::new();
    lab.agent("a", 10);
    let set = |slots| Input::SetQueue { name: "default".into(), slots: Some(slots), priority: None };
    lab.act(set(Some(2)));
    let jobs: Vec<JobId> = (0..5).map(|_| lab.submit(spec()).0).collect();
    let (pinned, _) = lab.submit(JobSpec { agent: Some("a".into()), priority: 1, ..spec() });
    let active = |lab: &Lab| lab.engine.queue("default").map(|queue| queue.active);
    assert_eq!(active(&lab), Some(2));
    let why = lab.why(jobs[4]);
    assert!(why.contains("all 2 slots of queue \"default\" are taken, by job 1 since"), "{why}");
    assert!(why.contains("2 jobs are before it"), "{why}");
    lab.restart();
    lab.connect("a", &[(lab.present_run(jobs[0]), 0), (lab.present_run(jobs[1]), 0)]);
    assert_eq!(active(&lab), Some(2), "the limit holds after a restart");
    lab.run_through("a", lab.present_run(jobs[0]), 0);
    assert_eq!((active(&lab), lab.job(pinned).status), (Some(2), Status::Dispatched));
    lab.act(set(Some(3)));
    assert_eq!(active(&lab), Some(3));
    lab.act(set(Some(0)));
    lab.run_through("a", lab.present_run(jobs[1]), 0);
    assert_eq!(active(&lab), Some(2), "nothing new");
    lab.act(set(None));
    assert_eq!(active(&lab), Some(4));
}

#[test]
fn among_queues_that_share_an_agent_the_higher_priority_goes_first() {
    let mut lab = Lab::new();
    for name in ["high", "low"] {
        lab.act(Input::CreateQueue { name: name.into() });
    }
    lab.act(new_agent("a", 1, &["high", "low", "default"]));
    let set =
        |name: &str, priority| Input::SetQueue { name: name.into(), slots: None, priority: Some(priority) };
    lab.act(set("high", 5));
    lab.act(set("low", -5));
    let in_queue = |queue: &str, priority| JobSpec { queue: queue.into(), priority, ..spec() };
    let (low, _) = lab.submit(in_queue("low", 100));
    let (second, _) = lab.submit(in_queue("default", 0));
    let (first, _) = lab.submit(in_queue("default", 1));
    let (pinned, _) = lab.submit(JobSpec { agent: Some("a".into()), ..in_queue("high", 0) });
    lab.connect("a", &[]);
    let mut order = Vec::new();
    while let Some(run) = lab.store.runs.values().find(|run| !run.status.is_final()).cloned() {
        order.push(run.job);
        lab.run_through("a", run.id, 0);
    }
    assert_eq!(order, [pinned, first, second, low]);
}

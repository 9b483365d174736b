//! What the engine promises of jobs that stand still on request.

use crate::lab::{Lab, accepted, exited, kills, spec, started};
use job::{JobId, RunId, Status};
use protocol::message::{FactBody, Resumed, Suspended};
use scheduler::{Action, Input, Rejection};

fn suspend(job: JobId) -> Input {
    Input::SuspendJob { job, by: "anna".into() }
}

fn resume(job: JobId) -> Input {
    Input::ResumeJob { job, by: "anna".into() }
}

fn suspended() -> FactBody {
    FactBody::Suspended(Suspended::default())
}

fn resumed() -> FactBody {
    FactBody::Resumed(Resumed::default())
}

/// What agents are told about standing still.
fn pauses(actions: &[Action]) -> Vec<bool> {
    let told = |action: &Action| {
        let Action::Pause { suspend, .. } = action else { return None };
        Some(*suspend)
    };
    actions.iter().filter_map(told).collect()
}

fn running(lab: &mut Lab) -> (JobId, RunId) {
    let (job, _) = lab.submit(spec());
    let run = lab.run_of(job).id;
    lab.say("a", run, 1, accepted());
    lab.say("a", run, 2, started());
    (job, run)
}

#[test]
fn a_wish_is_kept_until_the_agents_log_says_that_it_was_obeyed() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, run) = running(&mut lab);
    assert_eq!(pauses(&lab.act(suspend(job))), [true]);
    assert_eq!(pauses(&lab.act(suspend(job))).len(), 0, "the wish is there already");
    assert!(lab.job(job).pause.as_ref().is_some_and(|wish| wish.suspend));
    lab.say("a", run, 3, suspended());
    assert_eq!((lab.job(job).status, lab.run_of(job).status), (Status::Suspended, Status::Suspended));
    assert_eq!(lab.job(job).pause, None);
    assert_eq!(pauses(&lab.act(resume(job))), [false]);
    lab.say("a", run, 4, resumed());
    assert_eq!((lab.job(job).status, lab.job(job).pause.clone()), (Status::Running, None));
    lab.say("a", run, 5, exited(0));
    assert_eq!(lab.job(job).status, Status::Completed);
}

#[test]
fn a_wish_is_told_again_after_a_restart_and_a_new_connection() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, run) = running(&mut lab);
    lab.disconnect("a", session);
    lab.act(suspend(job));
    lab.restart();
    let (_, actions) = lab.connect("a", &[(run, 2)]);
    assert_eq!(pauses(&actions), [true]);
}

#[test]
fn a_suspended_job_keeps_its_slot() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, run) = running(&mut lab);
    let (next, _) = lab.submit(spec());
    lab.act(suspend(job));
    lab.say("a", run, 3, suspended());
    assert_eq!(lab.job(next).status, Status::Queued);
    assert!(lab.why(job).contains("suspended"), "{}", lab.why(job));
}

#[test]
fn why_does_not_take_the_start_of_a_job_for_the_time_since_which_it_stands_still() {
    let mut lab = Lab::new();
    let session = lab.agent("a", 1);
    let (job, run) = running(&mut lab);
    let started = format!("{:.3}", jiff::Timestamp::from_millisecond(lab.now_ms).unwrap());
    assert!(lab.why(job).contains(&format!("runs on agent \"a\" since {started}")), "{}", lab.why(job));
    lab.now_ms += 3_600_000;
    lab.act(suspend(job));
    lab.say("a", run, 3, suspended());
    assert!(
        lab.why(job).starts_with("it is suspended on agent \"a\"; `lastword job resume"),
        "{}",
        lab.why(job)
    );
    lab.act(resume(job));
    assert!(lab.why(job).contains("it is suspended on agent \"a\"; anna asked"), "{}", lab.why(job));
    lab.disconnect("a", session);
    assert!(!lab.why(job).contains(&started), "{}", lab.why(job));
}

#[test]
fn the_last_wish_counts() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, run) = running(&mut lab);
    lab.act(suspend(job));
    assert_eq!(pauses(&lab.act(resume(job))), [false]);
    lab.say("a", run, 3, suspended());
    assert!(lab.job(job).pause.as_ref().is_some_and(|wish| !wish.suspend), "still to go on");
    lab.say("a", run, 4, resumed());
    assert_eq!((lab.job(job).status, lab.job(job).pause.clone()), (Status::Running, None));
}

#[test]
fn what_does_not_run_cannot_be_suspended_and_what_does_not_stand_still_cannot_be_resumed() {
    let mut lab = Lab::new();
    lab.agent("a", 1);
    let (job, run) = running(&mut lab);
    let (queued, _) = lab.submit(spec());
    let status = Status::Queued;
    assert_eq!(lab.reject(suspend(queued)), Rejection::NotRunning { job: queued, status });
    assert_eq!(lab.reject(resume(queued)), Rejection::NotSuspended { job: queued, status });
    let status = Status::Running;
    assert_eq!(lab.reject(resume(job)), Rejection::NotSuspended { job, status });
    lab.act(suspend(job));
    let actions = lab.act(Input::KillJob { job, by: "anna".into(), grace_ms: None });
    assert_eq!((kills(&actions), lab.job(job).pause.clone()), (1, None), "a kill goes before");
    assert_eq!(lab.reject(suspend(job)), Rejection::AboutToEnd { job });
    lab.say("a", run, 3, exited(0));
}

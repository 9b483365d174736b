//! The table of `docs/status-life.md`, cell by cell.

use crate::lab::{Lab, accepted, ended, exited, spec, started};
use crate::policies::{retry, unknown};
use job::{End, JobId, OnUnknown, Outcome, RestartSafe, Status, StopCause, Witness};
use protocol::message::{FactBody, RefusalKind, Resumed, Suspended};
use scheduler::{Input, JobSpec, Restart};

const TEXT: &str = include_str!("../../../../docs/status-life.md");

/// A lab in which one job stands like this. The queue is held, so that nothing is placed any more.
fn stand(row: &str) -> (Lab, JobId, u64) {
    let mut lab = Lab::new();
    let session = lab.agent("a", 2);
    let policy = match row {
        "Waiting for its next attempt" => retry(3),
        "Waiting for a decision" => unknown(OnUnknown::None, RestartSafe::Ask),
        _ => Default::default(),
    };
    let delay_ms = (row == "Scheduled").then_some(60_000);
    let hold = |held| Input::HoldQueue { name: "default".into(), held };
    lab.act(hold(["Queued", "Canceled"].contains(&row)));
    let (job, _) = lab.submit(JobSpec { policy, delay_ms, held: row == "Held", ..spec() });
    lab.act(hold(true));
    match row {
        "Scheduled" | "Held" | "Queued" | "Dispatched" => {}
        "Canceled" => drop(lab.act(Input::CancelJob { job, by: "me".into() })),
        "Waiting for a decision" | "Unknown" => drop(lab.lose("a", session, job)),
        _ => {
            let run = lab.run_of(job).id;
            lab.say("a", run, 1, accepted());
            lab.say("a", run, 2, started());
            match row {
                "Running" => {}
                "Suspended" => drop(lab.say("a", run, 3, FactBody::Suspended(Suspended::default()))),
                "Completed" => drop(lab.say("a", run, 3, exited(0))),
                "Error" | "Waiting for its next attempt" => drop(lab.say("a", run, 3, exited(7))),
                "Killed" => drop(lab.say("a", run, 3, ended(&killed()))),
                "Abandoned" => {
                    lab.disconnect("a", session);
                    lab.act(abandon(job));
                    lab.connect("a", &[]);
                }
                other => panic!("no job is {other}"),
            }
        }
    }
    (lab, job, session)
}

fn killed() -> Outcome {
    let end = End::Signaled { signal: 9, core: false };
    let cause = Some(StopCause::Kill { by: "me".into() });
    Outcome::Ended { end, cause, witness: Witness::JobProcessor, usage: None }
}

fn abandon(job: JobId) -> Input {
    Input::AbandonJob { job, by: "me".into(), reason: "gone".into() }
}

/// Lets it happen; `false` if it was refused.
fn happen(lab: &mut Lab, job: JobId, session: u64, column: &str) -> bool {
    let by = || "me".to_owned();
    let restart =
        |force| Input::RestartJob(Restart { job, by: by(), hold: false, force, reason: Some("why".into()) });
    let facts = |lab: &mut Lab, bodies: Vec<FactBody>| {
        let run = lab.run_of(job).id;
        for body in bodies {
            let seq = lab.store.runs[&run].acked_seq + 1;
            lab.say("a", run, seq, body);
        }
        true
    };
    let input = match column {
        "hold" => Input::HoldJob { job },
        "release" => Input::ReleaseJob { job },
        "cancel" => Input::CancelJob { job, by: by() },
        "kill" => Input::KillJob { job, by: by(), grace_ms: None },
        "restart" => restart(false),
        "restart --force" => restart(true),
        "suspend" => Input::SuspendJob { job, by: by() },
        "resume" => Input::ResumeJob { job, by: by() },
        "abandon" => {
            lab.disconnect("a", session);
            abandon(job)
        }
        "its time comes" => {
            lab.pass(86_400_000);
            return true;
        }
        "SUSPENDED" => return facts(lab, vec![FactBody::Suspended(Suspended::default())]),
        "RESUMED" => return facts(lab, vec![FactBody::Resumed(Resumed::default())]),
        "STARTED" => return facts(lab, vec![started()]),
        "ENDED, exit code 0" | "late: exit code 0" => return facts(lab, vec![exited(0)]),
        "ENDED, exit code 7" => return facts(lab, vec![exited(7)]),
        "nobody can say how it ended" => {
            let run = lab.run_of(job).id;
            lab.refuse("a", session, run, RefusalKind::Damaged);
            return true;
        }
        "no room on the agent" => {
            let run = lab.run_of(job).id;
            lab.refuse("a", session, run, RefusalKind::NoRoom);
            return true;
        }
        other => panic!("nothing is called {other}"),
    };
    lab.on(input).is_ok()
}

#[test]
fn the_table_in_the_documentation_is_what_the_engine_does() {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut columns: Vec<String> = Vec::new();
    let (mut rows, mut tried) = (0, 0);
    for line in TEXT.lines() {
        if line.starts_with("| job is |") {
            columns = cells(line);
        } else if !line.starts_with('|') {
            columns.clear();
        } else if !columns.is_empty() && !line.starts_with("|--") {
            let row = cells(line);
            rows += 1;
            for (column, expected) in columns.iter().zip(&row).skip(1) {
                tried += usize::from(!expected.is_empty());
                try_cell(&row[0], column, expected);
            }
        }
    }
    assert_eq!((rows, tried), (28, 14 * 9 + 37), "every row and cell was read");
}

fn try_cell(row: &str, column: &str, expected: &str) {
    if expected.is_empty() {
        return;
    }
    let (mut lab, job, session) = stand(row);
    let before = lab.job(job).status;
    assert!(row.starts_with(before.name()), "{row} was made {before}");
    let taken = happen(&mut lab, job, session, column);
    let after = lab.job(job).status;
    match expected {
        "no" => assert!(!taken && after == before, "{row}, {column}: {after}, not refused"),
        "=" => assert!(taken && after == before, "{row}, {column}: {after}"),
        name => {
            assert!(taken && name.parse() == Ok::<Status, _>(after), "{row}, {column}: {after}, not {name}")
        }
    }
    assert_eq!(lab.engine.counts(), lab.store.counts(), "{row}, {column}");
}

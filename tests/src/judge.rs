//! Is what the server says of a job what the job itself wrote?

use crate::{End, Execution, Way};
use api::{Job, Status};

/// What the server says of a job against what the job wrote. `unwanted`: somebody asked for its end.
pub fn judge(job: &Job, way: Way, executions: &[Execution], unwanted: bool) -> Result<(), &'static str> {
    if executions.len() > 1 {
        return Err("executed more than once");
    }
    for run in &job.runs {
        let executed = executions.iter().any(|execution| execution.run_id == run.run_id);
        if run.status.0 == Status::Canceled && executed {
            return Err("a run that is said to have never started is in the ledger");
        }
        if run.status.0 == Status::Completed && !executed {
            return Err("a run that is said to be completed is not in the ledger");
        }
    }
    let told = (job.status.0, job.exit_code, job.signal);
    match executions {
        _ if told == (Status::Unknown, None, None) && job.reason.is_some() => Ok(()),
        _ if job.status.0 == Status::Unknown => Err("an unknown outcome with a code or without a reason"),
        [] if unwanted && told == (Status::Canceled, None, None) => Ok(()),
        // Killed between its start and its first line.
        [] if unwanted && told == (Status::Killed, None, Some(15)) => Ok(()),
        [] => Err("not executed"),
        [execution, ..] if execution.end.is_none() => {
            match unwanted && told == (Status::Killed, None, Some(15)) {
                true => Ok(()),
                false => Err("cut short, and not said to be killed"),
            }
        }
        [execution, ..] if execution.end != Some(way.end) => Err("the job itself did not end as it was told"),
        _ if way.end.fits(job) => Ok(()),
        // The wish came while it ended by itself, or the soft signal hit between its last line and its end.
        _ if unwanted && job.status.0 == Status::Killed && ended_by(way.end, told) => Ok(()),
        _ => Err("another outcome than the job's"),
    }
}

/// Whether it is the job's own end, or the soft signal.
fn ended_by(end: End, (_, code, signal): (Status, Option<u8>, Option<u8>)) -> bool {
    (code, signal) == (None, Some(15))
        || match end {
            End::Code(own) => (code, signal) == (Some(own), None),
            End::Signal(own) => (code, signal) == (None, Some(own)),
        }
}

//! What became of a job that is over, in one sentence: how and why it ended, where and when, and who saw it.

use crate::why::time;
use crate::{JobRecord, RunRecord};
use job::{Status, Witness};

/// `last`: its latest run. Says nothing that is not on record.
pub fn became(job: &JobRecord, last: Option<&RunRecord>) -> String {
    let mut why: Vec<String> = how(job).into_iter().chain(job.reason.clone()).collect();
    if let Some(kills) = last.and_then(|run| run.usage.oom_kills).filter(|kills| *kills > 0) {
        why.push(format!("the kernel killed {kills} of its processes for want of memory"));
    }
    let colon = if why.is_empty() { "" } else { ": " };
    let text = format!("it is over, {}{colon}{}", job.status, why.join("; "));
    text + &last.map(place).unwrap_or_default() + &when(job) + &last.map(witness).unwrap_or_default()
}

/// What the kernel said of its end, where the reason does not say it.
fn how(job: &JobRecord) -> Option<String> {
    match (job.status, job.exit_code, job.signal) {
        (Status::Error | Status::Killed | Status::Completed, Some(code), _) => {
            Some(format!("exit code {code}"))
        }
        (Status::Killed, None, Some(signal)) => Some(format!("signal {signal}")),
        (_, _, _) => None,
    }
}

/// Where it was, unless it never executed there.
fn place(run: &RunRecord) -> String {
    if run.status == Status::Canceled { String::new() } else { format!(", on agent \"{}\"", run.agent) }
}

fn when(job: &JobRecord) -> String {
    job.ended_at_ms.map(|at| format!(", at {}", time(at))).unwrap_or_default()
}

fn witness(run: &RunRecord) -> String {
    let seen = match run.witness {
        Some(Witness::None) if run.status == Status::Unknown => ", seen by nobody".to_owned(),
        Some(Witness::None) | None => String::new(),
        Some(witness @ (Witness::JobProcessor | Witness::Monitor | Witness::Pidfd)) => {
            format!(", seen by {witness}")
        }
    };
    let late = run.late.as_ref().map(|late| {
        let reason = late.outcome.reason().map(|reason| format!(", {reason}")).unwrap_or_default();
        let code = late.outcome.exit_code().map(|code| format!(", exit code {code}")).unwrap_or_default();
        format!("; its true outcome came later and is shown beside: {}{code}{reason}", late.outcome.status())
    });
    seen + &late.unwrap_or_default()
}

//! Shows a job with its runs.

use crate::output::{Output, moment, or_empty, pairs, table};
use api::{Job, Run};
use std::collections::BTreeMap;

pub(crate) fn print(job: &Job, output: &Output) -> anyhow::Result<()> {
    output.one(job, &job.id.to_string(), |wide| for_people(job, wide))
}

fn for_people(job: &Job, wide: bool) -> String {
    let about = pairs(&[
        ("Job", job.id.to_string()),
        ("Name", job.name.clone()),
        ("Status", job.status.to_string()),
        ("Reason", or_empty(&job.reason)),
        ("Exit code", or_empty(&job.exit_code)),
        ("Signal", or_empty(&job.signal)),
        ("Queue", job.queue.clone()),
        ("Agent", or_empty(&job.agent)),
        ("Command", command(job)),
        ("User", or_empty(&job.user)),
        ("Directory", or_empty(&job.cwd)),
        ("Mask", or_empty(&job.umask)),
        ("Niceness", or_empty(&job.nice)),
        ("Limits", equals(&job.limits)),
        ("Environment", equals(&job.env)),
        ("Parameters", equals(&job.params)),
        ("Output limit", or_empty(&job.output_limit)),
        ("Leftovers", job.leftovers.clone().filter(|what| what != "kill").unwrap_or_default()),
        ("Files to keep", job.capture.join(" ")),
        ("Time-out", or_empty(&job.timeout)),
        ("Grace", or_empty(&job.grace)),
        ("Start at", moment(job.start_at, true)),
        ("Waits for", waits_for(job)),
        ("Retry", retry(job)),
        ("If unknown", unless_usual(job.on_unknown)),
        ("Restart", unless_usual(job.restart_safe)),
        ("Priority", if job.priority == 0 { String::new() } else { job.priority.to_string() }),
        ("Submitted", format!("{} by {}", job.submitted_at.to_seconds(), job.submitted_by)),
        ("Started", moment(job.started_at, true)),
        ("Ended", moment(job.ended_at, true)),
        ("To be ended", asked(&job.kill_requested_by)),
        ("To be suspended", asked(&job.suspend_requested_by)),
        ("To be resumed", asked(&job.resume_requested_by)),
    ]);
    if job.runs.is_empty() { about } else { format!("{about}\n\n{}", runs(job, wide)) }
}

fn asked(by: &Option<String>) -> String {
    by.as_ref().map(|by| format!("asked for by {by}")).unwrap_or_default()
}

/// What it waits for beside a slot, and until when.
fn waits_for(job: &Job) -> String {
    let what = match job.waits_for.as_deref() {
        Some("start") => "its start time",
        Some("retry") => "its next attempt",
        Some("decision") => "an operator's decision",
        Some(other) => other,
        None => return String::new(),
    };
    let until = job.waits_until.map(|until| format!(" at {}", until.to_seconds())).unwrap_or_default();
    format!("{what}{until}")
}

fn unless_usual<T: Default + PartialEq + ToString>(setting: T) -> String {
    if setting == T::default() { String::new() } else { setting.to_string() }
}

fn retry(job: &Job) -> String {
    let Some(retry) = &job.retry else { return String::new() };
    let pause = match (retry.backoff, retry.backoff_max) {
        (Some(first), Some(longest)) if first != longest => format!(", pauses {first} to {longest}"),
        (Some(pause), _) => format!(", pauses {pause}"),
        (None, _) => String::new(),
    };
    let on: Vec<String> = retry.on.iter().map(|on| on.0.to_string()).collect();
    let on = if on.is_empty() { String::new() } else { format!(", on {}", on.join(",")) };
    format!("{} attempts{pause}{on}", retry.attempts_max)
}

/// The command as it could be typed; of a script only its size.
fn command(job: &Job) -> String {
    let words: Vec<String> = job.command.iter().map(|word| quote(word)).collect();
    match &job.script {
        Some(script) => {
            let lines = script.lines().count();
            format!("script of {lines} {} {}", if lines == 1 { "line" } else { "lines" }, words.join(" "))
                .trim_end()
                .to_owned()
        }
        None => words.join(" "),
    }
}

/// Quotes a word for sh(1) where it needs it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn equals(pairs: &BTreeMap<String, String>) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={}", quote(value))).collect::<Vec<_>>().join(" ")
}

fn runs(job: &Job, wide: bool) -> String {
    let mut heads =
        vec!["RUN", "AGENT", "STATUS", "EXIT", "SIGNAL", "WITNESS", "STARTED", "ENDED", "CPU", "PEAK RSS"];
    if wide {
        heads.push("RUN ID");
    }
    let rows = job.runs.iter().map(|run| run_cells(job.id, run, wide));
    let mut text = table(&heads, rows);
    for run in &job.runs {
        if let Some(usage) = usage(run) {
            text.push_str(&format!("\nUsage of run {}.{}: {usage}", job.id, run.attempt));
        }
        if let Some(late) = &run.late_outcome {
            let reason = late.reason.as_deref().unwrap_or_default();
            let code = or_empty(&late.exit_code);
            text.push_str(&format!(
                "\nLate word on run {}.{}: {} {code} {reason}",
                job.id, run.attempt, late.status
            ));
        }
    }
    text
}

/// What the table has no room for.
fn usage(run: &Run) -> Option<String> {
    let known = [
        (run.user_ms, "ms user"),
        (run.system_ms, "ms system"),
        (run.memory_peak_kib, "KiB memory at most"),
        (run.read_bytes, "bytes read"),
        (run.written_bytes, "bytes written"),
        (run.processes_peak, "processes at most"),
        (run.context_switches, "context switches"),
        (run.oom_kills.filter(|kills| *kills > 0), "killed for want of memory"),
    ];
    let told: Vec<String> =
        known.into_iter().filter_map(|(value, what)| Some(format!("{} {what}", value?))).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

fn run_cells(job: u64, run: &Run, wide: bool) -> Vec<String> {
    let mut cells = vec![
        format!("{job}.{}", run.attempt),
        run.agent.clone(),
        run.status.to_string(),
        or_empty(&run.exit_code),
        or_empty(&run.signal),
        or_empty(&run.witness),
        moment(run.started_at, true),
        moment(run.ended_at, true),
        run.cpu_ms.map(|ms| format!("{ms} ms")).unwrap_or_default(),
        run.max_rss_kib.map(|kib| format!("{kib} KiB")).unwrap_or_default(),
    ];
    if wide {
        cells.push(run.run_id.clone());
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;

    #[test]
    fn a_job_is_shown_with_its_command_as_it_could_be_typed() {
        let text =
            for_people(&Job { command: vec!["sh".into(), "-c".into(), "echo 'x'".into()], ..job() }, false);
        assert!(text.contains(r"Command    sh -c 'echo '\''x'\'''"), "{text}");
        assert!(!text.contains("Exit code"), "{text}");
    }

    #[test]
    fn what_a_run_used_is_shown_as_far_as_it_is_known() {
        let run = crate::job::tests::run();
        assert_eq!(usage(&run), None);
        let run = Run { user_ms: Some(300), memory_peak_kib: Some(2048), oom_kills: Some(0), ..run };
        let text = for_people(&Job { runs: vec![run], ..job() }, false);
        assert!(text.ends_with("Usage of run 1042.1: 300 ms user, 2048 KiB memory at most"), "{text}");
    }

    #[test]
    fn a_script_is_shown_by_its_size() {
        let job = Job { script: Some("a\nb\n".into()), command: vec!["1".into()], ..job() };
        assert_eq!(command(&job), "script of 2 lines 1");
    }
}

//! A run's log as text for people: every record with its number, place and meaning, and what is torn.

use crate::ledger::Stored;
use job::{BootId, Outcome, RunId};
use prost::Message;
use protocol::RunSpec;
use protocol::message::{Fact, FactBody};
use std::fmt::Write;
use std::path::Path;
use store::{Place, ReadError};

/// The text for the log at `path`, or what is wrong with it.
pub fn dump(path: &Path) -> Result<String, ReadError> {
    let contents = store::read(path)?;
    let mut text = String::new();
    let owner = RunId::from_bytes(&contents.owner).map_or_else(|e| e.to_string(), |id| id.to_string());
    let _ = writeln!(text, "log of run {owner}");
    let _ = match RunSpec::decode(contents.head.as_slice()) {
        Ok(spec) => writeln!(text, "spec  {}", spec_line(&spec)),
        Err(e) => writeln!(text, "spec  unreadable: {e}"),
    };
    for record in &contents.records {
        let place = match record.place {
            Place::Slot(slot) => format!("slot {slot}"),
            Place::Area => "area  ".to_owned(),
        };
        let stored = Stored { seq: record.seq, bytes: record.payload.clone() };
        let _ = writeln!(
            text,
            "{:>5}  {place}  {:>5} bytes  {}",
            record.seq,
            record.payload.len(),
            describe(&stored)
        );
    }
    for slot in &contents.torn_slots {
        let _ = writeln!(text, "    -  slot {slot}  torn: was never promised");
    }
    if contents.torn_tail {
        text.push_str("    -  area    torn or being written: was never promised\n");
    }
    Ok(text)
}

/// One message in a line: when it was written, and what it says.
pub fn describe(stored: &Stored) -> String {
    let fact = match Fact::read(&stored.bytes) {
        Ok(fact) => fact,
        Err(e) => return format!("unreadable: {e}"),
    };
    format!("at {} ms  {}", fact.at_ms.unwrap_or(0), meaning(fact.body.as_ref()))
}

fn meaning(body: Option<&FactBody>) -> String {
    match body {
        None => "a kind of message that this version does not know".into(),
        Some(FactBody::Accepted(_)) => "ACCEPTED".into(),
        Some(FactBody::Started(s)) => {
            let boot = s.boot_id.as_deref().and_then(|b| BootId::try_from(b).ok());
            format!(
                "STARTED pid {} start-ticks {} pidfd-inode {} boot {}{}",
                s.pid.unwrap_or(0),
                s.start_ticks.unwrap_or(0),
                s.pidfd_inode.unwrap_or(0),
                boot.map_or_else(|| "?".into(), |b| b.to_string()),
                s.cgroup.as_ref().map_or_else(String::new, |c| format!(" cgroup {c}")),
            )
        }
        Some(FactBody::Stopping(s)) => match (&s.killed_by, s.timed_out_after_ms) {
            (Some(by), _) => format!("STOPPING asked by {by}"),
            (None, Some(ms)) => format!("STOPPING its time of {ms} ms is over"),
            (None, None) => "STOPPING".into(),
        },
        Some(FactBody::Suspended(s)) => format!("SUSPENDED asked by {}", s.by),
        Some(FactBody::Resumed(r)) => format!("RESUMED asked by {}", r.by),
        Some(FactBody::Captured(c)) => format!("CAPTURED {} of {} bytes", c.name, c.bytes.unwrap_or(0)),
        Some(FactBody::Gathered(g)) => format!("GATHERED {} files", g.files.unwrap_or(0)),
        Some(FactBody::Note(note)) => format!("NOTE {}", note.text),
        Some(FactBody::Ended(ended)) => match Outcome::try_from(ended) {
            Err(e) => format!("ENDED, but unreadable: {e}"),
            Ok(outcome) => format!(
                "ENDED {}{}{} witness {}{}",
                outcome.status(),
                outcome.exit_code().map_or_else(String::new, |c| format!(" exit code {c}")),
                outcome.signal().map_or_else(String::new, |s| format!(" {}", os::signal::name(s))),
                outcome.witness(),
                outcome.reason().map_or_else(String::new, |r| format!(" ({r})")),
            ),
        },
    }
}

fn spec_line(spec: &RunSpec) -> String {
    let words: Vec<_> = spec.command.iter().map(|word| String::from_utf8_lossy(word)).collect();
    let script = spec.script.as_ref().map_or_else(String::new, |s| format!("script of {} bytes ", s.len()));
    format!(
        "job {} attempt {} {script}{}",
        spec.job_id.unwrap_or(0),
        spec.attempt.unwrap_or(0),
        words.join(" ")
    )
}

//! What the onlooker sees: a line whenever something changed, and the table at the end.

use super::cast::Act;
use super::site::Site;
use anyhow::{Context, Result};
use serde_json::Value;
use std::time::Instant;

/// How a job has to come out.
struct Expected {
    number: u64,
    name: &'static str,
    status: &'static str,
    exit_code: Option<u64>,
    signal: Option<u64>,
    witness: &'static str,
    /// What was last shown of it.
    shown: String,
    is_final: bool,
}

/// Shows what changes.
pub(super) struct Watch {
    begin: Instant,
    jobs: Vec<Expected>,
    followed: Option<u64>,
    printed: usize,
}

/// The table, and which rows are not as they had to be.
pub(super) struct Table {
    pub(super) text: String,
    pub(super) wrong: Vec<String>,
}

impl Watch {
    pub(super) fn new() -> Watch {
        Watch { begin: Instant::now(), jobs: Vec::new(), followed: None, printed: 0 }
    }

    pub(super) fn say(&self, text: &str) {
        println!("[{:5.1} s] {text}", self.begin.elapsed().as_secs_f64());
    }

    pub(super) fn expect(&mut self, number: u64, act: &Act) {
        let Act { name, status, exit_code, signal, witness, .. } = *act;
        let shown = String::new();
        self.jobs.push(Expected { number, name, status, exit_code, signal, witness, shown, is_final: false });
    }

    pub(super) fn number_of(&self, name: &str) -> Result<u64> {
        let job = self.jobs.iter().find(|job| job.name == name);
        job.map(|job| job.number).with_context(|| format!("no job is called {name}"))
    }

    /// Shows what that job prints.
    pub(super) fn follow(&mut self, number: u64) {
        self.followed = Some(number);
    }

    /// Lines seen of the job that is followed.
    pub(super) fn printed(&self) -> usize {
        self.printed
    }

    pub(super) fn all_final(&self) -> bool {
        self.jobs.iter().all(|job| job.is_final)
    }

    /// Shows what changed since the last look. What cannot be asked for now is asked for at the next look.
    pub(super) fn look(&mut self, site: &Site) {
        for index in 0..self.jobs.len() {
            if self.jobs[index].is_final {
                continue;
            }
            let Ok(job) = site.job(self.jobs[index].number) else { continue };
            let line = summary(&job);
            if line != self.jobs[index].shown {
                self.say(&format!("job {} {:<9} {line}", self.jobs[index].number, self.jobs[index].name));
                self.jobs[index].shown = line;
                self.jobs[index].is_final = !job["ended_at"].is_null();
            }
        }
        self.look_at_output(site);
    }

    fn look_at_output(&mut self, site: &Site) {
        let Some(number) = self.followed else { return };
        let Ok(output) = site.lastword(&["job", "logs", &number.to_string()]) else { return };
        let whole_lines = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines: Vec<&str> = whole_lines.lines().collect();
        match lines.get(self.printed..) {
            Some([]) | None => {}
            Some([only]) => self.say(&format!("job {number} prints: {only}")),
            Some([first, .., last]) => self.say(&format!("job {number} prints: {first} … {last}")),
        }
        self.printed = self.printed.max(lines.len());
    }

    /// All jobs with what they had to be.
    pub(super) fn table(&self, site: &Site) -> Result<Table> {
        let head = ["job", "name", "status", "exit", "signal", "witness", "as expected", "reason"]
            .map(str::to_owned);
        let mut rows = vec![head];
        let mut wrong = Vec::new();
        for expected in &self.jobs {
            let job = site.job(expected.number)?;
            let is_right = expected.is_met_by(&job);
            if !is_right {
                wrong.push(format!("job {} ({})", expected.number, expected.name));
            }
            rows.push([
                expected.number.to_string(),
                expected.name.to_owned(),
                text(&job["status"]),
                text(&job["exit_code"]),
                text(&job["signal"]),
                text(witness(&job)),
                if is_right { "yes" } else { "NO" }.to_owned(),
                text(&job["reason"]),
            ]);
        }
        Ok(Table { text: aligned(&rows), wrong })
    }
}

impl Expected {
    fn is_met_by(&self, job: &Value) -> bool {
        job["status"] == self.status
            && job["exit_code"].as_u64() == self.exit_code
            && job["signal"].as_u64() == self.signal
            && *witness(job) == *self.witness
            && job["runs"].as_array().is_some_and(|runs| runs.len() == 1)
    }
}

fn witness(job: &Value) -> &Value {
    &job["runs"][0]["witness"]
}

fn summary(job: &Value) -> String {
    let mut line = text(&job["status"]);
    let of_number = |what: &str, value: &Value| value.as_u64().map(|number| format!(", {what} {number}"));
    line.extend(of_number("exit code", &job["exit_code"]));
    line.extend(of_number("signal", &job["signal"]));
    line.extend(job["reason"].as_str().map(|reason| format!(" ({reason})")));
    line
}

fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_null() => "-".to_owned(),
        None => value.to_string(),
    }
}

fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

//! Does the database contradict itself? SQLite's own check, then what must be true of our records.
//!
//! | checked                                                                  | found by                                   |
//! |--------------------------------------------------------------------------|--------------------------------------------|
//! | the file: pages, indexes, constraints                                    | `PRAGMA integrity_check`                   |
//! | a job that is over has no run that is not                                | jobs × their latest run                    |
//! | a job that runs has a run that is not over                               | the same                                   |
//! | no two runs of a job are the same attempt, none is later than the job's  | runs by job                                |
//! | every run has its job, every message its run                             | runs × jobs, facts × runs                  |
//! | a run's messages are all there, from 1 up to what was acknowledged       | facts counted by run                       |
//! | a status that an agent told is what its message says                     | the last word of each run, read again      |
//! | a kept file has its run; one that is in the store has its key            | files × runs                               |
//! | what waits has its queue, what runs has its agent                        | jobs × queues, runs × agents               |
//!
//! Reads only, at one moment; a finding is a line for people with what to do.

use super::map::{self, Bad, FIRST_FINAL_CODE};
use super::sqlite::{one, rows};
use crate::operation::{Progress, Tell, Unit};
use job::{Outcome, RunId, Status};
use protocol::message::{Fact, FactBody};
use rusqlite::Connection;

/// Findings of one kind that are told one by one.
const TOLD_MAX: usize = 20;
/// How far it has come is told every so many rows.
const TOLD_ROWS: u64 = 10_000;

/// Something that contradicts something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: String,
    /// What to do about it.
    pub advice: &'static str,
}

/// What a check looked at, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Jobs.
    pub jobs: u64,
    /// Runs.
    pub runs: u64,
    /// Messages.
    pub facts: u64,
    /// Contradictions, none if all is well.
    pub findings: Vec<Finding>,
}

const RESTORE: &str = "restore a backup (`lastword server restore`)";
const REPORT: &str = "this is a defect of the server: keep a backup and report it";

/// Looks at everything.
pub(super) fn check(c: &Connection, tell: Tell<'_>) -> Result<Checked, Bad> {
    tell(Progress::begun("counting"));
    let mut checked = Checked {
        jobs: count(c, "SELECT count(*) FROM jobs")?,
        runs: count(c, "SELECT count(*) FROM runs")?,
        facts: count(c, "SELECT count(*) FROM facts")?,
        findings: Vec::new(),
    };
    let findings = &mut checked.findings;
    tell(Progress::begun("the file: pages, indexes, constraints")); // SQLite does not say how far it is
    integrity(c, findings)?;
    if findings.is_empty() {
        let questions = contradictions();
        for (done, (sql, advice)) in (0..).zip(&questions) {
            let total = questions.len() as u64;
            tell(Progress { step: "records against each other", done, total, unit: Unit::Steps });
            ask(c, sql, advice, findings)?;
        }
        let told = |done| {
            tell(Progress {
                step: "outcomes against messages",
                done,
                total: checked.facts,
                unit: Unit::Rows,
            });
        };
        statuses(c, findings, &told)?;
    }
    Ok(checked)
}

fn count(c: &Connection, sql: &str) -> Result<u64, Bad> {
    let count = one(c, sql, [], |row| Ok(row.get::<_, i64>(0)?))?;
    Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
}

fn integrity(c: &Connection, findings: &mut Vec<Finding>) -> Result<(), Bad> {
    let lines: Vec<String> =
        rows(c, &format!("PRAGMA integrity_check({TOLD_MAX})"), [], |row| Ok(row.get(0)?))?;
    let bad = lines.into_iter().filter(|line| line != "ok");
    findings
        .extend(bad.map(|line| Finding { what: format!("the file is damaged: {line}"), advice: RESTORE }));
    Ok(())
}

/// Questions that are answered with one text for each contradiction.
fn contradictions() -> Vec<(String, &'static str)> {
    let over = FIRST_FINAL_CODE;
    let question = |sql: String| (sql, REPORT);
    vec![
        question(format!(
            "SELECT 'job ' || jobs.id || ' is over, and its run ' || lower(hex(jobs.run)) || ' is not' FROM jobs \
             JOIN runs ON runs.run = jobs.run WHERE jobs.status >= {over} AND runs.status < {over}"
        )),
        question(format!(
            "SELECT 'job ' || jobs.id || ' runs, and it has no run that does' FROM jobs LEFT JOIN runs ON runs.run = jobs.run \
             WHERE jobs.status IN (5, 6, 7) AND (runs.status IS NULL OR runs.status >= {over})"
        )),
        question("SELECT 'job ' || job || ' has ' || count(*) || ' runs that are attempt ' || attempt FROM runs \
             GROUP BY job, attempt HAVING count(*) > 1"
            .to_owned()),
        question("SELECT 'job ' || jobs.id || ' has had ' || jobs.attempts || ' attempts, and run ' || lower(hex(runs.run)) || \
             ' is attempt ' || runs.attempt FROM runs JOIN jobs ON jobs.id = runs.job WHERE runs.attempt > jobs.attempts"
            .to_owned()),
        question("SELECT 'run ' || lower(hex(run)) || ' is of job ' || job || ', which is not there' FROM runs \
             WHERE job NOT IN (SELECT id FROM jobs)"
            .to_owned()),
        question("SELECT 'messages of run ' || lower(hex(run)) || ' are there, and the run is not' FROM facts \
             WHERE run NOT IN (SELECT run FROM runs) GROUP BY run"
            .to_owned()),
        question("SELECT 'run ' || lower(hex(runs.run)) || ' was acknowledged up to message ' || runs.acked_seq || ', and ' || \
             count(facts.seq) || ' messages up to ' || ifnull(max(facts.seq), 0) || ' are there' \
             FROM runs LEFT JOIN facts ON facts.run = runs.run GROUP BY runs.run \
             HAVING count(facts.seq) <> runs.acked_seq OR ifnull(max(facts.seq), 0) <> runs.acked_seq"
            .to_owned()),
        question("SELECT 'file \"' || name || '\" is of run ' || lower(hex(run)) || ', which is not there' FROM files \
             WHERE run NOT IN (SELECT run FROM runs)"
            .to_owned()),
        question("SELECT 'file \"' || name || '\" of run ' || lower(hex(run)) || ' is in the file store, and nobody knows where' \
             FROM files WHERE place = 2 AND key IS NULL"
            .to_owned()),
        question(format!(
            "SELECT 'job ' || id || ' waits in queue ' || queue || ', which is not there' FROM jobs \
             WHERE status < {over} AND queue NOT IN (SELECT name FROM queues)"
        )),
        question(format!(
            "SELECT 'run ' || lower(hex(run)) || ' is on agent ' || agent || ', which is not there' FROM runs \
             WHERE status < {over} AND agent NOT IN (SELECT name FROM agents)"
        )),
    ]
}

fn ask(c: &Connection, sql: &str, advice: &'static str, findings: &mut Vec<Finding>) -> Result<(), Bad> {
    let texts: Vec<String> = rows(c, &format!("{sql} LIMIT {}", TOLD_MAX + 1), [], |row| Ok(row.get(0)?))?;
    add(texts, advice, findings);
    Ok(())
}

fn add(texts: Vec<String>, advice: &'static str, findings: &mut Vec<Finding>) {
    let more = texts.len() > TOLD_MAX;
    findings.extend(texts.into_iter().take(TOLD_MAX).map(|what| Finding { what, advice }));
    if more {
        findings.push(Finding { what: "and more of this kind".to_owned(), advice });
    }
}

/// Reads the last words again and compares.
fn statuses(c: &Connection, findings: &mut Vec<Finding>, told: &dyn Fn(u64)) -> Result<(), Bad> {
    let sql = "SELECT runs.run, runs.status, runs.exit_code, runs.signal, runs.late IS NOT NULL, facts.seq, facts.bytes \
               FROM runs LEFT JOIN facts ON facts.run = runs.run ORDER BY runs.run, facts.seq";
    let mut statement = c.prepare(sql)?;
    let mut rows = statement.query([])?;
    let (mut texts, mut present): (Vec<String>, Option<Told>) = (Vec::new(), None);
    let mut looked_at = 0u64;
    while let Some(row) = rows.next()? {
        looked_at += 1;
        if looked_at.is_multiple_of(TOLD_ROWS) {
            told(looked_at);
        }
        let run = map::run_id(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
        if present.as_ref().is_none_or(|told| told.run != run) {
            let recorded = (map::status(row.get(1)?)?, row.get(2)?, row.get(3)?);
            let next = Told { run, recorded, late: row.get(4)?, outcome: None };
            texts.extend(present.replace(next).and_then(|told| told.contradiction()));
        }
        if let Some(told) = &mut present
            && let Some(bytes) = row.get::<_, Option<Vec<u8>>>(6)?
        {
            told.hear(&bytes);
        }
        if texts.len() > TOLD_MAX {
            break;
        }
    }
    texts.extend(present.and_then(|told| told.contradiction()));
    add(texts, REPORT, findings);
    Ok(())
}

/// What is recorded of a run, and what its agent said.
struct Told {
    run: RunId,
    recorded: (Status, Option<u8>, Option<u8>),
    late: bool,
    outcome: Option<Outcome>,
}

impl Told {
    fn hear(&mut self, bytes: &[u8]) {
        let body = Fact::read(bytes).ok().and_then(|fact| fact.body);
        if let Some(FactBody::Ended(ended)) = body
            && self.outcome.is_none()
        {
            self.outcome = Outcome::try_from(&ended).ok();
        }
    }

    fn contradiction(&self) -> Option<String> {
        let (status, exit_code, signal) = self.recorded;
        let run = self.run;
        let told = self.outcome.as_ref().map(|o| (o.status(), o.exit_code(), o.signal()));
        match told {
            Some(told) if told == self.recorded || self.late => None,
            // Given up by the server before the agent's word came, or given back because it never started.
            Some(_) if matches!(status, Status::Unknown | Status::Canceled | Status::Abandoned) => None,
            Some((told, ..)) if !status.is_final() => {
                Some(format!("run {run} is {status}, and its agent said that it is over: {told}"))
            }
            Some((told, told_code, told_signal)) => Some(format!(
                "run {run} is {status} (exit code {exit_code:?}, signal {signal:?}), and its agent said {told} \
                 (exit code {told_code:?}, signal {told_signal:?})"
            )),
            None if matches!(status, Status::Completed | Status::Error | Status::Killed) => {
                Some(format!("run {run} is {status}, and no message of its agent says so"))
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Database, Sqlite};
    use rusqlite::Connection;

    #[test]
    fn a_new_database_contradicts_nothing_and_each_contradiction_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.db");
        let database = Sqlite::open(&path).unwrap();
        assert_eq!(database.check(&|_| {}).unwrap().findings, []);
        let job = "INSERT INTO jobs (id, status, name, queue, priority, held, submitted_at, attempts, run, spec) VALUES";
        let run = "INSERT INTO runs (run, job, attempt, agent, status, placed_at, core, acked_seq) VALUES";
        let other = Connection::open(&path).unwrap();
        for (sql, expected) in [
            (format!("{job} (1, 6, 'n', 'default', 0, 0, 1, 1, NULL, x'')"), "job 1 runs, and it has no run"),
            (
                format!("{job} (2, 3, 'n', 'nowhere', 0, 0, 1, 0, NULL, x'')"),
                "queue nowhere, which is not there",
            ),
            (
                format!("{run} (x'018bcfe568007000800000000000000a', 9, 1, 'a', 8, 1, 0, 0)"),
                "job 9, which is not there",
            ),
            (
                format!("{run} (x'018bcfe568007000800000000000000b', 1, 7, 'a', 5, 1, 0, 2)"),
                "up to message 2, and 0 messages",
            ),
        ] {
            other.execute_batch(&sql).unwrap();
            let found: Vec<String> =
                database.check(&|_| {}).unwrap().findings.into_iter().map(|f| f.what).collect();
            assert!(found.iter().any(|what| what.contains(expected)), "{expected}: {found:?}");
        }
        let found: Vec<String> =
            database.check(&|_| {}).unwrap().findings.into_iter().map(|f| f.what).collect();
        for expected in ["agent a, which is not there", "is attempt 7", "no message of its agent says so"] {
            assert!(found.iter().any(|what| what.contains(expected)), "{expected}: {found:?}");
        }
    }
}

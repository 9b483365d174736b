//! What a test tried, how often, and what was lost: one line of JSON per test, for `cargo xtask prove`.
//!
//! A tally is written when it goes, also by a test that fails. To [`FILE`] if the environment names one, and to standard output always.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

/// The environment variable that names the file to append to.
pub const FILE: &str = "LASTWORD_TEST_TALLY";

/// The part of the proof that a test belongs to: a chapter of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Seeds of the simulated system.
    Simulation,
    /// Processes that die at named places.
    CrashPoints,
    /// Processes that are killed at random.
    RandomKills,
    /// File systems that are shut down without a flush.
    PowerLoss,
    /// File systems that are filled.
    FullDisks,
    /// Networks that fail.
    Network,
    /// Clocks, process ids, hosts and data roots that are not what they were.
    TimeAndIdentity,
    /// Bytes of strangers.
    Fuzzing,
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Everything was as promised.
    Kept,
    /// It was not, or the test itself could not go on.
    Failed,
    /// Not tried on this machine, and why.
    Skipped(String),
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its chapter.
    pub part: Part,
    /// The promise, in words.
    pub promise: String,
    /// How it ended.
    pub end: End,
    /// What was tried or compared, and how often.
    pub counts: BTreeMap<String, u64>,
    /// What repeats its choices, if it makes any.
    pub seed: Option<u64>,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

/// The tally of one test.
pub struct Tally {
    line: Line,
    file: Option<PathBuf>,
    begin: Instant,
}

impl Tally {
    /// Of a test of this promise. Counts as failed until [`Tally::kept`] or [`Tally::skipped`] says otherwise.
    pub fn new(part: Part, promise: &str) -> Tally {
        Tally::to(std::env::var_os(FILE).map(PathBuf::from), part, promise)
    }

    fn to(file: Option<PathBuf>, part: Part, promise: &str) -> Tally {
        let line = Line {
            part,
            promise: promise.to_owned(),
            end: End::Failed,
            counts: BTreeMap::new(),
            seed: None,
            took_ms: 0,
        };
        Tally { line, file, begin: Instant::now() }
    }

    /// The seed of its choices.
    pub fn seed(&mut self, seed: u64) {
        self.line.seed = Some(seed);
    }

    /// So many more of that, in the plural: "jobs compared".
    pub fn count(&mut self, what: &str, more: u64) {
        *self.line.counts.entry(what.to_owned()).or_default() += more;
    }

    /// Everything was as promised.
    pub fn kept(&mut self) {
        self.line.end = End::Kept;
    }

    /// This machine does not allow it.
    pub fn skipped(&mut self, why: &str) {
        self.line.end = End::Skipped(why.to_owned());
    }

    fn write(&mut self) -> io::Result<()> {
        self.line.took_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut text = serde_json::to_string(&self.line).map_err(io::Error::other)?;
        println!("tally: {text}");
        if let Some(path) = &self.file {
            // One write, since the tests of several processes append to it.
            text.push('\n');
            File::options().append(true).create(true).open(path)?.write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.line.end = End::Failed;
        }
        if let Err(error) = self.write() {
            eprintln!("the tally of {:?} cannot be written: {error}", self.line.promise);
        }
    }
}

/// The lines of a tally file, oldest first.
///
/// # Errors
/// A line that is none, with its number.
pub fn read(text: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().enumerate();
    lines.map(|(n, line)| serde_json::from_str(line).map_err(|e| format!("line {}: {e}", n + 1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_says_nothing_of_its_end_counts_as_failed() {
        let mut tally = Tally::to(None, Part::PowerLoss, "nothing is lost");
        assert_eq!(tally.line.end, End::Failed);
        tally.kept();
        assert_eq!(tally.line.end, End::Kept);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let name = format!("lastword-tally-{}.jsonl", std::process::id());
        let file = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&file); // of a process that had the same number
        let skipped = {
            let mut tally = Tally::to(Some(file.clone()), Part::Network, "a cut loses nothing");
            tally.count("cuts", 2);
            tally.count("cuts", 3);
            tally.seed(7);
            tally.skipped("no namespaces");
            tally.line.clone()
        };
        drop(Tally::to(Some(file.clone()), Part::Network, "another"));
        let text = std::fs::read_to_string(&file).expect("a file");
        std::fs::remove_file(&file).expect("to remove it");
        let lines = read(&text).expect("two lines");
        assert_eq!((lines.len(), &lines[0].end, &lines[1].end), (2, &skipped.end, &End::Failed));
        assert_eq!((lines[0].counts["cuts"], lines[0].seed), (5, Some(7)));
        assert!(read("{}").is_err());
    }
}

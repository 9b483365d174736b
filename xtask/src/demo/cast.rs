//! The jobs of the demonstration: real work on the repository's own files, and a few bad ends.

use super::site::Site;
use crate::step;
use std::path::PathBuf;

/// What the printing job prints, two lines a second.
pub(super) const PRINTED_LINES: usize = 24;

/// One job: what it does and how it has to end.
pub(super) struct Act {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Beyond the name: options of `lastword job submit`.
    pub(super) options: Vec<String>,
    /// A shell script.
    pub(super) script: String,
    pub(super) status: &'static str,
    pub(super) exit_code: Option<u64>,
    pub(super) signal: Option<u64>,
    pub(super) witness: &'static str,
}

/// All of them.
pub(super) struct Cast {
    pub(super) acts: Vec<Act>,
    /// The job that survives waits for this file.
    pub(super) gate: PathBuf,
}

impl Cast {
    pub(super) fn new(site: &Site) -> Cast {
        let results = site.results();
        let gate = results.join("gate");
        let place = |act: Act| Act { options: [act.options, site_options(&results)].concat(), ..act };
        let acts = [work(), bad_ends(), kills(&gate)].into_iter().flatten().map(place).collect();
        Cast { acts, gate }
    }
}

/// Every job works in the repository and writes into the scratch directory.
fn site_options(results: &std::path::Path) -> Vec<String> {
    let root = step::root().display().to_string();
    ["--cwd".to_owned(), root, "-e".to_owned(), format!("RESULTS={}", results.display())].into()
}

fn act(name: &'static str, about: &'static str, script: &str) -> Act {
    Act {
        name,
        about,
        options: Vec::new(),
        script: script.to_owned(),
        status: "Completed",
        exit_code: Some(0),
        signal: None,
        witness: "job-processor",
    }
}

/// Compressing, checksumming and counting the repository's own files.
fn work() -> Vec<Act> {
    let files = "find . \\( -name target -o -name .git \\) -prune -o -type f -print0";
    vec![
        act(
            "compress",
            "packs the repository's files",
            "tar --exclude=./target --exclude=./.git -czf \"$RESULTS/files.tar.gz\" . && gzip -t \"$RESULTS/files.tar.gz\" && ls -l \"$RESULTS\"",
        ),
        act(
            "checksum",
            "SHA-256 of each of them",
            &format!("{files} | sort -z | xargs -0 sha256sum | tee \"$RESULTS/sums\" | tail -n 3"),
        ),
        act(
            "count",
            "counts the lines of all Rust sources",
            "find . -name target -prune -o -name '*.rs' -print0 | xargs -0 cat | wc -l",
        ),
    ]
}

fn bad_ends() -> Vec<Act> {
    let fail = act("fail", "ends with exit code 7", "echo 'this one fails' >&2; exit 7");
    let crash = act("crash", "ends itself by signal 11", "kill -SEGV $$");
    let late = act("late", "sleeps for a minute and may for 3 s", "sleep 60");
    vec![
        Act { status: "Error", exit_code: Some(7), ..fail },
        Act { status: "Error", exit_code: None, signal: Some(11), ..crash },
        Act {
            status: "Killed",
            exit_code: None,
            signal: Some(15),
            options: vec!["--timeout".to_owned(), "3s".to_owned()],
            ..late
        },
    ]
}

/// The two jobs around which processes are killed.
fn kills(gate: &std::path::Path) -> Vec<Act> {
    let print =
        format!("for i in $(seq 1 {PRINTED_LINES}); do echo \"line $i of {PRINTED_LINES}\"; sleep 0.5; done");
    let survive = format!(
        "n=0; while [ ! -e '{}' ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done; exit 42",
        gate.display()
    );
    let survivor = act("survive", "ends with exit code 42 when its job-processor is dead", &survive);
    vec![
        act("print", "prints two lines a second while its link is killed", &print),
        Act { status: "Error", exit_code: Some(42), witness: "monitor", ..survivor },
    ]
}

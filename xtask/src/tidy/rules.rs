//! Rules about single files and crate roots.

use super::{Breach, Text, code};
use crate::step;
use cargo_metadata::Metadata;
use std::path::{Path, PathBuf};

/// The one crate that may be unsafe.
const UNSAFE_CRATE: &str = "lib/os";

/// Crates that decide and do nothing: their `clippy.toml` bans clocks, files and sockets.
const PURE_CRATES: [&str; 3] = ["lib/job", "lib/protocol", "lib/scheduler"];

/// What the `clippy.toml` of a pure crate must ban at least.
const BANNED_IN_PURE: [&str; 4] =
    ["std::time::Instant", "std::time::SystemTime", "std::fs::File", "std::net::TcpStream"];

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 600;

/// Marks of unfinished work.
const UNFINISHED: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

/// Folders at the root of somebody's machine: a path into them is of no use to anybody else.
const FOLDERS_OF_OTHERS: [&str; 3] = ["work", "home", "root"];

/// Every library and program outside `lib/os` forbids unsafe code.
pub(super) fn crate_roots(metadata: &Metadata) -> Vec<Breach> {
    let root = step::root();
    let targets = metadata.packages.iter().flat_map(|package| &package.targets);
    let sources = targets.filter(|target| target.is_lib() || target.is_bin());
    let relative = |path: &Path| path.strip_prefix(&root).unwrap_or(path).to_owned();
    let sources: Vec<PathBuf> = sources.map(|target| relative(target.src_path.as_std_path())).collect();
    let others = sources.into_iter().filter(|path| !path.starts_with(UNSAFE_CRATE));
    let lacks = |path: &PathBuf| {
        let text = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        !code::without_comments_and_texts(&text).contains("#![forbid(unsafe_code)]")
    };
    others
        .filter(lacks)
        .map(|path| Breach::new(&path, 1, "the crate root lacks #![forbid(unsafe_code)]"))
        .collect()
}

/// Every pure crate has the file that keeps it pure.
pub(super) fn pure_crates() -> Vec<Breach> {
    let mut breaches = Vec::new();
    for folder in PURE_CRATES {
        let path = Path::new(folder).join("clippy.toml");
        let text = std::fs::read_to_string(step::root().join(&path)).unwrap_or_default();
        for banned in BANNED_IN_PURE.iter().filter(|banned| !text.contains(**banned)) {
            breaches.push(Breach::new(&path, 1, format!("a pure crate; its clippy.toml must ban {banned}")));
        }
    }
    breaches
}

/// The rules for one source file.
pub(super) fn source(text: &Text) -> Vec<Breach> {
    let code = code::without_comments_and_texts(&text.text);
    let mut breaches = Vec::new();
    for (number, line) in (1..).zip(code.lines()) {
        let mut say = |what: String| breaches.push(Breach::new(&text.path, number, what));
        if code::has_word(line, "unsafe") && !text.path.starts_with(UNSAFE_CRATE) {
            say(format!("unsafe code belongs in {UNSAFE_CRATE}"));
        }
        if line.contains("#[allow") || line.contains("#![allow") {
            say("write #[expect(…, reason = \"…\")]".to_owned());
        }
        for mark in UNFINISHED.iter().filter(|mark| line.contains(**mark)) {
            say(format!("{mark} is unfinished work"));
        }
    }
    let lines = lines_without_tests(&text.text);
    if lines > FILE_LINES_MAX && !is_test(&text.path) {
        let what = format!(
            "{lines} lines without tests; a file has at most {FILE_LINES_MAX}: find the second room in it"
        );
        breaches.push(Breach::new(&text.path, 1, what));
    }
    breaches
}

/// A file that only holds tests may be as long as they are.
fn is_test(path: &Path) -> bool {
    path.starts_with("tests") || path.to_string_lossy().ends_with("tests.rs")
}

fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let opens_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ");
    lines.windows(2).position(opens_tests).unwrap_or(lines.len())
}

/// No path into a folder of one machine.
pub(super) fn outside_paths(text: &Text) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (number, line) in (1..).zip(text.text.lines()) {
        for folder in FOLDERS_OF_OTHERS {
            let path = format!("/{folder}/");
            let absolute = |(at, _): (usize, &str)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| c.is_whitespace() || "\"'`(=:,[".contains(c))
            };
            if line.match_indices(&path).any(absolute) {
                breaches.push(Breach::new(
                    &text.path,
                    number,
                    format!("names a path of one machine ({path}…)"),
                ));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, text: &str) -> Text {
        Text { path: path.into(), text: text.to_owned() }
    }

    #[test]
    fn unsafe_code_is_for_one_crate() {
        let source_text = "fn f() {\n    unsafe { g() }\n}\n// unsafe\n";
        assert_eq!(source(&text("lib/store/src/lib.rs", source_text)).first().map(|b| b.line), Some(2));
        assert_eq!(source(&text("lib/os/src/lib.rs", source_text)), []);
    }

    #[test]
    fn unfinished_work_and_silenced_lints_are_found_in_code_only() {
        let source_text = format!("#[al{}(x)]\nfn f() {{ to{}() }}\n// to{0}\n\"to{0}\"\n", "low", "do!");
        let source_text = source_text.replace("tolow", "todo!");
        let lines: Vec<usize> =
            source(&text("a.rs", &source_text)).iter().map(|breach| breach.line).collect();
        assert_eq!(lines, [1, 2]);
    }

    #[test]
    fn a_long_file_is_found_but_its_tests_do_not_count() {
        let long = "x();\n".repeat(601);
        assert_eq!(source(&text("a.rs", &long)).len(), 1);
        let tested = format!("{}#[cfg(test)]\nmod tests {{\n{long}}}\n", "x();\n".repeat(600));
        assert_eq!(source(&text("a.rs", &tested)).len(), 0);
        assert_eq!(source(&text("a/src/tests.rs", &long)).len(), 0);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let line = |line: &str| outside_paths(&text("a.md", line)).len();
        assert_eq!(line(&format!("see {}home/ann/x", "/")), 1);
        assert_eq!(line(&format!("`{}work/x`", "/")), 1);
        assert_eq!(line("runs/<run-id>/work/ and <dir>/root/"), 0);
    }
}

//! `cargo xtask test`: what has to be right before a change is.

use crate::build::{self, Profile};
use crate::{step, tidy, tools};
use anyhow::Result;
use std::path::Path;
use std::time::Instant;

pub(crate) fn run() -> Result<()> {
    let begin = Instant::now();
    tools::packages()?;
    tools::nextest()?;
    step::run("format", &mut step::cargo(&["fmt", "--all", "--", "--check"]))?;
    step::step("tidy", "cargo xtask tidy", tidy::run)?;
    let lint = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step::run("clippy", &mut step::cargo(&lint))?;
    let without_s3 = ["check", "-p", "central-server", "--no-default-features"];
    step::run("a server without its optional parts", &mut step::cargo(&without_s3))?;
    build::programs(Profile::Debug)?;
    let mut tests = step::cargo(&["nextest", "run", "--workspace"]);
    if std::env::var_os("CI").is_some() {
        tests.args(["--profile", "ci"]);
    }
    step::run("tests", &mut tests)?;
    if has_doc_tests()? {
        step::run("examples", &mut step::cargo(&["test", "--workspace", "--doc"]))?;
    }
    println!("\nall right, in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Whether any library has an example that the compiler would run.
fn has_doc_tests() -> Result<bool> {
    let opens_rust = |line: &str| {
        let comment = line.trim_start();
        let text = comment.strip_prefix("///").or_else(|| comment.strip_prefix("//!"));
        text.is_some_and(|text| text.trim() == "```" || text.trim().starts_with("```rust"))
    };
    // A closing fence looks like an opening one: only an odd position opens.
    let has_example = |text: &str| {
        let fences = text.lines().filter(|line| {
            let comment = line.trim_start();
            (comment.starts_with("///") || comment.starts_with("//!"))
                && comment[3..].trim().starts_with("```")
        });
        fences.step_by(2).any(opens_rust)
    };
    let files = tidy::tracked_files()?;
    let sources = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    Ok(sources.map(|path| step::root().join(path)).any(|path| has_example(&read(&path))))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

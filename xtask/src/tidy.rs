//! `cargo xtask tidy`: the rules of the house that no compiler checks.

mod code;
mod dependencies;
mod links;
mod rules;

use crate::step;
use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A breach of a rule: where, and what to do.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Breach {
    file: PathBuf,
    line: usize,
    text: String,
}

impl Breach {
    fn new(file: &Path, line: usize, text: impl Into<String>) -> Breach {
        Breach { file: file.to_owned(), line, text: text.into() }
    }
}

/// A tracked text file: its path from the root, and what is in it.
struct Text {
    path: PathBuf,
    text: String,
}

impl Text {
    fn has_extension(&self, wanted: &str) -> bool {
        self.path.extension().is_some_and(|extension| extension == wanted)
    }
}

pub(crate) fn run() -> Result<()> {
    let metadata = metadata()?;
    let texts = texts()?;
    let mut breaches = dependencies::check(&metadata);
    breaches.extend(rules::crate_roots(&metadata));
    breaches.extend(rules::pure_crates());
    for text in &texts {
        breaches.extend(rules::outside_paths(text));
        if text.has_extension("rs") {
            breaches.extend(rules::source(text));
        }
        if text.has_extension("md") {
            breaches.extend(links::check(text));
        }
    }
    breaches.sort();
    for Breach { file, line, text } in &breaches {
        println!("{}:{line}: {text}", file.display());
    }
    if !breaches.is_empty() {
        bail!("tidy: {} breaches of the rules of the house, see above", breaches.len());
    }
    println!("    tidy: {} files, nothing to say", texts.len());
    Ok(())
}

fn metadata() -> Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.current_dir(step::root()).no_deps();
    command.exec().context("cannot read the workspace with `cargo metadata`")
}

/// The files that git has or would take.
pub(crate) fn tracked_files() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(step::root());
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().context("cannot run git; tidy takes the list of files from it")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned())).collect())
}

/// The tracked files that are text; one that was removed since is passed over.
fn texts() -> Result<Vec<Text>> {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(step::root().join(&path)).ok()?;
        Some(Text { path, text })
    };
    Ok(tracked_files()?.into_iter().filter_map(read).collect())
}

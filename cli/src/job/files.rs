//! Files that were kept of a job: list them, fetch them.

use super::{JobRef, path};
use crate::client::{Call, CallError, Client, encode};
use crate::exit::{IO, NOT_FOUND, failure};
use crate::output::{Output, Row, bytes, line, moment, or_empty};
use crate::progress::Progress;
use api::{JobFile, JobFiles};
use clap::Args;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Component, Path, PathBuf};

/// Fetched at a time.
const PIECE_BYTES: u64 = 4 << 20;

/// Which files, and where to.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword job files 1042                  each with where it is: with the agent, stored, lost, removed
  lastword job files 1042 -o wide          and since when, and why
  lastword job files 1042 --get report/sum.pdf -O sum.pdf
  lastword job files 1042 --all results/")]
pub(crate) struct Files {
    /// The job's number, perhaps with that of an attempt: 1042.2.
    job: JobRef,
    /// Fetch this file, to standard output if --output-file says nothing else.
    #[arg(long, value_name = "NAME")]
    get: Option<String>,
    /// Write it here.
    #[arg(short = 'O', long, value_name = "FILE", requires = "get")]
    output_file: Option<PathBuf>,
    /// Fetch all files into this directory, each under its name.
    #[arg(long, value_name = "DIR", conflicts_with = "get")]
    all: Option<PathBuf>,
}

impl Files {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        let attempt = self.job.attempt.map(|attempt| format!("attempt={attempt}")).unwrap_or_default();
        let files: JobFiles = client.get(&path(self.job.id, &format!("/files?{attempt}")))?;
        match (&self.get, &self.all) {
            (Some(name), _) => {
                let file = files.items.iter().find(|file| file.name == *name);
                match &self.output_file {
                    Some(to) => save(to, |out| self.fetch(client, name, file, &attempt, out))?,
                    None => self.fetch(client, name, file, &attempt, &mut Stdout)?,
                }
            }
            (None, Some(directory)) => {
                let (there, gone): (Vec<_>, Vec<_>) =
                    files.items.iter().partition(|file| file.state.may_be_read());
                for file in there {
                    let to = place(directory, &file.name)?;
                    save(&to, |out| self.fetch(client, &file.name, Some(file), &attempt, out))?;
                    line(&to.display().to_string())?;
                }
                if let Some(file) = gone.first() {
                    let why = file.reason.as_deref().unwrap_or_default();
                    let text = format!("\"{}\" is {}: {why}", file.name, file.state.text());
                    let more =
                        if gone.len() > 1 { format!("; and {} more", gone.len() - 1) } else { String::new() };
                    return Err(failure(NOT_FOUND, format!("{text}{more}")));
                }
            }
            (None, None) => output.list(&files.items)?,
        }
        Ok(0)
    }

    /// Writes a file that was kept; an error if its bytes are not those that were kept.
    fn fetch(
        &self,
        client: &Client,
        name: &str,
        file: Option<&JobFile>,
        attempt: &str,
        to: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let (mut offset, size, mut hash) = (0, file.map_or(0, |file| file.bytes), Sha256::new());
        let to_terminal = self.all.is_none() && self.output_file.is_none() && io::stdout().is_terminal();
        let mut progress = Progress::new(name, size, to_terminal);
        loop {
            let rest = format!("/files/{}?offset={offset}&limit={PIECE_BYTES}&{attempt}", encode(name));
            let question = path(self.job.id, &rest);
            let call = Call { path: &question, repeatable: true, ..Call::default() };
            let piece = client.reply(&call)?.body;
            if piece.is_empty() && offset < size {
                return Err(CallError::Garbled(format!("the file ends at byte {offset} of {size}")).into());
            }
            to.write_all(&piece).map_err(|e| failure(IO, format!("cannot write \"{name}\": {e}")))?;
            hash.update(&piece);
            offset += piece.len() as u64;
            progress.at(offset);
            if offset >= size {
                return check(name, file, &hash.finalize());
            }
        }
    }
}

/// Standard output, of which a reader that went away is no error of ours.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        bytes(piece).map_err(std::io::Error::other)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Where a file goes; its name is the job's choice and must not lead out of the directory.
fn place(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(failure(
            IO,
            format!("the name \"{name}\" leads out of the directory; fetch it with --get"),
        ));
    }
    Ok(directory.join(name))
}

/// Whether what came is what was kept. A file that is not listed was refused before.
fn check(name: &str, file: Option<&JobFile>, hash: &[u8]) -> anyhow::Result<()> {
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    match file {
        Some(file) if !file.sha256.eq_ignore_ascii_case(&hash) => {
            let wrong = format!("\"{name}\" came with the SHA-256 {hash}, not {}; try again", file.sha256);
            Err(CallError::Garbled(wrong).into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Writes a file under a temporary name and gives it its own when it is whole; if that fails, nothing is left of it, and what was there before is still
/// there. What is no plain file (a terminal, a pipe) is written to as it is.
pub(crate) fn save(
    to: &Path,
    fetch: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let fail = |e: io::Error| failure(IO, format!("cannot create {}: {e}", to.display()));
    if to.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return fetch(&mut File::options().write(true).open(to).map_err(fail)?);
    }
    let to = to.canonicalize().unwrap_or_else(|_| to.to_owned()); // a link stays one
    let name = to.file_name().ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?.to_string_lossy();
    let growing = to.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let made = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create_new(&growing));
    let fetched = fetch(&mut made.map_err(fail)?);
    let saved = fetched.and_then(|()| fs::rename(&growing, &to).map_err(fail));
    if saved.is_err() {
        let _ = fs::remove_file(&growing); // why it failed says more
    }
    saved
}

impl Row for JobFile {
    fn heads(wide: bool) -> Vec<&'static str> {
        let mut heads = vec!["NAME", "BYTES", "STATE", "SHA-256"];
        if wide {
            heads.extend(["STORED", "REASON"]);
        }
        heads
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let hash = if wide { self.sha256.clone() } else { self.sha256.chars().take(16).collect() };
        let mut cells = vec![self.name.clone(), self.bytes.to_string(), self.state.text().to_owned(), hash];
        if wide {
            cells.extend([moment(self.stored_at, true), or_empty(&self.reason)]);
        }
        cells
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::FileState;

    #[test]
    fn no_name_leads_out_of_the_directory() {
        assert_eq!(place(Path::new("d"), "a/b").unwrap(), Path::new("d/a/b"));
        for name in ["../x", "/x", "a/../../x"] {
            assert!(place(Path::new("d"), name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_whole_and_a_half_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("deep/sum.pdf");
        let half = |out: &mut dyn Write| {
            out.write_all(b"half")?;
            anyhow::bail!("it broke off")
        };
        let whole = |out: &mut dyn Write| Ok(out.write_all(b"whole")?);
        let names = || fs::read_dir(to.parent().unwrap()).unwrap().count();
        assert!(save(&to, half).is_err());
        assert_eq!(names(), 0);
        save(&to, whole).unwrap();
        assert!(save(&to, half).is_err());
        assert_eq!(
            (fs::read(&to).unwrap(), names()),
            (b"whole".to_vec(), 1),
            "what was there is still there"
        );
    }

    #[test]
    fn bytes_that_are_not_those_that_were_kept_are_refused() {
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        let (kept_at, stored_at, reason) = (None, None, None);
        let (name, state) = ("x".to_owned(), FileState::Stored);
        let file = JobFile { name, bytes: 3, sha256, kept_at, state, stored_at, reason };
        assert!(check("x", Some(&file), &Sha256::digest(b"abc")).is_ok());
        let error = check("x", Some(&file), &Sha256::digest(b"abd")).unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
    }
}

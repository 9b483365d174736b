//! Files that were kept of a job: list them, fetch them.

use super::{JobRef, path};
use crate::client::{Call, CallError, Client, encode};
use crate::exit::{IO, failure};
use crate::output::{Output, Row, bytes, line};
use api::{JobFile, JobFiles};
use clap::Args;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use ureq::http::Method;

/// Fetched at a time.
const PIECE_BYTES: u64 = 4 << 20;

/// Which files, and where to.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword job files 1042
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
                let size = files.items.iter().find(|file| file.name == *name).map_or(0, |file| file.bytes);
                match &self.output_file {
                    Some(to) => self.fetch(client, name, size, &attempt, &mut create(to)?)?,
                    None => self.fetch(client, name, size, &attempt, &mut Stdout)?,
                }
            }
            (None, Some(directory)) => {
                for file in &files.items {
                    let to = place(directory, &file.name)?;
                    self.fetch(client, &file.name, file.bytes, &attempt, &mut create(&to)?)?;
                    line(&to.display().to_string())?;
                }
            }
            (None, None) => output.list(&files.items)?,
        }
        Ok(0)
    }

    fn fetch(
        &self,
        client: &Client,
        name: &str,
        size: u64,
        attempt: &str,
        to: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let mut offset = 0;
        loop {
            let rest = format!("/files/{}?offset={offset}&limit={PIECE_BYTES}&{attempt}", encode(name));
            let question = path(self.job.id, &rest);
            let call = Call { method: Method::GET, path: &question, body: None, repeatable: true };
            let piece = client.reply(&call)?.body;
            if piece.is_empty() && offset < size {
                return Err(CallError::Garbled(format!("the file ends at byte {offset} of {size}")).into());
            }
            to.write_all(&piece).map_err(|e| failure(IO, format!("cannot write \"{name}\": {e}")))?;
            offset += piece.len() as u64;
            if offset >= size {
                return Ok(());
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

fn create(path: &Path) -> anyhow::Result<File> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(path));
    made.map_err(|e| failure(IO, format!("cannot create {}: {e}", path.display())))
}

impl Row for JobFile {
    fn heads(_wide: bool) -> Vec<&'static str> {
        vec!["NAME", "BYTES", "SHA-256"]
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let hash = if wide { self.sha256.clone() } else { self.sha256.chars().take(16).collect() };
        vec![self.name.clone(), self.bytes.to_string(), hash]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_directory() {
        assert_eq!(place(Path::new("d"), "a/b").unwrap(), Path::new("d/a/b"));
        for name in ["../x", "/x", "a/../../x"] {
            assert!(place(Path::new("d"), name).is_err(), "{name}");
        }
    }
}

//! Fetches a support bundle: what somebody far away needs to find a fault, without anything that opens anything.

use crate::client::{Call, CallError, Client};
use crate::exit::{self, failure};
use crate::job::save;
use crate::output::{Output, bytes, hint};
use crate::progress::Progress;
use api::SupportBundleMake;
use clap::Args;
use serde::Serialize;
use std::fs::Permissions;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use ureq::http::Method;

/// What is read at once.
const READ_BYTES: usize = 64 << 10;

/// How much is to be in it, and where it goes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword server support-bundle                        into a new file here, named by the server
  lastword server support-bundle --out fault.tar.gz --reason 'jobs hang'
  lastword server support-bundle --out - | tar -tzv
Look at INDEX.md in it before you pass it on: it says what is in it, what could not be had, and
what never is.")]
pub(crate) struct Support {
    /// The file to write; `-` is standard output. An existing file is replaced.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// So many of the newest events.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    events: u32,
    /// So many of the newest audit entries.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    audit: u32,
    /// Leave out the check of the database, which may take half a minute.
    #[arg(long)]
    no_check: bool,
}

/// What was fetched.
#[derive(Serialize)]
struct Fetched {
    file: String,
    bytes: u64,
    parts: u64,
}

impl Support {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        let request = SupportBundleMake {
            events: Some(self.events),
            audit: Some(self.audit),
            check: Some(!self.no_check),
        };
        let body = serde_json::to_vec(&request).map_err(|e| CallError::Garbled(e.to_string()))?;
        let path = "/api/v1/server/support-bundle";
        let call = Call { method: Method::POST, path, body: Some(body), repeatable: true, ..Call::default() };
        hint("the server gathers what it knows");
        let mut answer = client.download(&call)?;
        let (total, parts) = (answer.reply.number("content-length"), answer.reply.number("x-parts"));
        let to = match self.out {
            Some(to) => to,
            None => PathBuf::from(name_of(&answer.reply.headers)?),
        };
        let mut written = 0;
        if to == Path::new("-") {
            let terminal = io::stdout().is_terminal();
            if terminal {
                return Err(failure(
                    exit::USAGE,
                    "an archive is nothing for a terminal; write it to a file or a pipe",
                ));
            }
            copy(&mut answer.body, total, &mut written, bytes)?;
            return Ok(0);
        }
        save(&to, |file| {
            copy(&mut answer.body, total, &mut written, |piece| {
                file.write_all(piece)
                    .map_err(|e| failure(exit::IO, format!("cannot write {}: {e}", to.display())))
            })
        })?;
        keep_private(&to);
        let fetched =
            Fetched { file: to.display().to_string(), bytes: written, parts: parts.unwrap_or_default() };
        output.one(&fetched, &fetched.file, |_| fetched.file.clone())?;
        hint("INDEX.md in it says what is in it and what is not");
        Ok(0)
    }
}

/// What is in it is for whoever is meant to read it. A file system that knows no modes keeps it as it is.
fn keep_private(path: &Path) {
    if path.metadata().is_ok_and(|metadata| metadata.is_file()) {
        let _ = std::fs::set_permissions(path, Permissions::from_mode(0o600));
    }
}

/// All of it, or an error that says how much came.
fn copy(
    from: &mut dyn Read,
    total: Option<u64>,
    written: &mut u64,
    mut write: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut progress = Progress::new("support bundle", total.unwrap_or(0), false);
    let mut piece = vec![0; READ_BYTES];
    loop {
        let read = from.read(&mut piece).map_err(|e| broke_off(*written, &e.to_string()))?;
        if read == 0 {
            break;
        }
        write(&piece[..read])?;
        *written += read as u64;
        progress.at(*written);
    }
    match total {
        Some(total) if *written != total => {
            Err(broke_off(*written, &format!("{total} bytes were announced")))
        }
        Some(_) | None => Ok(()),
    }
}

fn broke_off(written: u64, why: &str) -> anyhow::Error {
    failure(exit::AWAY, format!("the bundle broke off after {written} bytes: {why}; try again"))
}

/// The name that the server gives it: a plain one, or none of it is believed.
fn name_of(headers: &ureq::http::HeaderMap) -> anyhow::Result<String> {
    let said = headers.get("content-disposition").and_then(|value| value.to_str().ok());
    let name = said.and_then(|said| said.split_once("filename=\"")?.1.split('"').next());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match name.filter(|name| !name.starts_with('.') && !name.is_empty() && name.chars().all(plain)) {
        Some(name) => Ok(name.to_owned()),
        None => {
            Err(failure(exit::USAGE, "the server gives the bundle no name that can be used; give --out FILE"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Place;
    use crate::fake;
    use crate::output::Format;

    fn fetch(answer: String, out: Option<PathBuf>) -> (anyhow::Result<u8>, Vec<String>) {
        let (urls, asked) = fake::server(vec![answer]);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        let support = Support { out, events: 5, audit: 0, no_check: true };
        (support.run(&client, &Output::new(Format::Name)), asked.join().unwrap())
    }

    #[test]
    fn a_bundle_is_written_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("b.tar.gz");
        let (done, asked) = fetch(fake::answer(200, "archive"), Some(out.clone()));
        assert_eq!(done.unwrap(), 0);
        assert_eq!(std::fs::read(&out).unwrap(), b"archive");
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(asked[0].ends_with("{\"events\":5,\"audit\":0,\"check\":false}"), "{}", asked[0]);
        let short = fake::answer(200, "archive").replace("content-length: 7", "content-length: 70");
        let other = dir.path().join("other.tar.gz");
        let error = fetch(short, Some(other.clone())).0.unwrap_err();
        assert!(error.to_string().contains("broke off") && !other.exists(), "{error}");
    }

    #[test]
    fn the_servers_name_for_it_leads_nowhere_else() {
        let named = |text: &str| {
            let mut headers = ureq::http::HeaderMap::new();
            headers.insert("content-disposition", text.parse().unwrap());
            name_of(&headers)
        };
        assert_eq!(
            named("attachment; filename=\"lastword-a-2026.tar.gz\"").unwrap(),
            "lastword-a-2026.tar.gz"
        );
        for wrong in [
            "attachment",
            "attachment; filename=\"../x\"",
            "attachment; filename=\".x\"",
            "attachment; filename=\"\"",
        ] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}

//! A support bundle: one archive with what somebody far away needs to find a fault, and nothing that opens anything.
//!
//! | what is in it     | is made so that no secret is in it                                                              |
//! |-------------------|-------------------------------------------------------------------------------------------------|
//! | configuration     | values of keys that are called secret, token, password, key are left out; of addresses the user |
//! | jobs              | by status and queue only: no command, script, variable, parameter, output                      |
//! | events, audit     | as their lists show them, which never hold a secret of ours                                     |
//! | traces            | the newest lines                                                                                |
//! | all of it         | passes through [`scrub`](Scrub) before it is written                                            |
//!
//! It is made in memory, for a disk that is full is a fault to be found too, and every part has a limit. A part that cannot be had is named in the
//! index with the reason; the rest is there all the same.

mod host;
mod scrub;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

pub(crate) use scrub::{Scrub, configuration};

/// One part, uncompressed.
const PART_BYTES_MAX: usize = 16 << 20;
/// All parts, uncompressed.
const BYTES_MAX: usize = 64 << 20;
/// The newest lines of a trace.
pub(crate) const TRACE_BYTES_MAX: u64 = 4 << 20;

/// What is never in a bundle, for the index.
const NEVER: &str = "\
- tokens and their hashes, the admin token, shared secrets of agents
- commands, scripts, environment variables, parameters and output of jobs, and files that were kept of them
- the database and its backups
- comments of the configuration; values of keys that are secret or say where a secret lies
- values of environment variables of the server
";

/// Where this server lives, and how it is configured.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// With the traces.
    pub data_root: PathBuf,
    /// With the database and the backups; the data root may be one of them.
    pub folders: Vec<PathBuf>,
    /// The settings, defaults and all.
    pub config: Value,
}

impl Place {
    /// The settings without what is secret.
    pub(crate) fn settings(&self) -> Value {
        let mut settings = self.config.clone();
        configuration(&mut settings);
        settings
    }

    /// The host, the process, the folders.
    pub(crate) fn host(&self) -> Value {
        let mut folders = vec![self.data_root.as_path()];
        folders.extend(self.folders.iter().map(PathBuf::as_path));
        folders.sort_unstable();
        folders.dedup();
        host::facts(&folders)
    }

    /// The newest lines of the server's trace.
    pub(crate) fn trace(&self) -> io::Result<Vec<u8>> {
        trace::tail(&self.data_root.join("trace"), "central-server", TRACE_BYTES_MAX)
    }

    /// What is in the file of the admin token, if it is there.
    pub(crate) fn admin_token(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.data_root.join("admin.token")).ok()?;
        Some(text.trim().to_owned())
    }
}

/// A bundle that is being made.
pub(crate) struct Bundle {
    scrub: Scrub,
    parts: Vec<Part>,
    left_out: Vec<String>,
    bytes: usize,
}

struct Part {
    name: String,
    about: &'static str,
    bytes: Vec<u8>,
    /// What is not in it.
    note: Option<String>,
}

/// What could be had of a part, or why not.
pub(crate) type Found<T> = Result<T, String>;

impl Bundle {
    pub(crate) fn new(scrub: Scrub) -> Bundle {
        Bundle { scrub, parts: Vec::new(), left_out: Vec::new(), bytes: 0 }
    }

    /// A document.
    pub(crate) fn json<T: Serialize>(&mut self, name: &str, about: &'static str, found: Found<T>) {
        let text = found.and_then(|item| {
            let mut value = serde_json::to_value(item).map_err(|e| e.to_string())?;
            self.scrub.value(&mut value);
            serde_json::to_vec_pretty(&value).map_err(|e| e.to_string())
        });
        match text {
            Ok(bytes) if bytes.len() > PART_BYTES_MAX => {
                self.leave_out(name, &format!("it would have {} bytes", bytes.len()));
            }
            Ok(bytes) => self.add(name, about, bytes, None),
            Err(why) => self.leave_out(name, &why),
        }
    }

    /// A list, an item a line, as far as there is room.
    pub(crate) fn lines<T: Serialize>(&mut self, name: &str, about: &'static str, found: Found<Vec<T>>) {
        let items = match found {
            Ok(items) => items,
            Err(why) => return self.leave_out(name, &why),
        };
        let (mut bytes, mut written) = (Vec::new(), 0);
        for item in &items {
            let line = serde_json::to_value(item).map(|mut value| {
                self.scrub.value(&mut value);
                format!("{value}\n")
            });
            match line {
                Ok(line) if bytes.len() + line.len() <= PART_BYTES_MAX => bytes.extend(line.into_bytes()),
                Ok(_) | Err(_) => break,
            }
            written += 1;
        }
        let note = (written < items.len()).then(|| format!("the first {written} of {}", items.len()));
        self.add(name, about, bytes, note);
    }

    /// A text; of a longer one the end.
    pub(crate) fn text(&mut self, name: &str, about: &'static str, found: Found<Vec<u8>>) {
        match found {
            Ok(bytes) => {
                let cut = bytes.len().saturating_sub(PART_BYTES_MAX);
                let text = self.scrub.text(&String::from_utf8_lossy(&bytes[cut..]));
                self.add(
                    name,
                    about,
                    text.into_bytes(),
                    (cut > 0).then(|| format!("without its first {cut} bytes")),
                );
            }
            Err(why) => self.leave_out(name, &why),
        }
    }

    /// A part is not there, for this reason.
    pub(crate) fn leave_out(&mut self, name: &str, why: &str) {
        let why = self.scrub.text(why);
        self.left_out.push(format!("{name}: {why}"));
    }

    fn add(&mut self, name: &str, about: &'static str, bytes: Vec<u8>, note: Option<String>) {
        if self.bytes + bytes.len() > BYTES_MAX {
            return self.leave_out(name, &format!("the bundle would have more than {} MiB", BYTES_MAX >> 20));
        }
        self.bytes += bytes.len();
        self.parts.push(Part { name: name.to_owned(), about, bytes, note });
    }

    /// How many parts there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    fn index(&self, head: &str) -> String {
        let mut index = format!("# Lastword support bundle\n\n{head}\n\n## What is in it\n\n");
        for Part { name, about, bytes, note } in &self.parts {
            let note = note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            let _ = writeln!(index, "- {name}, {} bytes: {about}{note}", bytes.len()); // a String takes everything
        }
        index.push_str("\n## What could not be had this time\n\n");
        if self.left_out.is_empty() {
            index.push_str("nothing\n");
        }
        self.left_out.iter().for_each(|left_out| {
            let _ = writeln!(index, "- {left_out}");
        });
        let _ = write!(
            index,
            "\n## What is never in it\n\n{NEVER}\nWhatever looks like a secret was replaced by \"{}\". Limits: {} MiB a part, {} MiB in all; of a \
             trace the newest {} MiB.\n",
            scrub::LEFT_OUT,
            PART_BYTES_MAX >> 20,
            BYTES_MAX >> 20,
            TRACE_BYTES_MAX >> 20
        );
        index
    }

    /// The archive (tar, gzip): everything in one folder of this name, the index first.
    pub(crate) fn pack(self, folder: &str, head: &str, now_ms: i64) -> io::Result<Vec<u8>> {
        let index = self.index(&self.scrub.text(head));
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(now_ms / 1000).unwrap_or(0));
            archive.append_data(&mut header, Path::new(folder).join(name), bytes)
        };
        add("INDEX.md", index.as_bytes())?;
        for part in &self.parts {
            add(&part.name, &part.bytes)?;
        }
        let mut encoder = archive.into_inner()?;
        encoder.flush()?;
        encoder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::io::Read;

    fn unpack(archive: &[u8]) -> BTreeMap<String, String> {
        let mut archive = tar::Archive::new(GzDecoder::new(archive));
        let read = |mut entry: tar::Entry<'_, GzDecoder<&[u8]>>| {
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (name, text)
        };
        archive.entries().unwrap().map(|entry| read(entry.unwrap())).collect()
    }

    #[test]
    fn the_index_says_what_is_in_what_is_missing_and_why() {
        let mut bundle = Bundle::new(Scrub::new(["0123456789abcdef".to_owned()]));
        bundle.json("a.json", "a thing", Ok(json!({"x": "0123456789abcdef"})));
        bundle.lines("b.jsonl", "things", Ok(vec!["x".repeat(PART_BYTES_MAX / 2); 3]));
        bundle.text("c.txt", "a text", Ok(b"Bearer 0123456789".to_vec()));
        bundle.json(
            "d.json",
            "another",
            Err::<Value, _>("the database is busy: 0123456789abcdef".to_owned()),
        );
        bundle.json("e.json", "too much", Ok("x".repeat(PART_BYTES_MAX)));
        assert_eq!(bundle.len(), 3);
        let parts = unpack(&bundle.pack("bundle", "made now", 5_000).unwrap());
        let index = &parts["bundle/INDEX.md"];
        for line in [
            "made now",
            "- a.json, 23 bytes: a thing\n",
            "things (the first 1 of 3)",
            "- d.json: the database is busy: (left out)\n",
            "- e.json: it would have 16777218 bytes",
            "hashes",
        ] {
            assert!(index.contains(line), "{line} is not in {index}");
        }
        assert_eq!(parts["bundle/a.json"], "{\n  \"x\": \"(left out)\"\n}");
        assert_eq!(parts["bundle/c.txt"], "Bearer (left out)");
        assert!(!parts.contains_key("bundle/d.json") && !parts.contains_key("bundle/e.json"));
    }

    #[test]
    fn no_bundle_is_larger_than_its_limit() {
        let mut bundle = Bundle::new(Scrub::default());
        for n in 0..6 {
            bundle.text(&format!("{n}"), "much", Ok(vec![b'x'; 2 * PART_BYTES_MAX]));
        }
        assert_eq!((bundle.len(), bundle.bytes), (4, BYTES_MAX));
        let index = bundle.index("");
        assert!(
            index.contains("without its first 16777216 bytes")
                && index.contains("- 5: the bundle would have"),
            "{index}"
        );
    }
}

//! The output limit of a run, for whoever supervises it: looks at the sizes of its two files when `job::output` says so, and does what that decides. A
//! run without a limit costs nothing.

use crate::root::RunDir;
use job::output::{Deed, Watch};
use os::disk;
use std::io;

/// What is left for the supervisor to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// End the run; the text stands for who asks.
    pub kill: Option<String>,
    /// To be written into the log.
    pub notes: Vec<String>,
}

/// Looks at the sizes if it is time, and keeps the files within their limit.
pub fn look(dir: &RunDir, watch: &mut Watch, now_ms: u64) -> Found {
    let mut found = Found::default();
    if now_ms < watch.next_look_ms() {
        return found;
    }
    let paths = [dir.out(), dir.err()];
    let sizes = paths.each_ref().map(|path| path.symlink_metadata().map_or(0, |metadata| metadata.len()));
    for deed in watch.on_sizes(sizes, now_ms) {
        let done = match deed {
            Deed::Hollow { stream, from, to } => with(&paths[stream], |file| disk::hollow(file, from, to)),
            Deed::Cut { stream, at } => with(&paths[stream], |file| file.set_len(at)),
            Deed::Note(text) => {
                found.notes.push(text);
                continue;
            }
            Deed::Kill { by } => {
                found.kill = Some(by);
                continue;
            }
        };
        if let Err(e) = done {
            found.notes.push(format!("the output limit cannot be kept: {e}"));
        }
    }
    found
}

fn with(path: &std::path::Path, act: impl FnOnce(&std::fs::File) -> io::Result<()>) -> io::Result<()> {
    act(&disk::open_plain_for_writing(path)?)
}

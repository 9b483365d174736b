//! Lines of sudoers for one test, removed with it. What a test that was killed left behind is removed by the next one: it names programs in a
//! directory that is gone, which somebody else could make anew.

use anyhow::{Context, Result};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const FOLDER: &str = "/etc/sudoers.d";
/// Then the test's process id, and a number.
const PREFIX: &str = "lastword-test-";
const SUDOERS_MODE: u32 = 0o440;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A file in the folder that sudoers includes.
pub struct Sudoers {
    path: PathBuf,
}

impl Sudoers {
    /// Makes it, with these lines.
    pub fn new(lines: &str) -> Result<Sudoers> {
        anyhow::ensure!(
            Path::new(FOLDER).is_dir(),
            "{FOLDER} does not exist: apt-get install sudo, which `cargo xtask test` does by itself"
        );
        sweep()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(FOLDER).join(format!("{PREFIX}{}-{number}", std::process::id()));
        let sudoers = Sudoers { path };
        sudoers.write(lines)?;
        Ok(sudoers)
    }

    /// Replaces the lines at once: sudo reads files of other tests too, and a half one is an error for all. A name with a dot is left out.
    pub fn write(&self, lines: &str) -> Result<()> {
        let new = self.path.with_extension("new");
        let _ = std::fs::remove_file(&new); // as a rule there is none
        let mut file = std::fs::File::options().write(true).create_new(true).mode(SUDOERS_MODE).open(&new)?;
        writeln!(file, "{lines}")?;
        std::fs::rename(&new, &self.path).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for Sudoers {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.path) {
            eprintln!("--- {} stays: {e}", self.path.display());
        }
    }
}

fn sweep() -> Result<()> {
    for entry in std::fs::read_dir(FOLDER)?.flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let owner = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_file(entry.path()); // another test may have done so
        }
    }
    Ok(())
}

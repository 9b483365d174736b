//! Puts the programs where a host looks for them, also over running ones.
//!
//! ```text
//! PREFIX/libexec/lastword/   every program, side by side, as the agent expects to find them
//! PREFIX/bin/                links to the three that people start
//! PREFIX/share/man/man1/     the manual pages of lastword
//! PREFIX/share/bash-completion/completions/lastword, PREFIX/share/zsh/site-functions/_lastword, PREFIX/share/fish/vendor_completions.d/lastword.fish
//! ```
//!
//! A program is written beside its place and renamed into it: one that runs goes on from its old file, and a crash leaves the old or
//! the new one, never half of one. What it leaves behind (`.NAME.new`) is written over the next time.
//!
//! A program that was made setuid there (`[users] switch = "setuid"`) stays so, with its owner and group: without it no job could be started.

use crate::build::{self, Profile};
use crate::step;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

/// Those that people start.
const LINKED: [&str; 3] = ["central-server", "lastword", "platform-agent"];
/// Runs by everybody, written by its owner.
const PROGRAM_MODE: u32 = 0o755;
/// Runs as its owner.
const SETUID: u32 = 0o4000;
/// What a file's mode says of rights.
const MODE_BITS: u32 = 0o7777;

/// Builds as it is shipped, and installs below `prefix`.
pub(crate) fn run(prefix: &Path) -> Result<()> {
    let built = build::programs(Profile::Release)?;
    let prefix = std::path::absolute(prefix).context("the prefix")?;
    let (libexec, bin) = (prefix.join("libexec/lastword"), prefix.join("bin"));
    for folder in [&libexec, &bin] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    for name in build::names() {
        place(&built.join(name), &libexec, name).with_context(|| format!("cannot install {name}"))?;
    }
    for name in LINKED {
        link(&bin, name).with_context(|| format!("cannot link {name} into {}", bin.display()))?;
    }
    documents(&libexec.join("lastword"), &prefix)?;
    println!("    installed below {}; programs that run go on from their old files:", prefix.display());
    println!(
        "    restart central-server; platform-agent takes its new file without ending a job (see docs/operations.md)"
    );
    Ok(())
}

fn place(from: &Path, folder: &Path, name: &str) -> Result<()> {
    let beside = folder.join(format!(".{name}.new"));
    fs::copy(from, &beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(PROGRAM_MODE))?;
    if let Some(old) = fs::metadata(folder.join(name)).ok().filter(|old| old.mode() & SETUID != 0) {
        chown(&beside, Some(old.uid()), Some(old.gid()))?; // before the mode: it takes the bit away
        fs::set_permissions(&beside, fs::Permissions::from_mode(old.mode() & MODE_BITS))?;
    }
    File::open(&beside)?.sync_all()?;
    fs::rename(&beside, folder.join(name))?;
    Ok(File::open(folder)?.sync_all()?)
}

fn link(bin: &Path, name: &str) -> Result<()> {
    let beside = bin.join(format!(".{name}.new"));
    let _ = fs::remove_file(&beside); // of an installation that was interrupted
    symlink(Path::new("../libexec/lastword").join(name), &beside)?;
    Ok(fs::rename(&beside, bin.join(name))?)
}

/// Manual pages and completions, as the new `lastword` itself tells them.
fn documents(lastword: &Path, prefix: &Path) -> Result<()> {
    let manual = prefix.join("share/man/man1");
    fs::create_dir_all(&manual).with_context(|| format!("cannot create {}", manual.display()))?;
    step::run("man pages", Command::new(lastword).arg("man").arg(&manual))?;
    let shells = [
        ("bash", "share/bash-completion/completions/lastword"),
        ("zsh", "share/zsh/site-functions/_lastword"),
        ("fish", "share/fish/vendor_completions.d/lastword.fish"),
    ];
    for (shell, path) in shells {
        let path = prefix.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let script =
            Command::new(lastword).args(["completions", shell]).output().context("lastword completions")?;
        anyhow::ensure!(script.status.success(), "lastword completions {shell} failed");
        fs::write(&path, script.stdout).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_made_setuid_stays_so_and_others_are_ordinary() {
        let folder = std::env::temp_dir().join(format!("lastword-install-setuid-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mode = || fs::metadata(folder.join("program")).unwrap().mode() & MODE_BITS;
        place(Path::new("/bin/true"), &folder, "program").unwrap();
        let ordinary = mode();
        fs::set_permissions(folder.join("program"), fs::Permissions::from_mode(0o4750)).unwrap();
        place(Path::new("/bin/false"), &folder, "program").unwrap();
        let (again, is_new) =
            (mode(), fs::read(folder.join("program")).unwrap() == fs::read("/bin/false").unwrap());
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((ordinary, again, is_new), (PROGRAM_MODE, 0o4750, true));
    }

    #[test]
    fn a_running_program_is_replaced_and_goes_on() {
        let folder = std::env::temp_dir().join(format!("lastword-install-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        place(Path::new("/bin/sleep"), &folder, "sleeper").unwrap();
        let mut running = Command::new(folder.join("sleeper")).arg("60").spawn().unwrap();
        place(Path::new("/bin/true"), &folder, "sleeper").unwrap();
        let still_runs = running.try_wait().unwrap().is_none();
        let replaced = Command::new(folder.join("sleeper")).status().unwrap().success();
        running.kill().unwrap();
        running.wait().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(still_runs && replaced);
    }
}

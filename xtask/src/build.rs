//! Every program, side by side in one folder, as the agent expects to find them.

use crate::step;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// What a folder of programs holds; job-processor comes by itself.
const PROGRAMS: [&str; 4] = ["central-server", "platform-agent", "network-processor", "lastword"];

/// Which of the two builds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Fast to build.
    Debug,
    /// Fast to run.
    Release,
}

impl Profile {
    pub(crate) fn of(release: bool) -> Profile {
        if release { Profile::Release } else { Profile::Debug }
    }

    fn folder(self) -> &'static str {
        match self {
            Profile::Debug => "debug",
            Profile::Release => "release",
        }
    }
}

/// Builds all programs and gives the folder they stand in.
pub(crate) fn programs(profile: Profile) -> Result<PathBuf> {
    let mut arguments = vec!["build"];
    PROGRAMS.iter().for_each(|name| arguments.extend(["-p", name]));
    if profile == Profile::Release {
        arguments.push("--release");
    }
    step::run("build", &mut step::cargo(&arguments))?;
    job_processor(profile)?;
    let folder = target_directory().join(profile.folder());
    for name in names() {
        if !folder.join(name).is_file() {
            bail!("{} was built and is not there", folder.join(name).display());
        }
    }
    println!("    the programs are in {}", folder.display());
    Ok(folder)
}

/// Every program.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PROGRAMS.into_iter().chain(["job-processor"])
}

/// One per running job, so its size counts: linked statically at a fixed address it shares all its code with its siblings and has
/// no relocations to write. Where the C library cannot be linked so, an ordinary one does the same work in more memory.
fn job_processor(profile: Profile) -> Result<()> {
    let mut plain = vec!["rustc", "-p", "job-processor", "--bin", "job-processor"];
    if profile == Profile::Release {
        plain.push("--release");
    }
    let mut fixed = plain.clone();
    fixed.extend(["--", "-C", "target-feature=+crt-static", "-C", "relocation-model=static"]);
    if step::run("job-processor", &mut step::cargo(&fixed)).is_err() {
        println!("    job-processor cannot be linked statically here (is libc6-dev with libc.a installed?);");
        println!("    building it dynamically: it works the same and needs more memory per running job");
        step::run("job-processor", &mut step::cargo(&plain))?;
    }
    Ok(())
}

/// Where cargo builds.
pub(crate) fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from) {
        Some(dir) if dir.is_absolute() => dir,
        Some(dir) => step::root().join(dir),
        None => step::root().join("target"),
    }
}

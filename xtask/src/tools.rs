//! What must be on the machine beside the Rust toolchain: installed where that may be done, else named.

use crate::step;
use anyhow::{Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The nextest that the tests were written with; any 0.9 that is there will do.
const NEXTEST: &str = "cargo-nextest@0.9.143";
/// The cargo-fuzz that the targets were tried with.
const CARGO_FUZZ: &str = "cargo-fuzz@0.13.2";
/// The pueue that the benchmark was tried with.
const PUEUE: &str = "pueue@4.0.4";

/// A Debian package, and how to see that what we need of it is there.
struct Package {
    name: &'static str,
    provides: Provides,
}

enum Provides {
    Program(&'static str),
    File(&'static str),
}

/// What building and testing need: a C compiler for SQLite and the TLS library's cryptography, git for the list of files.
const PACKAGES: [Package; 3] = [
    Package { name: "gcc", provides: Provides::Program("cc") },
    Package { name: "libc6-dev", provides: Provides::File("/usr/include/stdio.h") },
    Package { name: "git", provides: Provides::Program("git") },
];

/// What tests need that only root can run: sudo, through which an agent can switch users; file systems that are filled and lose power; networks that
/// fail.
const ROOTS_PACKAGES: [Package; 5] = [
    Package { name: "sudo", provides: Provides::Program("sudo") },
    Package { name: "e2fsprogs", provides: Provides::Program("mkfs.ext4") },
    Package { name: "xfsprogs", provides: Provides::Program("mkfs.xfs") },
    Package { name: "mount", provides: Provides::Program("losetup") },
    Package { name: "iproute2", provides: Provides::Program("ip") },
];

/// Installs the missing Debian packages if we are root on a system with apt-get; else names them.
pub(crate) fn packages() -> Result<()> {
    let roots = if is_root() { &ROOTS_PACKAGES[..] } else { &[] };
    install(&PACKAGES)?;
    install(roots)
}

fn install(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|package| !package.is_there()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !is_root() || !on_path("apt-get") {
        bail!("these packages are missing: {}; install them as root: {by_hand}", missing.join(", "));
    }
    step::run("packages", Command::new("apt-get").arg("update").stdout(Stdio::null()))?;
    let mut install = Command::new("apt-get");
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "--no-install-recommends"])
        .args(&missing);
    step::run("packages", &mut install)
}

/// Installs nextest, which runs the tests, into cargo's own bin directory if it is not there.
pub(crate) fn nextest() -> Result<()> {
    let asked = step::cargo(&["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if asked.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    step::run("nextest", &mut step::cargo(&["install", "--locked", NEXTEST]))
}

/// Installs cargo-fuzz, which runs the fuzz targets, and the C++ compiler that libFuzzer is built with.
pub(crate) fn fuzzer() -> Result<()> {
    install(&[Package { name: "g++", provides: Provides::Program("c++") }])?;
    let asked = step::cargo(&["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if asked.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    step::run("cargo-fuzz", &mut step::cargo(&["install", "--locked", CARGO_FUZZ]))
}

/// Installs the peers of the benchmark: task-spooler as a Debian package, pueue into the target directory. HyperQueue is in neither registry: a `hq`
/// on the PATH is measured.
pub(crate) fn peers() -> Result<()> {
    install(&[Package { name: "task-spooler", provides: Provides::Program("tsp") }])?;
    let mut pueue = step::cargo(&["install", "--locked", PUEUE, "--root"]);
    step::run("pueue", pueue.arg(peers_folder()))?;
    if !on_path("hq") {
        println!(
            "    HyperQueue is not on the PATH (hq): https://github.com/It4innovations/hyperqueue has its releases"
        );
    }
    Ok(())
}

fn peers_folder() -> PathBuf {
    step::root().join("target/peers")
}

/// The `PATH` of the benchmark.
pub(crate) fn path_with_peers() -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([peers_folder().join("bin")]);
    Ok(std::env::join_paths(folders)?)
}

impl Package {
    fn is_there(&self) -> bool {
        match self.provides {
            Provides::Program(name) => on_path(name),
            Provides::File(path) => Path::new(path).exists(),
        }
    }
}

/// Whether a program of that name is on the `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The effective user, as the kernel has it in `/proc`.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    uids.split_whitespace().nth(1) == Some("0")
}

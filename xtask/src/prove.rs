//! `cargo xtask prove`: tries the promise that nothing is lost, at a chosen length, and writes one page of what was tried, how often, and what
//! was lost.

mod page;

use crate::build::{self, Profile};
use crate::{step, tools};
use anyhow::{Context, Result, bail};
use page::{Circumstances, Proof};
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tally::Part;

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Length {
    /// Minutes: whether everything can be tried here
    Short,
    /// As long as on every change
    Usual,
    /// Hours: for an audit, or a release
    Long,
}

/// What decides how long a test runs, and what it is for each length; the usual one is written in the test.
const LENGTHS: [(&str, &str, &str); 7] = [
    ("SIM_SEEDS", "500", "200000"),
    ("LASTWORD_TEST_KILLS", "100", "20000"),
    ("LASTWORD_TEST_POWER_LOSSES", "12", "2000"),
    ("LASTWORD_TEST_FULL_DISKS", "2", "100"),
    ("LASTWORD_TEST_RECONNECTS", "100", "10000"),
    ("LASTWORD_TEST_STOP_SECONDS", "25", "180"),
    ("LASTWORD_FUZZ_INPUTS", "500", "300000"),
];

/// The parts of the proof, and which tests they are.
const PARTS: [(Part, &str); 8] = [
    (Part::Simulation, "package(sim)"),
    (Part::CrashPoints, "binary(crash)"),
    (Part::RandomKills, "binary(random_kill)"),
    (Part::PowerLoss, "binary(power)"),
    (Part::FullDisks, "binary(full_disk)"),
    (Part::Network, "binary(network)"),
    (Part::TimeAndIdentity, "binary(time)"),
    (Part::Fuzzing, "package(fuzzing)"),
];

pub(crate) fn run(length: Length, out: Option<&Path>) -> Result<()> {
    let begin = Instant::now();
    tools::packages()?;
    tools::nextest()?;
    build::programs(Profile::Debug)?;
    let out = out.map_or_else(|| build::target_directory().join("proof"), Path::to_owned);
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let tally_file = std::path::absolute(out.join("tally.jsonl"))?;
    std::fs::write(&tally_file, "").with_context(|| format!("cannot write {}", tally_file.display()))?;
    let circumstances = circumstances(length)?;
    let tried = step::run("proof", &mut tests(length, &tally_file));
    let text = std::fs::read_to_string(&tally_file)?;
    let lines = tally::read(&text).map_err(|e| anyhow::anyhow!("{}: {e}", tally_file.display()))?;
    let proof = Proof {
        parts: PARTS.iter().map(|(part, _)| *part).collect(),
        lines,
        tests_failed: tried.is_err(),
        took_s: begin.elapsed().as_secs(),
    };
    write(&out.join("proof.txt"), &page::text(&proof, &circumstances))?;
    write(&out.join("proof.html"), &page::html(&proof, &circumstances))?;
    print!("\n{}", page::text(&proof, &circumstances));
    println!("\nthe same as a page: {}", out.join("proof.html").display());
    if !proof.holds() {
        bail!("the promise was broken, or could not be tried: see the page and what the tests said above");
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// All tests of the proof, in one run.
fn tests(length: Length, tally_file: &Path) -> Command {
    let filters: Vec<&str> = PARTS.iter().map(|(_, filter)| *filter).collect();
    let filter = filters.join(" | ");
    let mut tests = step::cargo(&["nextest", "run", "--workspace", "--profile", "proof", "-E", &filter]);
    tests.env(tally::FILE, tally_file);
    for (name, short, long) in LENGTHS {
        match length {
            Length::Short => drop(tests.env(name, short)),
            Length::Usual => drop(tests.env_remove(name)),
            Length::Long => drop(tests.env(name, long)),
        }
    }
    tests
}

fn circumstances(length: Length) -> Result<Circumstances> {
    let system = rustix::system::uname();
    let said = |command: &mut Command| {
        let output = command.current_dir(step::root()).output().ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let git = |arguments: &[&str]| said(Command::new("git").args(["-c", "safe.directory=*"]).args(arguments));
    let commit = git(&["rev-parse", "HEAD"]);
    let changed = !git(&["status", "--porcelain"]).is_empty();
    let scratch = std::env::temp_dir();
    Ok(Circumstances {
        length: format!("{length:?}").to_lowercase(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: if changed { format!("{commit}, with changes that are in no commit") } else { commit },
        at: said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
        host: system.nodename().to_string_lossy().into_owned(),
        user: if tools::is_root() { "root" } else { "an ordinary user" }.to_owned(),
        system: format!(
            "{} {} {}",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy(),
            system.machine().to_string_lossy()
        ),
        processors: std::thread::available_parallelism().context("how many processors are there?")?.get(),
        file_system: said(Command::new("findmnt").args(["-no", "FSTYPE,OPTIONS", "-T"]).arg(scratch)),
    })
}

//! The project's own chores: `cargo xtask --help`.

#![forbid(unsafe_code)]

mod bench;
mod build;
mod demo;
mod install;
mod prove;
mod soak;
mod step;
mod test;
mod tidy;
mod tools;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// The chores of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Measures the shipped programs beside their limits: [GROUP] [--json FILE] [--seconds N]
    Bench {
        /// See `cargo xtask bench -- --help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds every program, side by side in target/debug or target/release
    Build {
        /// With optimisation, as it is shipped
        #[arg(long)]
        release: bool,
    },
    /// Starts a server and an agent in a scratch directory, runs real jobs, kills parts of them, shows every outcome arrive
    Demo {
        /// Leaves everything running and says how to use it
        #[arg(long)]
        keep: bool,
        /// Uses the programs as they are shipped
        #[arg(long)]
        release: bool,
    },
    /// Builds the programs as they are shipped and installs them, their manual pages and completions
    Install {
        /// Below this folder: bin/, libexec/lastword/, share/
        #[arg(long, default_value = "/usr/local")]
        prefix: PathBuf,
    },
    /// Installs other systems of the kind, as far as the registries have them, so that `bench` measures them too
    Peers,
    /// Tries the promise that nothing is lost, and writes one page of what was tried, how often, and what was lost
    Prove {
        /// How much is tried
        #[arg(long, value_enum, default_value_t = prove::Length::Usual)]
        length: prove::Length,
        /// The folder for proof.html, proof.txt and the tallies; target/proof if absent
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// What finds rare faults, for as long as is asked
    Soak {
        #[command(subcommand)]
        of: soak::Of,
    },
    /// Installs what the tests need, then runs fmt, tidy, clippy and every test
    Test,
    /// Checks what the compiler does not: who may depend on whom, lengths, links, leftovers
    Tidy,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Bench { arguments } => bench::run(&arguments),
        Chore::Build { release } => build::programs(build::Profile::of(release)).map(drop),
        Chore::Demo { keep, release } => demo::run(keep, build::Profile::of(release)),
        Chore::Install { prefix } => install::run(&prefix),
        Chore::Peers => tools::peers(),
        Chore::Prove { length, out } => prove::run(length, out.as_deref()),
        Chore::Soak { of } => soak::run(of),
        Chore::Test => test::run(),
        Chore::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

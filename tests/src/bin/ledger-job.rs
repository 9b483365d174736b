//! A job that keeps its own ledger: `ledger-job LEDGER (SLEEP-MS|GO-FILE) (code|signal) NUMBER`.
//!
//! Appends `<job> <run> <pid> start` durably, sleeps (or waits until that file exists), appends `<job> <run> <pid> end <kind> <number>`, and ends as it was told.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use os::pidfd::Pidfd;
use os::signal::Signal;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [ledger, until, kind, number] = arguments.as_slice() else {
        bail!("usage: ledger-job LEDGER (SLEEP-MS|GO-FILE) (code|signal) NUMBER")
    };
    let number: u8 = number.parse()?;
    let job = std::env::var("LASTWORD_JOB_ID").context("this is not a job")?;
    let run = std::env::var("LASTWORD_RUN_ID").context("this is not a run")?;
    let pid = std::process::id();
    let mut ledger = File::options().append(true).create(true).open(ledger).context("the ledger")?;
    // One write each: O_APPEND keeps the lines of many jobs whole.
    let mut append = |what: &str| -> Result<()> {
        ledger.write_all(format!("{job} {run} {pid} {what}\n").as_bytes())?;
        Ok(ledger.sync_data()?)
    };
    append("start")?;
    match until.parse() {
        Ok(ms) => std::thread::sleep(Duration::from_millis(ms)),
        Err(_) => {
            while !Path::new(until).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    append(&format!("end {kind} {number}"))?;
    if kind == "code" {
        std::process::exit(number.into());
    }
    let signal = Signal::from_named_raw(number.into()).context("no such signal")?;
    let own = Pidfd::open(pid)?.context("we are gone")?;
    loop {
        // Again, because the language's own handler of SIGSEGV takes the first one off.
        own.signal(signal)?;
        std::thread::sleep(Duration::from_millis(1));
    }
}

//! What the machine can do at all: start a process and wait for it, with and without making a record of its end durable.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a record, as an outcome has them.
const RECORD: [u8; 200] = [b'x'; 200];

/// What was done over and over.
pub(crate) struct Rate {
    /// How many per second were finished in the span.
    pub(crate) per_s: f64,
    /// How many were finished altogether: also those that were under way when the span was over.
    pub(crate) finished: u64,
}

/// Does `one` over and over, `in_flight` at a time, for `span`.
pub(crate) fn rate(in_flight: usize, span: Duration, one: impl Fn() -> Result<()> + Sync) -> Result<Rate> {
    let (done, late) = (AtomicU64::new(0), AtomicU64::new(0));
    let begin = Instant::now();
    let until_end = || {
        loop {
            one()?;
            if begin.elapsed() > span {
                late.fetch_add(1, Ordering::Relaxed);
                return anyhow::Ok(());
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..in_flight).map(|_| scope.spawn(until_end)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().ok().context("a measuring thread died")?)
    })?;
    let (done, late) = (done.load(Ordering::Relaxed), late.load(Ordering::Relaxed));
    Ok(Rate { per_s: done as f64 / span.as_secs_f64(), finished: done + late })
}

/// `posix_spawn` and wait, nothing else.
pub(crate) fn spawn(in_flight: usize, span: Duration) -> Result<Rate> {
    rate(in_flight, span, spawn_one)
}

/// The same, then one new file per job, synced together with its directory: the least that survives a power cut. The files stay until
/// `scratch` goes: a file system that has just removed many is slow to make new ones, and what is measured next would pay for it.
pub(crate) fn durable(in_flight: usize, span: Duration, scratch: &Path) -> Result<Rate> {
    let folder =
        tempfile::tempdir_in(scratch).context("cannot create a folder for the durable files")?.keep();
    let number = AtomicU64::new(0);
    rate(in_flight, span, || {
        spawn_one()?;
        let name = number.fetch_add(1, Ordering::Relaxed).to_string();
        let mut file = File::create(folder.join(name)).context("cannot create a durable file")?;
        file.write_all(&RECORD)?;
        file.sync_data()?;
        File::open(&folder)?.sync_all().context("cannot sync a folder")
    })
}

fn spawn_one() -> Result<()> {
    let mut command = Command::new("/bin/true");
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.context("cannot run /bin/true").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_what_was_finished_and_reports_what_failed() {
        let span = Duration::from_millis(20);
        let rated = rate(2, span, || Ok(())).unwrap();
        assert!(rated.per_s > 0.0 && rated.finished > 2);
        assert!(rate(2, span, || anyhow::bail!("no")).is_err());
    }
}

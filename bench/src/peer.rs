//! task-spooler, the fastest of the peers: it keeps statuses in memory only and survives nothing, so it is a limit too.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Jobs measured.
const JOBS: u32 = 1000;

/// Jobs per second until the last is finished, or `None` if it is not installed. Debian calls the program `tsp`.
pub(crate) fn task_spooler(scratch: &Path, in_flight: usize) -> Result<Option<f64>> {
    let socket = scratch.join("ts.socket");
    let call = |arguments: &[&str]| {
        let mut command = Command::new("tsp");
        command.args(arguments).env("TS_SOCKET", &socket).env("TS_MAXFINISHED", "2000").current_dir(scratch);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    match call(&["-S", &in_flight.to_string()]).status() {
        Ok(status) if status.success() => {}
        Ok(status) => bail!("tsp cannot be used ({status})"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot run tsp"),
    }
    let begin = Instant::now();
    // -n: no file for the output.
    let submitted = (0..JOBS).try_for_each(|_| match call(&["-n", "/bin/true"]).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("tsp took no job ({status})"),
        Err(error) => Err(error).context("cannot run tsp"),
    });
    // Jobs end in any order with several slots: wait until none is queued or running.
    let finished = submitted.and_then(|()| wait_until_idle(&socket));
    let seconds = begin.elapsed().as_secs_f64();
    // Its own server, on its own socket: it ends with -K.
    let ended = call(&["-K"]).status();
    finished?;
    ended.context("cannot end tsp's server")?;
    Ok(Some(f64::from(JOBS) / seconds))
}

fn wait_until_idle(socket: &Path) -> Result<()> {
    loop {
        let list = Command::new("tsp")
            .env("TS_SOCKET", socket)
            .stdin(Stdio::null())
            .output()
            .context("cannot run tsp")?;
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        if !list.lines().any(|line| line.contains(" queued ") || line.contains(" running ")) {
            return Ok(());
        }
    }
}

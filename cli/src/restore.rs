//! A restore works on the files of a stopped server, so central-server itself does it: this finds that program and hands the order on.

use crate::exit::{self, failure};
use crate::output::Output;
use crate::progress::Progress;
use clap::Args;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Which backup, and in whose place.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword server restore /backups/a-2026-11-22.backup --rehearse --config /etc/lastword/server.toml
  systemctl stop lastword-server
  lastword server restore /backups/a-2026-11-22.backup --config /etc/lastword/server.toml
  systemctl start lastword-server

Runs on the server's host, as the server's user. Agents obey the restored server at once, tell it what they ran
since the backup, and nothing is started a second time; `lastword server status` shows which agents it waits for.")]
pub(crate) struct Restore {
    /// The backup.
    backup: PathBuf,
    /// The server's configuration.
    #[arg(long, value_name = "FILE", required_unless_present = "data_root", conflicts_with = "data_root")]
    config: Option<PathBuf>,
    /// The server's data root, if there is no configuration.
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Only say what a restore would do; the server may run meanwhile.
    #[arg(long)]
    rehearse: bool,
    /// Begin at this epoch at least; not needed unless agents obeyed a server that nobody knows of any more.
    #[arg(long, value_name = "N")]
    epoch_min: Option<u64>,
    /// Take a backup without its manifest, after SQLite's own check only.
    #[arg(long)]
    unverified: bool,
}

impl Restore {
    /// Runs central-server; the exit code that fits its own.
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<u8> {
        let mut command = Command::new(central_server());
        command.arg(if self.rehearse { "--rehearse" } else { "--restore" }).arg(&self.backup);
        for (option, value) in [("--config", &self.config), ("--data-root", &self.data_root)] {
            if let Some(value) = value {
                command.arg(option).arg(value);
            }
        }
        if let Some(epoch) = self.epoch_min {
            command.arg(format!("--epoch-min={epoch}"));
        }
        if self.unverified {
            command.arg("--unverified");
        }
        if output.is_json() {
            command.arg("--json");
        }
        // What it prints at its end waits until the bar is gone; it is a few lines.
        command.stdout(Stdio::piped());
        if io::stderr().is_terminal() {
            command.arg("--progress").stderr(Stdio::piped());
        }
        let started = command.spawn().and_then(|mut child| {
            if let Some(said) = child.stderr.take() {
                show(said);
            }
            let mut printed = Vec::new();
            if let Some(mut stdout) = child.stdout.take() {
                stdout.read_to_end(&mut printed)?;
            }
            Ok((child.wait()?, printed))
        });
        let (status, printed) = started.map_err(|e| {
            failure(
                exit::NOT_FOUND,
                format!("central-server cannot be run ({e}); this works on the server's host only"),
            )
        })?;
        match serde_json::from_slice::<serde_json::Value>(&printed) {
            Ok(report) if output.is_json() => output.one(&report, "", |_| String::new())?,
            Ok(_) | Err(_) => io::stdout().write_all(&printed)?,
        }
        Ok(match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(1) => exit::REFUSED, // it said why
            Some(code) => code,
            None => exit::SOFTWARE,
        })
    }
}

/// Shows how far it is, and passes on whatever else is said, until the other end closes.
fn show(said: impl Read) {
    let mut progress = Some(Progress::new("", 0, false));
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        match read(&line) {
            Some((done, total, unit, step)) => {
                let progress = progress.get_or_insert_with(|| Progress::new("", 0, false));
                progress.step(step, total, unit == "bytes");
                progress.at(done);
            }
            None => {
                progress = None; // the line is for what is said
                eprintln!("{line}");
            }
        }
    }
}

/// `progress DONE TOTAL UNIT STEP`.
fn read(line: &str) -> Option<(u64, u64, &str, &str)> {
    let mut words = line.strip_prefix("progress ")?.splitn(4, ' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?, words.next()?))
}

/// Beside this program; else wherever the shell would find it.
fn central_server() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("central-server"));
    beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("central-server"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_on_progress_is_told_from_everything_else() {
        assert_eq!(
            read("progress 5 10 bytes reading the backup"),
            Some((5, 10, "bytes", "reading the backup"))
        );
        for other in ["central-server: progress 1", "progress", "progress 1 x bytes y", "progress 1 2 bytes"]
        {
            assert_eq!(read(other), None, "{other}");
        }
    }
}

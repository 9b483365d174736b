//! `platform-agent --check`: everything that can be seen to be wrong before anything is started, one line per finding. The network-processor looks at
//! what is its own (secrets, addresses, ports), since nothing of the network is in this program.

use crate::check::{self, Findings};
use config::{AgentConfig, UserSwitch};
use spool::DataRoot;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// The programs beside this one.
const PROGRAMS: [&str; 2] = ["network-processor", "job-processor"];

/// Prints the findings; 78 if something is wrong.
pub(crate) fn survey(path: &Path) -> ExitCode {
    let config = match AgentConfig::load(path) {
        Ok(config) => config,
        Err(e) => {
            println!("wrong  {e}");
            return ExitCode::from(78);
        }
    };
    println!("fine   configuration: {}", path.display());
    let root = data_root(&config);
    let programs = programs(&config);
    let users = users(&config);
    let network = programs && network_processor(&config, path);
    if root && programs && users && network { ExitCode::SUCCESS } else { ExitCode::from(78) }
}

fn tell(what: &str, found: Result<String, String>) -> bool {
    match &found {
        Ok(said) => println!("fine   {what}: {said}"),
        Err(said) => println!("wrong  {what}: {said}"),
    }
    found.is_ok()
}

fn users(config: &AgentConfig) -> bool {
    let found = [check::users(config), check::sudo_starts(config)];
    let mut well = true;
    for Findings { faults, notes } in found {
        notes.into_iter().for_each(|note| println!("note   users: {note}"));
        well = faults.into_iter().fold(well, |_, fault| tell("users", Err(fault)));
    }
    well
}

fn data_root(config: &AgentConfig) -> bool {
    let made = DataRoot::create(
        &config.data_root,
        config.allow_network_file_system,
        config.users.switch != UserSwitch::None,
    );
    let found = made.map_err(|e| e.to_string()).and_then(|root| {
        let fs = os::disk::file_system(root.path()).map_err(|e| e.to_string())?;
        let probe = root.path().join(".check");
        os::disk::replace(&probe, b"", 0o600).map_err(|e| format!("it cannot be written: {e}"))?;
        let _ = std::fs::remove_file(&probe); // an empty file does no harm
        let used = match root.lock_holder("platform-agent") {
            Ok(Some(pid)) => format!(", in use by the agent that runs (process {pid})"),
            Ok(None) => String::new(),
            Err(e) => return Err(format!("its lock cannot be asked for: {e}")),
        };
        Ok((format!("{}, {} MiB free{used}", root.path().display(), fs.free_bytes >> 20), fs.free_bytes))
    });
    match found {
        Ok((said, free_bytes)) => {
            let well = tell("data_root", Ok(said));
            let short = shortage(free_bytes, config.retention.free_bytes_min.as_bytes());
            short.into_iter().for_each(|short| println!("note   data_root: {short}"));
            well
        }
        Err(said) => tell("data_root", Err(said)),
    }
}

/// That less is free than settled runs are removed for.
fn shortage(free_bytes: u64, free_bytes_min: u64) -> Option<String> {
    (free_bytes < free_bytes_min).then(|| {
        format!(
            "{} MiB free are less than [retention] free_bytes_min ({} MiB): settled output and runs are removed for want of room; make \
             room there",
            free_bytes >> 20,
            free_bytes_min >> 20
        )
    })
}

fn programs(config: &AgentConfig) -> bool {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let Some(directory) = config.libexec.clone().or(beside) else {
        return tell("libexec", Err("this program is in no directory".into()));
    };
    let mut well = true;
    for name in PROGRAMS {
        well &= tell(name, version(&directory.join(name), name));
    }
    well
}

fn version(program: &Path, name: &str) -> Result<String, String> {
    let asked = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = asked.map_err(|e| {
        format!("{}: {e}; set \"libexec\" to the directory of the agent's programs", program.display())
    })?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let expected = format!("{name} {}", env!("CARGO_PKG_VERSION"));
    if said == expected {
        Ok(format!("{} ({said})", program.display()))
    } else {
        Err(format!(
            "{} says {said:?}, and this is version {}: install all programs of one version",
            program.display(),
            env!("CARGO_PKG_VERSION")
        ))
    }
}

/// It prints its own findings in the same way.
fn network_processor(config: &AgentConfig, path: &Path) -> bool {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let Some(directory) = config.libexec.clone().or(beside) else { return false };
    let mut command = Command::new(directory.join("network-processor"));
    command.arg("--config").arg(path).arg("--check").stdin(Stdio::null());
    match command.status() {
        Ok(status) => status.success(),
        Err(e) => tell("network-processor", Err(format!("it cannot be started: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_free_room_than_is_to_stay_free_is_warned_of() {
        assert_eq!(shortage(64 << 20, 64 << 20), None);
        assert_eq!(shortage(0, 0), None);
        let short = shortage(48 << 20, 64 << 20).unwrap();
        assert!(short.starts_with("48 MiB") && short.contains("free_bytes_min (64 MiB)"), "{short}");
    }
}

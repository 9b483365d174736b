//! `network-processor --check`, which `platform-agent --check` calls: what is wrong with secrets, addresses and control groups, one line per finding.

use config::{AgentConfig, CgroupMode};
use link::{IpRange, Secret};
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;

/// Prints the findings; 78 if something is wrong.
pub(crate) fn check(config: &AgentConfig) -> ExitCode {
    let mut well = tell("secret_file", secret(&config.secret_file));
    if let Some(old) = &config.old_secret_file {
        well &= tell("old_secret_file", secret(old));
    }
    for range in &config.allow {
        let parsed = range.parse::<IpRange>().map_err(|e| e.to_string());
        well &= tell("allow", parsed.map(|range| range.to_string()));
    }
    for address in &config.connect {
        let parsed = link::split_address(address).map_err(|e| e.to_string());
        well &= tell("connect", parsed.map(|(host, port)| format!("{host}, port {port}")));
    }
    if let Some(listen) = &config.listen {
        well &= tell("listen", port(config, listen));
    }
    well &= tell("cgroup", Ok(cgroup(config.cgroup)));
    if well { ExitCode::SUCCESS } else { ExitCode::from(78) }
}

fn tell(what: &str, found: Result<String, String>) -> bool {
    match &found {
        Ok(said) => println!("fine   {what}: {said}"),
        Err(said) => println!("wrong  {what}: {said}"),
    }
    found.is_ok()
}

fn secret(path: &Path) -> Result<String, String> {
    let secret = Secret::load(path).map_err(|e| e.to_string())?;
    Ok(format!("{}, {} bytes", path.display(), secret.as_ref().len()))
}

/// Whether it can be listened there; an agent that runs does so already.
fn port(config: &AgentConfig, listen: &str) -> Result<String, String> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(format!("{listen} is free")),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            let root = spool::DataRoot::at(&config.data_root);
            match root.lock_holder("network-processor") {
                Ok(Some(pid)) => Ok(format!("{listen} is in use, and this agent runs (process {pid})")),
                Ok(None) | Err(_) => Err(format!("{listen} is in use by another program")),
            }
        }
        Err(e) => Err(format!("{listen}: {e}")),
    }
}

fn cgroup(mode: CgroupMode) -> String {
    let unused = "process trees are followed instead";
    match (mode, os::cgroup::mount_point()) {
        (CgroupMode::Off, _) => format!("off, {unused}"),
        (CgroupMode::Auto, None) => format!("this host has none of version 2, {unused}"),
        (CgroupMode::Auto, Some(mount)) => {
            format!("each run gets its own where {} can be written", mount.display())
        }
    }
}

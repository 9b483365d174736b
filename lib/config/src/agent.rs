//! `agent.toml`: read by the monitor and by the network-processor.

use crate::{ConfigError, Duration, load};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What an agent is told. Everything but the name, the addresses and the secret has a default that works.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The agent's name, as the server knows it.
    pub name: String,
    /// Where runs, outputs and locks live.
    #[serde(default = "data_root")]
    pub data_root: PathBuf,
    /// The shared secret. A relative path is relative to `data_root`.
    pub secret_file: PathBuf,
    /// A second secret that is valid during a rotation.
    pub old_secret_file: Option<PathBuf>,
    /// Where the server dials to: `address:port`.
    pub listen: Option<String>,
    /// Servers to dial: `name:port` each.
    #[serde(default)]
    pub connect: Vec<String>,
    /// Addresses that may connect (`10.0.0.0/8`, `::1`); empty means all.
    #[serde(default)]
    pub allow: Vec<String>,
    /// How long the monitor waits before it starts the network-processor again after an abnormal end.
    #[serde(default = "restart_delay")]
    pub restart_delay: Duration,
    /// Where `network-processor` and `job-processor` are; beside `platform-agent` if absent.
    pub libexec: Option<PathBuf>,
    /// How long a settled run and its output are kept.
    #[serde(default = "settled_retention")]
    pub settled_retention: Duration,
    /// Accept a data root on NFS or SMB, where statuses can be lost.
    #[serde(default)]
    pub allow_network_file_system: bool,
    /// Whether each run gets a control group where the host has version 2.
    #[serde(default)]
    pub cgroup: CgroupMode,
    /// Who the jobs run as.
    #[serde(default)]
    pub users: Users,
}

/// Whether runs get control groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// Where the version 2 tree can be written.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Who the jobs run as.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Users {
    /// How the user is switched.
    pub switch: UserSwitch,
    /// The list of those who may be switched to; root's file, and writable for nobody else.
    pub allow_file: PathBuf,
    /// Who a job runs as that names nobody; the agent's own user if absent.
    pub default: Option<String>,
}

impl Default for Users {
    fn default() -> Users {
        Users { switch: UserSwitch::None, allow_file: "/etc/lastword/users.allow".into(), default: None }
    }
}

/// How a job's user is switched to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserSwitch {
    /// Not at all: jobs run as the agent's own user, and a job that names another is refused.
    #[default]
    None,
    /// The agent runs as root, and the job's process becomes the user before it executes the command.
    Root,
    /// The agent is nobody special; job-processor is setuid root, for the agent's group only, and becomes the user.
    Setuid,
}

impl AgentConfig {
    /// Reads and checks `agent.toml`; relative paths are made absolute.
    pub fn load(path: &Path) -> Result<AgentConfig, ConfigError> {
        let mut config: AgentConfig = load(path, "LASTWORD")?;
        let invalid = |key: &str, what: &str| ConfigError::Invalid {
            path: path.to_owned(),
            key: key.into(),
            what: what.into(),
        };
        if config.name.is_empty()
            || config.name.len() > 255
            || config.name.contains(|c: char| c.is_control() || c == '/')
        {
            return Err(invalid(
                "name",
                "a name of 1 to 255 bytes without \"/\" and control characters is needed",
            ));
        }
        if config.listen.is_none() && config.connect.is_empty() {
            return Err(invalid(
                "listen",
                "neither \"listen\" (the server dials) nor \"connect\" (the agent dials) is set",
            ));
        }
        if !config.data_root.is_absolute() {
            return Err(invalid("data_root", "an absolute path is needed"));
        }
        if !config.users.allow_file.is_absolute() {
            return Err(invalid("users.allow_file", "an absolute path is needed"));
        }
        config.secret_file = config.data_root.join(&config.secret_file);
        config.old_secret_file = config.old_secret_file.map(|file| config.data_root.join(file));
        Ok(config)
    }
}

fn data_root() -> PathBuf {
    "/var/lib/lastword/agent".into()
}

fn restart_delay() -> Duration {
    Duration::from_ms(10_000)
}

fn settled_retention() -> Duration {
    Duration::from_ms(7 * 86_400_000)
}

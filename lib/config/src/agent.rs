//! `agent.toml`: read by the monitor and by the network-processor.

use crate::{ConfigError, Duration, Size, load};
use job::output::{OutputLimit, ParseOutputLimitError};
use serde::Deserialize;
use std::fmt;
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
    /// When settled runs go before that, and what is kept free for work that goes on.
    #[serde(default)]
    pub retention: Retention,
    /// Accept a data root on NFS or SMB, where statuses can be lost.
    #[serde(default)]
    pub allow_network_file_system: bool,
    /// Whether each run gets a control group where the host has version 2.
    #[serde(default)]
    pub cgroup: CgroupMode,
    /// How much jobs may write that say nothing about it: `10M`, `1G:truncate`; no limit if absent.
    #[serde(default)]
    pub output: Output,
    /// Who the jobs run as.
    #[serde(default)]
    pub users: Users,
}

/// What holds for the output of jobs that say nothing about it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Output {
    /// How much each of a run's two output files may hold: `10M`. No limit if absent.
    pub limit: Option<String>,
    /// What happens beyond: `keep-ends` (if absent), `kill` or `truncate`.
    pub policy: Option<String>,
}

impl Output {
    /// The limit, if there is one.
    pub fn limit(&self) -> Result<Option<OutputLimit>, ParseOutputLimitError> {
        let Some(limit) = &self.limit else { return Ok(None) };
        let policy = self.policy.as_ref().map(|policy| format!(":{policy}")).unwrap_or_default();
        format!("{limit}{policy}").parse().map(Some)
    }
}

/// The room that settled runs may take. Nothing unsettled is ever removed, and nothing that settled within 24 h unless the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// How much all settled runs with their output may take on the disk; no limit if absent.
    pub settled_bytes_max: Option<Size>,
    /// How many settled runs are kept; no limit if absent.
    pub settled_runs_max: Option<u64>,
    /// Below this much free room on the disk settled output is removed, then settled runs, the oldest first; 0: never for that reason.
    pub free_bytes_min: Size,
    /// A file that is given up when the disk is full, so that what runs can be finished in order; 0: none.
    pub ballast: Size,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            settled_bytes_max: None,
            settled_runs_max: None,
            free_bytes_min: Size::from_bytes(64 << 20),
            ballast: Size::from_bytes(16 << 20),
        }
    }
}

/// When a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// When the configuration is read anew (SIGHUP).
    Now,
    /// When the agent is started again, which no running job notices.
    Restart,
}

/// One key that has another value now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its whole name.
    pub key: &'static str,
    /// What it was.
    pub before: String,
    /// What it is.
    pub after: String,
    /// When that counts.
    pub effect: Effect,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changed { key, before, after, effect } = self;
        match effect {
            Effect::Now => write!(f, "{key} is {after} now (it was {before})"),
            Effect::Restart => write!(
                f,
                "{key} stays {before}: {after} takes effect when the agent is restarted, which no running job notices"
            ),
        }
    }
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
    /// The agent is nobody special; sudo starts job-processor as root for it, and that becomes the user.
    Sudo,
}

impl UserSwitch {
    /// Whether job-processor has rights that the network-processor has not.
    pub fn is_job_processors(self) -> bool {
        match self {
            UserSwitch::None | UserSwitch::Root => false,
            UserSwitch::Setuid | UserSwitch::Sudo => true,
        }
    }
}

impl AgentConfig {
    /// Reads and checks `agent.toml`; relative paths are made absolute.
    pub fn load(path: &Path) -> Result<AgentConfig, ConfigError> {
        load::<AgentConfig>(path, "LASTWORD")?.checked(path)
    }

    /// The same of a text that was read already, without an environment; `path` is only named in errors.
    pub fn parse(path: &Path, text: &str) -> Result<AgentConfig, ConfigError> {
        crate::parse::<AgentConfig>(path, text, "LASTWORD", std::iter::empty())?.checked(path)
    }

    fn checked(mut self, path: &Path) -> Result<AgentConfig, ConfigError> {
        let config = &mut self;
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
        config.output.limit().map_err(|e| invalid("output.limit", &e.to_string()))?;
        config.secret_file = config.data_root.join(&config.secret_file);
        config.old_secret_file = config.old_secret_file.take().map(|file| config.data_root.join(file));
        Ok(self)
    }
}

impl AgentConfig {
    /// Every key that differs in `new`.
    pub fn changes(&self, new: &AgentConfig) -> Vec<Changed> {
        // Taken apart, so that a new key does not compile before it is listed.
        let AgentConfig {
            name,
            data_root,
            secret_file,
            old_secret_file,
            listen,
            connect,
            allow,
            restart_delay,
            libexec,
            settled_retention,
            retention,
            allow_network_file_system,
            cgroup,
            output,
            users,
        } = self;
        let Retention { settled_bytes_max, settled_runs_max, free_bytes_min, ballast } = retention;
        let Users { switch, allow_file, default } = users;
        let Output { limit, policy } = output;
        let (now, restart) = (Effect::Now, Effect::Restart);
        let all = [
            changed("name", name, &new.name, restart),
            changed("data_root", data_root, &new.data_root, restart),
            changed("secret_file", secret_file, &new.secret_file, now),
            changed("old_secret_file", old_secret_file, &new.old_secret_file, now),
            changed("listen", listen, &new.listen, restart),
            changed("connect", connect, &new.connect, now),
            changed("allow", allow, &new.allow, now),
            changed("restart_delay", &restart_delay.to_string(), &new.restart_delay.to_string(), now),
            changed("libexec", libexec, &new.libexec, restart),
            changed(
                "settled_retention",
                &settled_retention.to_string(),
                &new.settled_retention.to_string(),
                now,
            ),
            changed("retention.settled_bytes_max", settled_bytes_max, &new.retention.settled_bytes_max, now),
            changed("retention.settled_runs_max", settled_runs_max, &new.retention.settled_runs_max, now),
            changed(
                "retention.free_bytes_min",
                &free_bytes_min.to_string(),
                &new.retention.free_bytes_min.to_string(),
                now,
            ),
            changed("retention.ballast", &ballast.to_string(), &new.retention.ballast.to_string(), now),
            changed(
                "allow_network_file_system",
                allow_network_file_system,
                &new.allow_network_file_system,
                restart,
            ),
            changed("cgroup", cgroup, &new.cgroup, restart),
            changed("output.limit", limit, &new.output.limit, now),
            changed("output.policy", policy, &new.output.policy, now),
            changed("users.switch", switch, &new.users.switch, restart),
            changed("users.allow_file", allow_file, &new.users.allow_file, restart),
            changed("users.default", default, &new.users.default, restart),
        ];
        all.into_iter().flatten().collect()
    }
}

fn changed<T: PartialEq + fmt::Debug>(
    key: &'static str,
    before: &T,
    after: &T,
    effect: Effect,
) -> Option<Changed> {
    let changed = before != after;
    changed.then(|| Changed { key, before: format!("{before:?}"), after: format!("{after:?}"), effect })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named_with_its_values_and_when_it_counts() {
        let read = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("agent.toml");
            let head = "name = \"a\"\ndata_root = \"/d\"\nsecret_file = \"s\"\n";
            std::fs::write(&path, format!("{head}{text}")).unwrap();
            AgentConfig::load(&path).unwrap()
        };
        let before = read("listen = \"127.0.0.1:1\"\n");
        assert_eq!(before.changes(&before), []);
        let after = read("listen = \"127.0.0.1:2\"\nallow = [\"::1\"]\n[retention]\nballast = \"1M\"\n");
        let changes = before.changes(&after);
        let keys: Vec<_> = changes.iter().map(|change| (change.key, change.effect)).collect();
        assert_eq!(
            keys,
            [("listen", Effect::Restart), ("allow", Effect::Now), ("retention.ballast", Effect::Now)]
        );
        let lines: Vec<_> = changes.iter().map(Changed::to_string).collect();
        assert!(lines[0].contains("stays") && lines[0].contains("restarted"), "{lines:?}");
        assert_eq!(lines[1], "allow is [\"::1\"] now (it was [])");
    }
}

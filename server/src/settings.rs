//! `server.toml`.

use crate::backup::Backups;
use crate::bundle::Place;
use crate::files::{Place as StorePlace, Rules as FileRules};
use crate::retention::Jobs;
use crate::sweep::{Rule, Rules};
use anyhow::{Context, bail};
use link::IpRange;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The file as it is written. Every key can also be set by `LASTWORD_<SECTION>__<KEY>`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) node: Node,
    #[serde(default)]
    pub(crate) database: Database,
    #[serde(default)]
    pub(crate) http: Http,
    #[serde(default)]
    pub(crate) agents: Agents,
    #[serde(default)]
    pub(crate) cluster: Cluster,
    #[serde(default)]
    pub(crate) backup: Backup,
    #[serde(default)]
    pub(crate) retention: Retention,
    #[serde(default)]
    pub(crate) disk: Disk,
    #[serde(default)]
    pub(crate) files: Files,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// What the agents see.
    pub(crate) name: String,
    #[serde(default = "default_data_root")]
    pub(crate) data_root: PathBuf,
    /// After a restore: the epoch that agents obeyed before it, plus one.
    pub(crate) epoch_min: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Database {
    pub(crate) url: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    pub(crate) listen: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Agents {
    /// Where agents dial in; empty: nowhere.
    pub(crate) listen: String,
    /// Addresses or ranges that may; all if empty.
    pub(crate) allow: Vec<String>,
}

/// When the disk of the data root counts as full.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Disk {
    /// Below this no new jobs are taken.
    pub(crate) free_bytes_min: u64,
    /// Kept for what agents tell, and given back when the disk is full; 0: nothing.
    pub(crate) ballast_bytes: u64,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk { free_bytes_min: 8 << 20, ballast_bytes: 16 << 20 }
    }
}

/// Where files are stored that were kept of jobs. No value here is a secret.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Files {
    /// A folder (`file:…`) or a bucket (`s3://…`); empty: nowhere, they stay with their agents.
    pub(crate) url: String,
    /// Of a bucket that is not Amazon's.
    pub(crate) endpoint: Option<String>,
    /// Of a bucket.
    pub(crate) region: Option<String>,
    /// The bucket's key and secret; the environment has them if absent.
    pub(crate) credentials_file: Option<PathBuf>,
    /// A folder's file system keeps so much free.
    pub(crate) free_bytes_min: config::Size,
    /// What nothing in the record names goes after this long.
    pub(crate) orphans_age: config::Duration,
}

impl Default for Files {
    fn default() -> Files {
        Files {
            url: "file:files".to_owned(),
            endpoint: None,
            region: None,
            credentials_file: None,
            free_bytes_min: config::Size::from_bytes(256 << 20),
            orphans_age: config::Duration::from_ms(7 * DAY_MS),
        }
    }
}

/// Backups that the server makes by itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backup {
    /// How often; 0: never.
    pub(crate) every: config::Duration,
    /// How many stay.
    pub(crate) keep: usize,
    /// Where they lie.
    pub(crate) directory: PathBuf,
}

impl Default for Backup {
    fn default() -> Backup {
        Backup { every: config::Duration::default(), keep: 7, directory: PathBuf::from("backups") }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cluster {
    /// For a server in a cluster; a server by itself needs no watch agents and says so.
    pub(crate) watch_agents: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retention {
    /// Jobs that are over are deleted after this long; 0: never.
    pub(crate) jobs_age: config::Duration,
    /// So many jobs that are over are kept; 0: any number.
    pub(crate) jobs_max: u64,
    /// Events are forgotten after this long.
    pub(crate) events_age: config::Duration,
    /// So many are kept.
    pub(crate) events_max: u64,
    /// Audit entries are forgotten after this long.
    pub(crate) audit_age: config::Duration,
    /// So many are kept.
    pub(crate) audit_max: u64,
    /// Stored files are removed after this long; 0: with their job only.
    pub(crate) files_age: config::Duration,
    /// So much is kept of them, the oldest go first; 0: any amount.
    pub(crate) files_bytes_max: config::Size,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            jobs_age: config::Duration::default(),
            jobs_max: 0,
            events_age: config::Duration::from_ms(30 * DAY_MS),
            events_max: 1_000_000,
            audit_age: config::Duration::from_ms(400 * DAY_MS),
            audit_max: 10_000_000,
            files_age: config::Duration::default(),
            files_bytes_max: config::Size::default(),
        }
    }
}

impl Retention {
    pub(crate) fn jobs(&self) -> Jobs {
        Jobs { age: self.jobs_age.std(), count_max: self.jobs_max }
    }

    pub(crate) fn rules(&self) -> Rules {
        let rule = |age: config::Duration, count_max| Rule {
            age_ms: i64::try_from(age.as_ms()).unwrap_or(i64::MAX),
            count_max,
        };
        Rules { events: rule(self.events_age, self.events_max), audit: rule(self.audit_age, self.audit_max) }
    }
}

/// A day, milliseconds.
const DAY_MS: u64 = 86_400_000;

fn default_data_root() -> PathBuf {
    PathBuf::from("/var/lib/lastword/server")
}

impl Default for Database {
    fn default() -> Database {
        Database { url: "sqlite:server.db".to_owned() }
    }
}

impl Default for Http {
    fn default() -> Http {
        Http { listen: "127.0.0.1:7410".to_owned() }
    }
}

impl Default for Agents {
    fn default() -> Agents {
        Agents { listen: "127.0.0.1:7411".to_owned(), allow: Vec::new() }
    }
}

/// Checks the text of a `server.toml`, without an environment; `path` is only named in errors.
///
/// # Errors
/// What would keep a server from starting with it, as far as the text tells.
pub fn check_text(path: &Path, text: &str) -> anyhow::Result<()> {
    let settings: Settings = config::parse(path, text, "LASTWORD", std::iter::empty())?;
    settings.checked(path).map(drop)
}

impl Settings {
    /// Reads and checks everything that can be checked without starting.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Settings> {
        config::load::<Settings>(path, "LASTWORD")?.checked(path)
    }

    fn checked(self, path: &Path) -> anyhow::Result<Settings> {
        self.check().with_context(|| format!("in {}", path.display()))?;
        Ok(self)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.node.name.is_empty() || self.node.name.len() > NAME_BYTES_MAX {
            bail!("[node] name must have 1 to {NAME_BYTES_MAX} characters");
        }
        if !self.node.data_root.is_absolute() {
            bail!("[node] data_root \"{}\" must be an absolute path", self.node.data_root.display());
        }
        self.database_path()?;
        self.store()?;
        self.allow()?;
        check_address("[http] listen", &self.http.listen)?;
        if !self.agents.listen.is_empty() {
            check_address("[agents] listen", &self.agents.listen)?;
        }
        Ok(())
    }

    /// Where the embedded database is.
    pub(crate) fn database_path(&self) -> anyhow::Result<PathBuf> {
        let url = &self.database.url;
        match url.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() && !path.starts_with("//") && !path.contains('?') => {
                Ok(config::resolve(&self.node.data_root, Path::new(path)))
            }
            Some(_) => {
                bail!("[database] url \"{url}\" names no file; write for example \"sqlite:server.db\"")
            }
            None if url.starts_with("postgres:") || url.starts_with("postgresql:") => {
                bail!(
                    "[database] url \"{}…\": this version cannot use PostgreSQL yet; use \"sqlite:server.db\"",
                    scheme(url)
                )
            }
            None => {
                bail!("[database] url \"{}…\" is of no known kind; use \"sqlite:server.db\"", scheme(url))
            }
        }
    }

    /// Where the server lives, for its support bundle.
    pub(crate) fn place(&self) -> anyhow::Result<Place> {
        let root = &self.node.data_root;
        let database = self.database_path()?.parent().unwrap_or(root).to_owned();
        let backups = config::resolve(root, &self.backup.directory);
        let config = serde_json::to_value(self).context("showing the settings")?;
        Ok(Place { data_root: root.clone(), folders: vec![database, backups], config })
    }

    /// What makes backups.
    pub(crate) fn backups(&self) -> Backups {
        Backups::of_server(&self.node.name, &self.node.data_root, &self.backup.directory)
    }

    /// Where files are stored; `None`: nowhere.
    pub(crate) fn store(&self) -> anyhow::Result<Option<StorePlace>> {
        StorePlace::of(&self.files, &self.node.data_root)
    }

    /// What stays there.
    pub(crate) fn file_rules(&self) -> FileRules {
        FileRules {
            age: self.retention.files_age.std(),
            bytes_max: self.retention.files_bytes_max.as_bytes(),
            orphans_age: self.files.orphans_age.std(),
        }
    }

    /// Who may dial in.
    pub(crate) fn allow(&self) -> anyhow::Result<Vec<IpRange>> {
        let parse = |text: &String| {
            text.parse::<IpRange>().map_err(|e| anyhow::anyhow!("[agents] allow \"{text}\": {e}"))
        };
        self.agents.allow.iter().map(parse).collect()
    }
}

/// The longest name of a node.
const NAME_BYTES_MAX: usize = 64;

/// The part of a URL that holds no password.
fn scheme(url: &str) -> &str {
    url.split_once(':').map_or("", |(scheme, _)| scheme)
}

fn check_address(key: &str, address: &str) -> anyhow::Result<()> {
    let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match port {
        Some((host, _)) if !host.is_empty() => Ok(()),
        Some(_) | None => bail!("{key} \"{address}\" must be ADDRESS:PORT, for example \"127.0.0.1:7410\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(url: &str) -> Settings {
        Settings {
            node: Node { name: "a".into(), data_root: "/d".into(), epoch_min: None },
            database: Database { url: url.into() },
            http: Http::default(),
            agents: Agents::default(),
            cluster: Cluster::default(),
            backup: Backup::default(),
            retention: Retention::default(),
            disk: Disk::default(),
            files: Files::default(),
        }
    }

    #[test]
    fn a_relative_database_lies_in_the_data_root() {
        assert_eq!(with("sqlite:server.db").database_path().unwrap(), Path::new("/d/server.db"));
        assert_eq!(with("sqlite:/x/y.db").database_path().unwrap(), Path::new("/x/y.db"));
    }

    #[test]
    fn another_database_is_refused_without_telling_its_password() {
        for (url, what) in [
            ("postgres://u:secret@h/d", "PostgreSQL yet"),
            ("mysql:x", "no known kind"),
            ("sqlite:", "no file"),
        ] {
            let text = with(url).check().unwrap_err().to_string();
            assert!(text.contains(what) && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn addresses_need_a_port() {
        assert!(check_address("k", "127.0.0.1:0").is_ok() && check_address("k", "[::1]:7410").is_ok());
        for wrong in ["7410", ":7410", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(check_address("k", wrong).is_err(), "{wrong}");
        }
    }
}

//! What keeps a server going for years: backups, checks, the recovery after a restore.

use crate::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A backup of the server's database. It lies on the server's host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// The file; its manifest lies beside it as `<file>.json`.
    pub file: String,
    /// When it was made.
    pub made_at: Time,
    /// The program that made it.
    pub software: String,
    /// The server that made it.
    pub node: String,
    /// The identity of the database.
    pub database_id: String,
    /// Its epoch then.
    pub epoch: u64,
    /// The last commit in it.
    pub commit: u64,
    /// The version of its tables.
    pub schema: u32,
    /// The highest job number in it.
    pub last_job: u64,
    /// Its size.
    pub bytes: u64,
    /// Of the whole file, hexadecimal.
    pub sha256: String,
    /// The rows of each table.
    pub rows: BTreeMap<String, u64>,
}

/// Backups, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupList {
    /// Those of the usual folder that are complete.
    pub items: Vec<Backup>,
}

/// A request for a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackupMake {
    /// A new file or a folder on the server's host; relative to the usual folder, which is taken if this is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What a check of the database found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// Jobs that were looked at.
    pub jobs: u64,
    /// Runs that were looked at.
    pub runs: u64,
    /// Messages that were looked at.
    pub facts: u64,
    /// Contradictions, none if all is well.
    pub findings: Vec<Finding>,
}

/// Something in the database that contradicts something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// What a restore has left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recovery {
    /// Agents that have not told yet what they ran since the backup.
    pub untold: Vec<String>,
    /// Jobs of the backup that wait until they have: they may have run since.
    pub kept_back: u64,
}

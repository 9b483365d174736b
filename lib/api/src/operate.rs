//! What keeps a server going for years: backups, checks, the recovery after a restore; and how far such long work has come.

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
    /// A new file or a folder on the server's host, a folder that is not there with a slash at its end; relative to the usual folder, which is
    /// taken if this is absent.
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

/// Work of the server that takes longer than a request. It is remembered as long as the server runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its name. No operation of an earlier start of the server had it.
    pub id: String,
    /// What is done: `backup` or `check`.
    pub kind: String,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// Who began it.
    pub by: String,
    /// When it began.
    pub begun_at: Time,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// How far it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The backup, if one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// What the check found, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// How far something has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// What is being done.
    pub step: String,
    /// How much of it is done.
    pub done: u64,
    /// Of how much; 0 if nobody can tell.
    pub total: u64,
    /// What is counted: `bytes`, `rows` or `steps`.
    pub unit: String,
}

/// Operations, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationList {
    /// Those that go on, and the latest that are over.
    pub items: Vec<Operation>,
}

/// The most events, and the most audit entries, in a support bundle.
pub const SUPPORT_LINES_MAX: u32 = 20_000;

/// A request for a support bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SupportBundleMake {
    /// So many of the newest events; 2000 if absent, 20000 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u32>,
    /// So many of the newest audit entries; 2000 if absent, 20000 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<u32>,
    /// Check the database too, for at most 30 s; it is if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<bool>,
}

/// What a restore has left to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Recovery {
    /// Agents that have not told yet what they ran since the backup.
    pub untold: Vec<String>,
    /// Jobs of the backup that wait until they have: they may have run since.
    pub kept_back: u64,
}

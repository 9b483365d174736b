//! The server itself.

use crate::client::{Call, Client};
use crate::exit::{self, failure};
use crate::operation;
use crate::output::{Output, Row, moment, or_empty, pairs};
use crate::restore::Restore;
use crate::support::Support;
use api::{Backup, BackupList, BackupMake, Check, FilesStatus, Operation, Recovery, ServerStatus};
use clap::Subcommand;
use ureq::http::Method;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show whether the server makes progress, and what it holds.
    #[command(after_help = "Example:\n  lastword server status -o json | jq .jobs.Running")]
    Status,
    /// Make a backup of the server's database on its host, while everything goes on. Ctrl-C does not end it, see `lastword server wait`.
    #[command(after_help = "\
Examples:
  lastword server backup                      into the server's folder of backups
  lastword server backup /mnt/backups/        into another folder of the server's host
  lastword server backup --list")]
    Backup {
        /// A new file or a folder (with a slash at its end if it is not there) on the server's host.
        to: Option<String>,
        /// List the backups of the server's folder instead.
        #[arg(long, conflicts_with = "to")]
        list: bool,
    },
    /// Put a backup in the place of a stopped server's database, or rehearse that.
    Restore(Restore),
    /// Look for contradictions in the server's database. Exit code 1 if there is one. Ctrl-C does not end it, see `lastword server wait`.
    #[command(after_help = "\
Examples:
  lastword server check
  central-server --config /etc/lastword/server.toml --check-database     without a running server")]
    Check,
    /// Fetch what somebody far away needs to find a fault: one archive, without secrets.
    SupportBundle(Support),
    /// List the backups and checks that go on, and the latest that are over.
    #[command(after_help = "Example:\n  lastword server operations -o wide")]
    Operations,
    /// Wait for the end of a backup or a check, and show what came of it.
    #[command(after_help = "Example:\n  lastword server wait 12-3")]
    Wait {
        /// Its name, as `lastword server operations` lists it.
        operation: String,
    },
    /// After a restore: agents that have not told what they ran since the backup never will.
    #[command(after_help = "\
Example:
  lastword server end-recovery --reason 'host7 burned down'
A job of the backup that such an agent ran since will run again.")]
    EndRecovery,
}

impl Verb {
    pub(crate) fn run(
        self,
        client: impl FnOnce() -> anyhow::Result<Client>,
        output: &Output,
    ) -> anyhow::Result<u8> {
        match self {
            Verb::Status => {
                let status: ServerStatus = client()?.get("/api/v1/server/status")?;
                output.one(&status, &status.name, |_| for_people(&status))?;
            }
            Verb::Backup { list: true, .. } => {
                let list: BackupList = client()?.get("/api/v1/server/backups")?;
                output.list(&list.items)?;
            }
            Verb::Backup { to, list: false } => {
                let over = operation::run(&client()?, "/api/v1/server/backups", &BackupMake { to })?;
                return conclude(&over, output);
            }
            Verb::Restore(restore) => return restore.run(output),
            Verb::Check => {
                let over = operation::run(&client()?, "/api/v1/server/check", &serde_json::json!({}))?;
                return conclude(&over, output);
            }
            Verb::SupportBundle(support) => return support.run(&client()?, output),
            Verb::Operations => operation::list(&client()?, output)?,
            Verb::Wait { operation } => return conclude(&operation::wait(&client()?, &operation)?, output),
            Verb::EndRecovery => {
                let path = "/api/v1/server/end-recovery";
                let call = Call { method: Method::POST, path, repeatable: true, ..Call::default() };
                client()?.reply(&call)?;
            }
        }
        Ok(0)
    }
}

/// Shows what came of an operation.
fn conclude(over: &Operation, output: &Output) -> anyhow::Result<u8> {
    match (&over.backup, &over.check) {
        (Some(made), _) => {
            output.one(made, &made.file, |_| describe(made))?;
            Ok(0)
        }
        (None, Some(checked)) => tell(checked, output),
        (None, None) => {
            let text = format!("the server does not say what came of {} {}", over.kind, over.id);
            Err(failure(exit::PROTOCOL, text))
        }
    }
}

fn tell(checked: &Check, output: &Output) -> anyhow::Result<u8> {
    let Check { jobs, runs, facts, findings } = checked;
    output.one(checked, &findings.len().to_string(), |_| {
        let lines = findings.iter().map(|finding| format!("{}: {}\n", finding.what, finding.advice));
        let total = format!("{jobs} jobs, {runs} runs, {facts} messages: {} contradictions", findings.len());
        lines.chain([total]).collect()
    })?;
    Ok(u8::from(!findings.is_empty()))
}

fn describe(made: &Backup) -> String {
    pairs(&[
        ("File", made.file.clone()),
        ("Made", made.made_at.to_seconds()),
        ("Epoch", made.epoch.to_string()),
        ("Commit", made.commit.to_string()),
        ("Jobs", format!("{}, the last is {}", made.rows.get("jobs").copied().unwrap_or(0), made.last_job)),
        ("Bytes", made.bytes.to_string()),
        ("SHA-256", made.sha256.clone()),
    ])
}

impl Row for Backup {
    fn heads(wide: bool) -> Vec<&'static str> {
        let mut heads = vec!["FILE", "MADE", "COMMIT", "JOBS", "BYTES"];
        if wide {
            heads.extend(["NODE", "SOFTWARE", "EPOCH", "SHA-256"]);
        }
        heads
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let jobs = self.rows.get("jobs").copied().unwrap_or(0);
        let mut cells = vec![
            self.file.clone(),
            moment(Some(self.made_at), wide),
            self.commit.to_string(),
            jobs.to_string(),
            self.bytes.to_string(),
        ];
        if wide {
            cells.extend([
                self.node.clone(),
                self.software.clone(),
                self.epoch.to_string(),
                self.sha256.clone(),
            ]);
        }
        cells
    }

    fn name(&self) -> String {
        self.file.clone()
    }
}

fn for_people(status: &ServerStatus) -> String {
    let jobs: Vec<String> = status
        .jobs
        .0
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    pairs(&[
        ("Node", status.name.clone()),
        ("Version", status.version.clone()),
        ("Ready", if status.ready { "yes".into() } else { format!("no: {}", or_empty(&status.reason)) }),
        ("Started", status.started_at.to_seconds()),
        ("Epoch", status.epoch.to_string()),
        ("Database", status.database_id.clone()),
        ("Commit", status.commit.to_string()),
        ("Inbox", status.inbox.to_string()),
        ("Recovery", status.recovery.as_ref().map(awaited).unwrap_or_default()),
        ("Agents", format!("{} of {} connected", status.agents_connected, status.agents)),
        (
            "Strays",
            if status.strays == 0 {
                String::new()
            } else {
                format!("{} messages of unknown runs", status.strays)
            },
        ),
        ("File store", store(&status.files)),
        ("Files", files(&status.files)),
        ("Jobs", if jobs.is_empty() { "none".into() } else { jobs.join(", ") }),
    ])
}

fn store(files: &FilesStatus) -> String {
    match (&files.store, &files.trouble) {
        (None, _) => "none: files stay with their agents".to_owned(),
        (Some(store), None) => store.clone(),
        (Some(store), Some(trouble)) => format!("{store}: {trouble}"),
    }
}

/// How many there are of each kind, if any.
fn files(files: &FilesStatus) -> String {
    let FilesStatus { with_agents, stored, stored_bytes, lost, removed, .. } = files;
    let counts = [
        (*stored, format!("{stored} stored ({stored_bytes} bytes)")),
        (*with_agents, format!("{with_agents} with their agents")),
        (*lost, format!("{lost} lost")),
        (*removed, format!("{removed} removed")),
    ];
    let told: Vec<String> =
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text).collect();
    told.join(", ")
}

fn awaited(recovery: &Recovery) -> String {
    format!(
        "restored from a backup; waits until these agents have told what they ran since: {}; {} jobs wait for that",
        recovery.untold.join(", "),
        recovery.kept_back
    )
}

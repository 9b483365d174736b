//! The server itself.

use crate::client::Client;
use crate::output::{Output, or_empty, pairs};
use api::ServerStatus;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show whether the server makes progress, and what it holds.
    #[command(after_help = "Example:\n  lastword server status -o json | jq .jobs.Running")]
    Status,
}

impl Verb {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        let Verb::Status = self;
        let status: ServerStatus = client.get("/api/v1/server/status")?;
        output.one(&status, &status.name, |_| for_people(&status))?;
        Ok(0)
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
        ("Agents", format!("{} of {} connected", status.agents_connected, status.agents)),
        (
            "Strays",
            if status.strays == 0 {
                String::new()
            } else {
                format!("{} messages of unknown runs", status.strays)
            },
        ),
        ("Jobs", if jobs.is_empty() { "none".into() } else { jobs.join(", ") }),
    ])
}

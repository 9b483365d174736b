//! Who asked for what, when, from where, why, and what came of it.

use crate::client::{Client, encode};
use crate::output::{Output, Row, hint, moment, moment_of, or_empty};
use api::{Audit, AuditList, LIST_LIMIT_MAX};
use clap::Args;

/// Which entries.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword audit --since 24h
  lastword audit --who anna --object queue/nightly -o wide
  lastword audit --object job/1042 -o jsonl")]
pub(crate) struct Show {
    /// Only what this user asked for, or what was asked for with the token of this name.
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Only what was to be done to this: job/1042, queue/nightly, agent/host1, token/ID, user/NAME.
    #[arg(long)]
    object: Option<String>,
    /// Only since this moment (2026-11-22T02:00:00Z), or since so long ago (24h).
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// At most this many, the newest; 0 for all.
    #[arg(long, default_value_t = 100)]
    limit: u64,
}

impl Show {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        let wanted = if self.limit == 0 { u64::MAX } else { self.limit };
        let since = self.since.as_deref().map(moment_of);
        let filters = [("who", &self.who), ("object", &self.object), ("since", &since)];
        let filters: String = filters
            .iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| format!("&{name}={}", encode(value))))
            .collect();
        let mut entries: Vec<Audit> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let limit = (wanted - entries.len() as u64).min(u64::from(LIST_LIMIT_MAX));
            let from = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page: AuditList = client.get(&format!("/api/v1/audit?limit={limit}{filters}{from}"))?;
            entries.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() || entries.len() as u64 >= wanted {
                break;
            }
        }
        output.list(&entries)?;
        if cursor.is_some() {
            hint(&format!("the newest {} are shown; --limit 0 shows all", entries.len()));
        }
        Ok(0)
    }
}

impl Row for Audit {
    fn heads(wide: bool) -> Vec<&'static str> {
        let mut heads = vec!["WHEN", "WHO", "ACTION", "OBJECT", "RESULT", "REASON"];
        if wide {
            heads.extend(["TOKEN", "ROLE", "FROM", "VIA", "DETAIL", "REFUSAL"]);
        }
        heads
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut cells = vec![
            moment(Some(self.at), true),
            self.user.clone(),
            self.action.clone(),
            self.object.clone(),
            self.result.clone(),
            or_empty(&self.reason),
        ];
        if wide {
            let detail = serde_json::to_string(&self.detail).unwrap_or_default();
            let more = [&self.token, &self.role, &self.from, &self.via, &detail];
            cells.extend(more.into_iter().cloned());
            cells.push(or_empty(&self.refusal));
        }
        cells
    }

    fn name(&self) -> String {
        self.number.to_string()
    }
}

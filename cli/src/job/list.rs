//! Lists jobs, page by page.

use crate::client::{Client, encode};
use crate::output::{Output, Row, hint, moment, moment_of, or_empty};
use api::{JobList, JobSummary, LIST_LIMIT_MAX, Status};
use clap::Args;

/// Which jobs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword job list --status Running,Queued
  lastword job list --queue nightly --limit 0 -o jsonl      # all of them
  lastword job list --failed --since 24h                    # what went wrong since yesterday
  lastword job list --name 'pay*' --exit-code 7
  lastword job list --status Queued -o name | xargs lastword job kill")]
pub(crate) struct List {
    /// Only these statuses, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "STATUS")]
    status: Vec<Status>,
    /// Only this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only jobs whose latest run is or was on this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Only jobs of exactly this name; 'pay*': whose name begins so.
    #[arg(long)]
    name: Option<String>,
    /// Only jobs submitted at this time or later: 24h (ago), or 2026-11-22T02:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only jobs submitted before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only jobs that are over and went wrong: Error, Killed, Unknown, Abandoned.
    #[arg(long)]
    failed: bool,
    /// Only jobs whose latest run exited with this.
    #[arg(long, value_name = "CODE")]
    exit_code: Option<u8>,
    /// At most this many; 0 for all.
    #[arg(long, default_value_t = 100)]
    limit: u64,
}

impl List {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        let wanted = if self.limit == 0 { u64::MAX } else { self.limit };
        let mut jobs: Vec<JobSummary> = Vec::new();
        let mut cursor = None;
        loop {
            let missing = wanted - jobs.len() as u64;
            let page: JobList = client.get(&self.question(missing, cursor.as_deref()))?;
            jobs.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() || jobs.len() as u64 >= wanted {
                break;
            }
        }
        output.list(&jobs)?;
        if cursor.is_some() {
            hint(&format!("the newest {} are shown; --limit 0 shows all", jobs.len()));
        }
        Ok(0)
    }

    fn question(&self, missing: u64, cursor: Option<&str>) -> String {
        let mut question = format!("/api/v1/jobs?limit={}", missing.min(u64::from(LIST_LIMIT_MAX)));
        if !self.status.is_empty() {
            let names: Vec<&str> = self.status.iter().map(|status| status.name()).collect();
            question.push_str(&format!("&status={}", names.join(",")));
        }
        if self.failed {
            question.push_str("&failed=true");
        }
        if let Some(code) = self.exit_code {
            question.push_str(&format!("&exit_code={code}"));
        }
        let (since, until) = (self.since.as_deref().map(moment_of), self.until.as_deref().map(moment_of));
        let filters = [
            ("queue", self.queue.as_deref()),
            ("agent", self.agent.as_deref()),
            ("name", self.name.as_deref()),
            ("since", since.as_deref()),
            ("until", until.as_deref()),
        ];
        for (name, value) in filters.into_iter().chain([("cursor", cursor)]) {
            if let Some(value) = value {
                question.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        question
    }
}

impl Row for JobSummary {
    fn heads(wide: bool) -> Vec<&'static str> {
        let mut heads = vec!["JOB", "NAME", "STATUS", "EXIT", "QUEUE", "AGENT", "SUBMITTED"];
        if wide {
            heads.extend(["STARTED", "ENDED", "REASON"]);
        }
        heads
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let exit = match (self.exit_code, self.signal) {
            (Some(code), _) => code.to_string(),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => String::new(),
        };
        let mut cells = vec![
            self.id.to_string(),
            self.name.clone(),
            self.status.to_string(),
            exit,
            self.queue.clone(),
            or_empty(&self.agent),
            moment(Some(self.submitted_at), wide),
        ];
        if wide {
            cells.extend([
                moment(self.started_at, wide),
                moment(self.ended_at, wide),
                or_empty(&self.reason),
            ]);
        }
        cells
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_cursor_go_into_the_question() {
        let list = List {
            status: vec![Status::Running, Status::Queued],
            queue: Some("a&b".into()),
            agent: None,
            name: Some("pay*".into()),
            since: Some("2026-11-22T02:00:00Z".into()),
            until: None,
            failed: true,
            exit_code: Some(7),
            limit: 5_000,
        };
        assert_eq!(
            list.question(5_000, Some("17")),
            "/api/v1/jobs?limit=1000&status=Running,Queued&failed=true&exit_code=7&queue=a%26b&name=pay%2A\
             &since=2026-11-22T02%3A00%3A00Z&cursor=17"
        );
    }
}

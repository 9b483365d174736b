//! Prints objects as tables for people or as JSON for machines.

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For people with wide screens.
    Wide,
    /// JSON, indented.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// Numbers or names only, one per line.
    Name,
}

/// Where and how results are printed.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
}

/// An object that can be shown in a table.
pub(crate) trait Row: Serialize {
    /// The columns' heads.
    fn heads(wide: bool) -> Vec<&'static str>;
    /// The cells, as many as heads.
    fn cells(&self, wide: bool) -> Vec<String>;
    /// Its number or name.
    fn name(&self) -> String;
}

impl Output {
    pub(crate) fn new(format: Format) -> Output {
        Output { format }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// JSON in either form.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl)
    }

    /// Prints a list.
    pub(crate) fn list<T: Row>(&self, items: &[T]) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                let wide = self.format == Format::Wide;
                line(&table(&T::heads(wide), items.iter().map(|item| item.cells(wide))))
            }
            Format::Json => line(&serde_json::to_string_pretty(items)?),
            Format::Jsonl => items.iter().try_for_each(|item| line(&serde_json::to_string(item)?)),
            Format::Name => items.iter().try_for_each(|item| line(&item.name())),
        }
    }

    /// Prints one object; `for_people` makes the text for a table.
    pub(crate) fn one<T: Serialize>(
        &self,
        item: &T,
        name: &str,
        for_people: impl FnOnce(bool) -> String,
    ) -> Result<()> {
        match self.format {
            Format::Table => line(&for_people(false)),
            Format::Wide => line(&for_people(true)),
            Format::Json => line(&serde_json::to_string_pretty(item)?),
            Format::Jsonl => line(&serde_json::to_string(item)?),
            Format::Name => line(name),
        }
    }
}

/// Prints one line on standard output, at once.
pub(crate) fn line(text: &str) -> Result<()> {
    bytes(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
}

/// Prints bytes on standard output, at once.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// A table without lines; columns are parted by two blanks, nothing is cut off or broken.
pub(crate) fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heads);
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<&str> = Vec::new();
    let text = table.to_string();
    text.lines()
        .fold(lines, |mut lines, line| {
            lines.push(line.trim_end());
            lines
        })
        .join("\n")
}

/// Names and values below each other, values aligned; empty values are left out.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let shown = pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
    shown.map(|(name, value)| format!("{name:width$}  {}", plain(value))).collect::<Vec<_>>().join("\n")
}

/// Nothing that a job or a host chose may move the terminal's cursor: control characters are shown, not obeyed.
fn plain(text: &str) -> String {
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}

/// What is there, else nothing.
pub(crate) fn or_empty<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map(T::to_string).unwrap_or_default()
}

/// A moment as a table shows it: its distance from now, or with `wide` the time of day in UTC.
pub(crate) fn moment(time: Option<api::Time>, wide: bool) -> String {
    match time {
        None => String::new(),
        Some(time) if wide => time.to_seconds(),
        Some(time) => distance(time, now_ms()),
    }
}

/// `12s ago`, `3m ago`; beyond a day the time itself.
fn distance(time: api::Time, now_ms: i64) -> String {
    match now_ms.saturating_sub(time.ms) / 1000 {
        ..0 => time.to_seconds(),
        s @ 0..60 => format!("{s}s ago"),
        s @ 60..3600 => format!("{}m ago", s / 60),
        s @ 3600..86400 => format!("{}h ago", s / 3600),
        86400.. => time.to_seconds(),
    }
}

/// The wall clock, milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Says something beside the result, if somebody watches.
pub(crate) fn hint(text: &str) {
    if io::stderr().is_terminal() {
        eprintln!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_carry_no_blanks_at_the_end() {
        let rows = [
            vec!["1".to_owned(), "Completed".to_owned(), String::new()],
            vec!["1042".into(), "Error".into(), "7".into()],
        ];
        let text = table(&["ID", "STATUS", "EXIT"], rows.into_iter());
        assert_eq!(text, "ID    STATUS     EXIT\n1     Completed\n1042  Error      7");
    }

    #[test]
    fn a_jobs_name_cannot_steer_the_terminal() {
        let text = table(&["NAME"], [vec!["a\u{1b}[2Jb\nc".to_owned()]].into_iter());
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn distances_are_short_and_old_times_are_whole() {
        let at = |ms| api::Time { ms };
        assert_eq!(distance(at(0), 59_999), "59s ago");
        assert_eq!(distance(at(0), 7_200_000), "2h ago");
        assert_eq!(distance(at(0), 100_000_000), "1970-01-01 00:00:00");
        assert_eq!(distance(at(5_000), 0), "1970-01-01 00:00:05");
    }

    #[test]
    fn empty_values_are_left_out() {
        assert_eq!(
            pairs(&[("Id", "1".into()), ("Reason", String::new()), ("Status", "Error".into())]),
            "Id      1\nStatus  Error"
        );
    }
}

//! Prints objects as tables for people or as JSON for machines.

use crate::exit::{USAGE, failure};
use anyhow::Result;
use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Color, ContentArrangement, Table};
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

/// When tables are coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    #[default]
    Auto,
    /// Also into a file or a pipe.
    Always,
    /// Never.
    Never,
}

impl Colour {
    fn is_on(self) -> bool {
        match self {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => {
                io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }
}

/// Where and how results are printed.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    colour: Colour,
    /// Heads of the columns of a table, in the order that was asked for; empty: the usual ones.
    columns: Vec<String>,
}

/// An object that can be shown in a table.
pub(crate) trait Row: Serialize {
    /// The columns' heads; those of a wide table begin with those of the other.
    fn heads(wide: bool) -> Vec<&'static str>;
    /// The cells, as many as heads.
    fn cells(&self, wide: bool) -> Vec<String>;
    /// Its number or name.
    fn name(&self) -> String;
}

impl Output {
    pub(crate) fn new(format: Format) -> Output {
        Output { format, colour: Colour::Auto, columns: Vec::new() }
    }

    /// With or without colour.
    pub(crate) fn with_colour(self, colour: Colour) -> Output {
        Output { colour, ..self }
    }

    /// Tables of lists have these columns, named by their heads in any case.
    pub(crate) fn with_columns(self, columns: Vec<String>) -> Output {
        Output { columns, ..self }
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
        if !self.columns.is_empty() && !matches!(self.format, Format::Table | Format::Wide) {
            return Err(failure(
                USAGE,
                "--columns chooses columns of a table; leave it out, or leave -o out",
            ));
        }
        match self.format {
            Format::Table | Format::Wide => line(&self.table_of(items)?),
            Format::Json => line(&serde_json::to_string_pretty(items)?),
            Format::Jsonl => items.iter().try_for_each(|item| line(&serde_json::to_string(item)?)),
            Format::Name => items.iter().try_for_each(|item| line(&item.name())),
        }
    }

    fn table_of<T: Row>(&self, items: &[T]) -> Result<String> {
        // Columns that were asked for may be those that only wide tables have; moments are short unless asked for by `wide`.
        let wide = self.format == Format::Wide;
        let all = T::heads(true);
        let shown =
            if self.columns.is_empty() { (0..T::heads(wide).len()).collect() } else { self.chosen(&all)? };
        let heads: Vec<&str> = shown.iter().filter_map(|&i| all.get(i).copied()).collect();
        let rows = items.iter().map(|item| {
            let (cells, mut more) = (item.cells(wide), Vec::new());
            if shown.iter().any(|&i| i >= cells.len()) {
                more = item.cells(true);
            }
            let cell = |&i: &usize| cells.get(i).or_else(|| more.get(i)).cloned().unwrap_or_default();
            shown.iter().map(cell).collect()
        });
        Ok(render(&heads, rows, self.colour.is_on()))
    }

    /// Where the columns stand that were asked for.
    fn chosen(&self, heads: &[&str]) -> Result<Vec<usize>> {
        let place = |name: &String| {
            let same = |head: &&str| head.eq_ignore_ascii_case(&name.replace(['-', '_'], " "));
            heads.iter().position(same).ok_or_else(|| {
                let known = heads.join(", ").to_lowercase().replace(' ', "-").replace(",-", ", ");
                failure(USAGE, format!("there is no column \"{name}\" here; the columns are {known}"))
            })
        };
        self.columns.iter().map(place).collect()
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
    render(heads, rows, false)
}

fn render(heads: &[&str], rows: impl Iterator<Item = Vec<String>>, coloured: bool) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heads);
    table.force_no_tty();
    if coloured {
        table.enforce_styling();
    }
    for row in rows {
        table.add_row(heads.iter().zip(&row).map(|(head, text)| cell(head, text)));
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

/// A cell; one that says how something stands has the colour of it.
fn cell(head: &str, text: &str) -> Cell {
    let cell = Cell::new(plain(text));
    let colour = match (head, text) {
        ("STATUS" | "STATE" | "OUTCOME", state) => colour_of(state),
        (_, _) => None,
    };
    match colour {
        Some(colour) => cell.fg(colour),
        None => cell,
    }
}

/// Green is well, red needs somebody, yellow waits or is somebody's doing, cyan is going on.
fn colour_of(state: &str) -> Option<Color> {
    match state {
        "Completed" | "connected" => Some(Color::Green),
        "Error" | "Unknown" | "lost" | "refused" => Some(Color::Red),
        "Killed" | "Canceled" | "Abandoned" | "Held" | "Suspended" | "draining" | "stopped" => {
            Some(Color::Yellow)
        }
        "Running" | "Dispatched" => Some(Color::Cyan),
        _ => None,
    }
}

/// Names and values below each other, values aligned; empty values are left out.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let shown = pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
    shown.map(|(name, value)| format!("{name:width$}  {}", plain(value))).collect::<Vec<_>>().join("\n")
}

/// Nothing that a job or a host chose may move the terminal's cursor: control characters are shown, not obeyed.
pub(crate) fn plain(text: &str) -> String {
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

/// A span is meant from now back; anything else is the server's to read.
pub(crate) fn moment_of(text: &str) -> String {
    match text.parse::<api::Span>() {
        Ok(span) => {
            let back = i64::try_from(span.ms).unwrap_or(i64::MAX);
            api::Time { ms: now_ms().saturating_sub(back) }.to_string()
        }
        Err(_) => text.to_owned(),
    }
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

    #[derive(Serialize)]
    struct Thing(&'static str);

    impl Row for Thing {
        fn heads(wide: bool) -> Vec<&'static str> {
            if wide { vec!["ID", "STATUS", "LAST SEEN"] } else { vec!["ID", "STATUS"] }
        }
        fn cells(&self, wide: bool) -> Vec<String> {
            let cells = ["1", self.0, "now"].map(String::from);
            cells[..Thing::heads(wide).len()].to_vec()
        }
        fn name(&self) -> String {
            "1".into()
        }
    }

    #[test]
    fn columns_are_chosen_by_their_heads_and_a_wrong_one_is_named() {
        let choose = |names: &[&str]| {
            let columns = names.iter().map(|name| (*name).to_owned()).collect();
            Output::new(Format::Table)
                .with_colour(Colour::Never)
                .with_columns(columns)
                .table_of(&[Thing("Error")])
        };
        assert_eq!(choose(&["last-seen", "id"]).unwrap(), "LAST SEEN  ID\nnow        1");
        let error = choose(&["idd"]).unwrap_err().to_string();
        assert_eq!(error, "there is no column \"idd\" here; the columns are id, status, last-seen");
    }

    #[test]
    fn colour_is_for_the_status_only_and_only_where_it_is_wanted() {
        let show =
            |colour| Output::new(Format::Table).with_colour(colour).table_of(&[Thing("Error")]).unwrap();
        assert!(show(Colour::Always).contains("\u{1b}[38;5;9mError"));
        assert!(!show(Colour::Never).contains('\u{1b}'));
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

//! How our programs trace: one line per event, into a file that is rotated by size.
//!
//! Best effort by design: a full disk, a removed directory or a terminal that does not read costs lines, never time and
//! never the program. Lost lines are counted and the count is written when writing works again.
//!
//! ```text
//! 2026-11-22T03:17:43.042Z  INFO network_processor::session: connected server=a epoch=3
//! ```
//!
//! What a crash can leave in the directory, and what the next start does with it:
//!
//! | on disk                                  | meaning                       | recovery                                      |
//! |------------------------------------------|-------------------------------|-----------------------------------------------|
//! | the newest file ends in half a line      | died (or disk full) amid it   | nothing: the line before and after are whole  |
//! | no newest file, but `.1`                 | died amid a rotation          | a new one is begun                            |
//! | a gap in the numbers (`.1`, `.3`)        | died amid a rotation          | nothing: the next rotations close it          |
//!
//! Nothing here is synced: a trace explains, it proves nothing. What must survive is in the message log.

#![forbid(unsafe_code)]

mod clock;
mod file;
mod read;
mod terminal;

use file::TraceFile;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use terminal::Terminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub use clock::rfc3339;
pub use file::{TRACE_FILE_BYTES_MAX, TRACE_FILES_MAX, TRACE_LINE_BYTES_MAX};
pub use read::{TraceReader, tail};

/// The environment variable that says what is traced (`debug`, `warn`, `info,link=trace`).
pub const FILTER_VARIABLE: &str = "LASTWORD_TRACE";

/// Keeps the terminal's lines coming until it is dropped at the end of `main`; dropping it earlier loses nothing.
pub struct Tracing {
    terminal: Option<Terminal>,
}

impl Tracing {
    /// Waits a moment until the terminal has the lines so far: before the program is replaced by another.
    pub fn flush(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.flush();
        }
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Begins tracing into `<dir>/<program>.log` (if there is a `dir`) and to stderr (if `also_stderr`). Never fails: what cannot be
/// opened now is tried again later. A panic is traced too, before the process aborts. The first call of a process counts.
pub fn init(program: &str, dir: Option<&Path>, also_stderr: bool) -> Tracing {
    let terminal = also_stderr.then(Terminal::start);
    let lines = Lines {
        file: dir.map(|dir| Arc::new(Mutex::new(TraceFile::new(dir, program)))),
        terminal: terminal.clone(),
    };
    let wanted = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let wanted = if wanted.trim().is_empty() { "info" } else { wanted.trim() };
    let (filter, complaint) = match EnvFilter::builder().parse(wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(clock::Utc)
        .with_ansi(false)
        .with_writer(lines)
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        trace_panics();
        tracing::info!(pid = std::process::id(), program, "trace begins");
        if let Some(error) = complaint {
            tracing::warn!("{FILTER_VARIABLE}=\"{wanted}\" is no filter ({error}); tracing \"info\"");
        }
    }
    Tracing { terminal }
}

fn trace_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("{panic}");
        default(panic);
    }));
}

/// Where every line goes.
#[derive(Clone)]
struct Lines {
    file: Option<Arc<Mutex<TraceFile>>>,
    terminal: Option<Terminal>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

impl io::Write for Lines {
    /// Takes one whole event: the formatter hands each over in one piece.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = one_line(event);
        if let Some(file) = &self.file {
            file.lock().unwrap_or_else(PoisonError::into_inner).write_line(&line);
        }
        if let Some(terminal) = &self.terminal {
            terminal.write_line(line);
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One event, one line: control characters are written out, so that a text from elsewhere can forge no line and move no
/// cursor, and an endless text is cut.
fn one_line(event: &[u8]) -> Vec<u8> {
    let event = event.strip_suffix(b"\n").unwrap_or(event);
    let mut line = Vec::with_capacity(event.len() + 1);
    for byte in event {
        if line.len() >= TRACE_LINE_BYTES_MAX {
            line.extend_from_slice(b" ... (cut)");
            break;
        }
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\t' | 0x20..=0x7e | 0x80.. => line.push(*byte),
            0..=0x1f | 0x7f => line.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_text_from_elsewhere_can_forge_no_line() {
        assert_eq!(one_line(b"a\nb\x1b[2Jc\r\n"), b"a\\nb\\x1b[2Jc\\x0d\n");
        assert_eq!(one_line("é\t1\n".as_bytes()), "é\t1\n".as_bytes());
    }

    #[test]
    fn an_endless_line_is_cut() {
        let line = one_line(&vec![b'x'; 10 * TRACE_LINE_BYTES_MAX]);
        assert!(line.len() < TRACE_LINE_BYTES_MAX + 20 && line.ends_with(b"(cut)\n"));
    }

    #[test]
    fn a_writer_takes_every_event_even_if_nothing_can_be_written() {
        let file = TraceFile::new(Path::new("/dev/null/nowhere"), "p");
        let mut lines = Lines { file: Some(Arc::new(Mutex::new(file))), terminal: None };
        for _ in 0..1000 {
            assert_eq!(lines.write(b"event\n").ok(), Some(6));
        }
    }
}

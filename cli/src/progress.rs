//! How far a long transfer has come: a bar on standard error, for people only.
//!
//! There is none where standard error is no terminal, where the bytes themselves go to that terminal, or before a transfer has taken [`PATIENCE`].

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_millis(500);
/// The bar is drawn anew so often at most.
const DRAWS_PER_SECOND: u8 = 10;
const STYLE: &str = "{wide_msg} {bytes} of {total_bytes} {bar:20} {bytes_per_sec} {eta}";

/// One transfer. Its bar is wiped away when this is dropped, so that what is said next has the line for itself.
pub(crate) struct Progress {
    what: String,
    total: u64,
    began: Instant,
    /// Somebody sees it.
    wanted: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A transfer of `what` up to byte `total`; `to_terminal`: its bytes go to a terminal themselves.
    pub(crate) fn new(what: &str, total: u64, to_terminal: bool) -> Progress {
        let wanted = !to_terminal && std::io::stderr().is_terminal();
        Progress { what: what.to_owned(), total, began: Instant::now(), wanted, bar: None }
    }

    /// It has come to this byte.
    pub(crate) fn at(&mut self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        } else if self.wanted && self.began.elapsed() >= PATIENCE && position < self.total {
            self.bar = Some(bar(&self.what, position, self.total));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str, position: u64, total: u64) -> ProgressBar {
    let bar =
        ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
    // A style that cannot be read leaves the plain one.
    if let Ok(style) = ProgressStyle::with_template(STYLE) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.with_position(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_of_the_bar_is_one() {
        assert!(ProgressStyle::with_template(STYLE).is_ok());
    }

    #[test]
    fn without_a_terminal_to_draw_on_there_is_no_bar() {
        let mut progress = Progress::new("x", 1 << 30, true);
        progress.began -= PATIENCE;
        progress.at(1 << 20);
        assert!(progress.bar.is_none());
    }
}

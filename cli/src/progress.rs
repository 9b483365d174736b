//! How far long work has come: a bar on standard error, for people only.
//!
//! There is none where standard error is no terminal, where the bytes themselves go to that terminal, or before the work has taken [`PATIENCE`].

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_millis(500);
/// The bar is drawn anew so often at most.
const DRAWS_PER_SECOND: u8 = 10;
/// Of bytes, of other things, and of what nobody knows how much it is.
const BYTES: &str = "{wide_msg} {bytes} of {total_bytes} {bar:20} {bytes_per_sec} {eta}";
const THINGS: &str = "{wide_msg} {human_pos} of {human_len} {bar:20} {eta}";
const UNKNOWN: &str = "{wide_msg} {spinner} {elapsed}";

/// One transfer, or one long work of several steps. Its bar is wiped away when this is dropped, so that what is said next has the line for itself.
pub(crate) struct Progress {
    what: String,
    total: u64,
    style: &'static str,
    began: Instant,
    /// Somebody sees it.
    wanted: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A transfer of `what` up to byte `total`; `to_terminal`: its bytes go to a terminal themselves.
    pub(crate) fn new(what: &str, total: u64, to_terminal: bool) -> Progress {
        let wanted = !to_terminal && std::io::stderr().is_terminal();
        Progress { what: what.to_owned(), total, style: BYTES, began: Instant::now(), wanted, bar: None }
    }

    /// The work is at this step from now on; `total` is 0 if nobody can tell how much it is.
    pub(crate) fn step(&mut self, what: &str, total: u64, bytes: bool) {
        if (self.what.as_str(), self.total) == (what, total) {
            return;
        }
        self.wipe();
        self.style = if total == 0 { UNKNOWN } else { [THINGS, BYTES][usize::from(bytes)] };
        (self.what, self.total) = (what.to_owned(), total);
    }

    /// It has come to this byte, or this far.
    pub(crate) fn at(&mut self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.tick();
        } else if self.wanted
            && self.began.elapsed() >= PATIENCE
            && (position < self.total || self.style == UNKNOWN)
        {
            self.bar = Some(bar(&self.what, position, self.total, self.style));
        }
    }

    fn wipe(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.wipe();
    }
}

fn bar(what: &str, position: u64, total: u64, style: &str) -> ProgressBar {
    let length = (total > 0).then_some(total);
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
    // A style that cannot be read leaves the plain one.
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.with_position(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_styles_of_the_bar_are_styles() {
        for style in [BYTES, THINGS, UNKNOWN] {
            assert!(ProgressStyle::with_template(style).is_ok(), "{style}");
        }
    }

    #[test]
    fn without_a_terminal_to_draw_on_there_is_no_bar() {
        let mut progress = Progress::new("x", 1 << 30, true);
        progress.began -= PATIENCE;
        progress.at(1 << 20);
        assert!(progress.bar.is_none());
    }

    #[test]
    fn every_step_has_a_bar_of_its_own_and_none_that_is_of_unknown_length_ends() {
        let mut progress = Progress::new("", 0, true);
        (progress.wanted, progress.began) = (true, progress.began - PATIENCE);
        progress.step("counting", 0, false);
        progress.at(0);
        assert_eq!(progress.bar.as_ref().map(ProgressBar::length), Some(None));
        progress.step("copying", 100, true);
        assert!(progress.bar.is_none(), "the one before is wiped away");
        progress.at(40);
        let bar = progress.bar.as_ref().unwrap();
        assert_eq!((bar.length(), bar.position(), bar.message()), (Some(100), 40, "copying".to_owned()));
    }
}

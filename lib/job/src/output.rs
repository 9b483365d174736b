//! How much a job may write, and what is done about it. Decided here; the sizes are looked at, and the deeds done, by whoever supervises the run.
//!
//! | policy      | beyond the limit                                                                                          |
//! |-------------|-----------------------------------------------------------------------------------------------------------|
//! | `keep-ends` | the first and the last half stay; what is between becomes a hole that reads as zeros, so offsets stay true |
//! | `kill`      | the run is ended                                                                                          |
//! | `truncate`  | what is beyond is cut off, again and again; who appends goes on at the limit                               |
//!
//! Sizes are looked at at intervals, so a file may be beyond its limit for a moment, by what the job writes in that time.

use crate::Size;
use std::fmt;
use std::str::FromStr;

/// The smallest limit: each half of it holds some blocks of any file system.
pub const OUTPUT_LIMIT_BYTES_MIN: u64 = 64 << 10;
/// Holes begin and end at multiples of this, bytes: the usual block.
const BLOCK_BYTES: u64 = 4 << 10;
/// A hole grows by at least this part of the limit at a time.
const HOLE_PARTS: u64 = 8;
/// Between the start and the first look, and between any two at the least, milliseconds.
const LOOK_MS_MIN: u64 = 100;
/// Between two looks at the most, milliseconds.
const LOOK_MS_MAX: u64 = 2_000;

/// What happens beyond the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutputPolicy {
    /// The ends stay.
    #[default]
    KeepEnds,
    /// The run is ended.
    Kill,
    /// What is beyond is cut off.
    Truncate,
}

impl OutputPolicy {
    /// Every one.
    pub const ALL: [OutputPolicy; 3] = [OutputPolicy::KeepEnds, OutputPolicy::Kill, OutputPolicy::Truncate];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            OutputPolicy::KeepEnds => "keep-ends",
            OutputPolicy::Kill => "kill",
            OutputPolicy::Truncate => "truncate",
        }
    }
}

/// How much each of a run's two output files may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutputLimit {
    /// Bytes.
    pub bytes_max: u64,
    /// What happens beyond.
    pub policy: OutputPolicy,
}

impl OutputLimit {
    /// Where the hole of a file of this size begins, if the limit may have made one there. Where it ends, the file system knows.
    pub fn hole_from(&self, size: u64) -> Option<u64> {
        let may = self.policy == OutputPolicy::KeepEnds && size > self.bytes_max;
        may.then(|| (self.bytes_max / 2).next_multiple_of(BLOCK_BYTES))
    }
}

/// A text that is no output limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no output limit: write a size of at least 64K, and a policy if it is not keep-ends (10M, 10M:kill, 1G:truncate)"
)]
pub struct ParseOutputLimitError(String);

impl FromStr for OutputLimit {
    type Err = ParseOutputLimitError;

    fn from_str(text: &str) -> Result<OutputLimit, ParseOutputLimitError> {
        let wrong = || ParseOutputLimitError(text.to_owned());
        let (size, policy) = text.split_once(':').unwrap_or((text, OutputPolicy::default().name()));
        let bytes_max = Size::read(size).map(|size| size.0).filter(|bytes| *bytes >= OUTPUT_LIMIT_BYTES_MIN);
        let policy = OutputPolicy::ALL.into_iter().find(|known| known.name() == policy);
        let (Some(bytes_max), Some(policy)) = (bytes_max, policy) else { return Err(wrong()) };
        Ok(OutputLimit { bytes_max, policy })
    }
}

/// As it is read.
impl fmt::Display for OutputLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Size(self.bytes_max), self.policy.name())
    }
}

/// What is to be done about one of the two files. `stream` is 0 for standard output, 1 for standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Make this range a hole.
    Hollow {
        /// Which file.
        stream: usize,
        /// From this byte.
        from: u64,
        /// Up to this byte.
        to: u64,
    },
    /// Cut the file off at this byte.
    Cut {
        /// Which file.
        stream: usize,
        /// At this byte.
        at: u64,
    },
    /// End the run.
    Kill {
        /// What to give as the one who asks.
        by: String,
    },
    /// Tell people.
    Note(String),
}

/// The names of the two files, for people.
const NAMES: [&str; 2] = ["standard output", "standard error"];

/// Watches the two files of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    limit: OutputLimit,
    sizes: [u64; 2],
    hollow_to: [u64; 2],
    told: [bool; 2],
    looked_ms: u64,
    due_ms: u64,
}

impl Watch {
    /// Begins with the run, or when it is taken over.
    pub fn new(limit: OutputLimit, now_ms: u64) -> Watch {
        let due_ms = now_ms + LOOK_MS_MIN;
        Watch { limit, sizes: [0; 2], hollow_to: [0; 2], told: [false; 2], looked_ms: now_ms, due_ms }
    }

    /// When the sizes are to be looked at, `CLOCK_BOOTTIME` milliseconds.
    pub fn next_look_ms(&self) -> u64 {
        self.due_ms
    }

    /// The sizes are to be looked at at once: the job has ended.
    pub fn look_now(&mut self) {
        self.due_ms = 0;
    }

    /// The sizes are these now.
    pub fn on_sizes(&mut self, sizes: [u64; 2], now_ms: u64) -> Vec<Deed> {
        self.due_ms = now_ms + self.pause_ms(sizes, now_ms);
        (self.sizes, self.looked_ms) = (sizes, now_ms);
        let mut deeds = Vec::new();
        for (stream, size) in sizes.into_iter().enumerate() {
            if size > self.limit.bytes_max {
                self.beyond(stream, size, &mut deeds);
            }
        }
        deeds
    }

    /// The sooner, the faster a file grows towards what is left of its limit.
    fn pause_ms(&self, sizes: [u64; 2], now_ms: u64) -> u64 {
        let passed_ms = now_ms.saturating_sub(self.looked_ms).max(1);
        let until_full = |stream: usize| {
            let grown = sizes[stream].saturating_sub(self.sizes[stream]);
            let left = match sizes[stream] > self.limit.bytes_max {
                true => self.limit.bytes_max / HOLE_PARTS,
                false => self.limit.bytes_max - sizes[stream],
            };
            left.saturating_mul(passed_ms).checked_div(grown).map_or(LOOK_MS_MAX, |ms| ms / 2)
        };
        until_full(0).min(until_full(1)).clamp(LOOK_MS_MIN, LOOK_MS_MAX)
    }

    fn beyond(&mut self, stream: usize, size: u64, deeds: &mut Vec<Deed>) {
        let (name, limit) = (NAMES[stream], self.limit);
        let first = !std::mem::replace(&mut self.told[stream], true);
        match limit.policy {
            OutputPolicy::Kill => {
                if first {
                    deeds.push(Deed::Kill { by: format!("the output limit of {}", Size(limit.bytes_max)) });
                }
            }
            OutputPolicy::Truncate => {
                deeds.push(Deed::Cut { stream, at: limit.bytes_max });
                if first {
                    let at = Size(limit.bytes_max);
                    deeds.push(Deed::Note(format!("{name} is cut off at its limit of {at}")));
                }
            }
            OutputPolicy::KeepEnds => {
                let half = limit.bytes_max / 2;
                let Some(begin) = limit.hole_from(size) else { return };
                let from = begin.max(self.hollow_to[stream]);
                let to = (size - half) / BLOCK_BYTES * BLOCK_BYTES;
                if to >= from + limit.bytes_max / HOLE_PARTS || first && to > from {
                    deeds.push(Deed::Hollow { stream, from, to });
                    self.hollow_to[stream] = to;
                }
                if first {
                    let half = Size(half);
                    deeds.push(Deed::Note(format!(
                        "{name} is beyond its limit: the first and the last {half} are kept, what is between reads as zeros"
                    )));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = 1 << 10;

    fn watch(policy: OutputPolicy) -> Watch {
        Watch::new(OutputLimit { bytes_max: 64 * K, policy }, 0)
    }

    #[test]
    fn limits_are_read_as_people_write_them() {
        for (text, bytes_max, policy, shown) in [
            ("10M", 10 << 20, OutputPolicy::KeepEnds, "10M:keep-ends"),
            ("1G:kill", 1 << 30, OutputPolicy::Kill, "1G:kill"),
            ("100000:truncate", 100_000, OutputPolicy::Truncate, "100000:truncate"),
        ] {
            let limit: OutputLimit = text.parse().unwrap();
            assert_eq!(
                (limit.bytes_max, limit.policy, limit.to_string().as_str()),
                (bytes_max, policy, shown)
            );
            assert_eq!(shown.parse(), Ok(limit));
        }
        for text in ["", "10", "63K", "10M:", "10M:keep", "-1", "x:kill", "unlimited"] {
            assert!(text.parse::<OutputLimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_ends_are_kept_and_the_hole_between_them_grows() {
        let mut watch = watch(OutputPolicy::KeepEnds);
        assert_eq!(watch.on_sizes([64 * K, 0], 100), []);
        let deeds = watch.on_sizes([100 * K, 0], 200);
        assert_eq!(deeds[0], Deed::Hollow { stream: 0, from: 32 * K, to: 68 * K });
        assert!(matches!(&deeds[1], Deed::Note(text) if text.contains("standard output")), "{deeds:?}");
        assert_eq!(watch.on_sizes([101 * K, 0], 300), [], "too little for another one");
        let deeds = watch.on_sizes([200 * K, 0], 400);
        assert_eq!(deeds, [Deed::Hollow { stream: 0, from: 68 * K, to: 168 * K }], "told once");
    }

    #[test]
    fn only_a_file_beyond_a_limit_that_keeps_its_ends_may_have_a_hole() {
        let limit = |policy| OutputLimit { bytes_max: 100 * K + 1, policy };
        assert_eq!(limit(OutputPolicy::KeepEnds).hole_from(100 * K + 2), Some(52 * K));
        assert_eq!(limit(OutputPolicy::KeepEnds).hole_from(100 * K + 1), None);
        assert_eq!(limit(OutputPolicy::Truncate).hole_from(200 * K), None);
        assert_eq!(limit(OutputPolicy::Kill).hole_from(200 * K), None);
    }

    #[test]
    fn what_is_beyond_is_cut_off_again_and_again() {
        let mut watch = watch(OutputPolicy::Truncate);
        let deeds = watch.on_sizes([0, 65 * K], 100);
        assert_eq!(deeds[0], Deed::Cut { stream: 1, at: 64 * K });
        assert_eq!(deeds.len(), 2);
        assert_eq!(watch.on_sizes([0, 65 * K], 200).len(), 1);
    }

    #[test]
    fn a_run_is_killed_once_and_the_reason_names_the_limit() {
        let mut watch = watch(OutputPolicy::Kill);
        let by = "the output limit of 64K".to_owned();
        assert_eq!(watch.on_sizes([65 * K, 0], 100), [Deed::Kill { by }]);
        assert_eq!(watch.on_sizes([66 * K, 0], 200), []);
    }

    #[test]
    fn the_faster_a_file_grows_the_sooner_it_is_looked_at_again() {
        let mut watch = watch(OutputPolicy::Kill);
        assert_eq!(watch.next_look_ms(), LOOK_MS_MIN);
        watch.on_sizes([0, 0], 1_000);
        assert_eq!(watch.next_look_ms(), 1_000 + LOOK_MS_MAX, "it writes nothing");
        watch.on_sizes([60 * K, 0], 3_000);
        assert_eq!(watch.next_look_ms(), 3_000 + LOOK_MS_MIN);
    }
}

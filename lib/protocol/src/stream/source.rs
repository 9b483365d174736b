//! The agent's end of all streams of one connection: whose turn it is, and how much may be read for it.
//!
//! | state   | leaves it by                                                         |
//! |---------|----------------------------------------------------------------------|
//! | ready   | its turn ([`Sources::next`])                                         |
//! | looking | what was found ([`Sources::on_found`]), or that nothing can be read  |
//! | broke   | a grant                                                              |
//! | idle    | the time of its next look, or a hint that there may be something new |
//!
//! A cancelled stream is gone at once; what is found for it later is passed over.

use super::{LOOK_MS_MAX, LOOK_MS_MIN, PIECE_BYTES_MAX, Pace, STREAMS_MAX, StreamError};
use crate::Frame;
use crate::convert::{Malformed, bad_field, run_id};
use crate::message::{StreamEnd, StreamKind, StreamOpen, StreamPiece, TraceKind};
use job::RunId;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;

/// What a [`StreamOpen`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its number.
    pub stream_id: u64,
    /// What is to be read.
    pub subject: Subject,
    /// Which part of it.
    pub wanted: Wanted,
}

/// What a stream can be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What a run wrote, or what was kept of it.
    File {
        /// Which run.
        run_id: RunId,
        /// Which of its files; one of a newer version is not known.
        file: Option<Which>,
    },
    /// What a program of the agent traced.
    Trace {
        /// Which program; one of a newer version is not known.
        program: Option<TraceKind>,
        /// So many bytes before the end; all that is kept if absent.
        tail: Option<u64>,
    },
}

/// Which file of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// An output file.
    Output(StreamKind),
    /// The captured file of this name.
    Kept(String),
}

/// Which part of a file is wanted, and the first credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// From this byte, or from the end of the file if that comes first.
    pub offset: u64,
    /// At most so many bytes.
    pub bytes_max: Option<u64>,
    /// Until the run is complete.
    pub follow: bool,
    /// The first credit.
    pub granted: u64,
    /// Gaps are skipped.
    pub gaps: bool,
}

impl Opening {
    /// Reads the message.
    pub fn read(open: &StreamOpen) -> Result<Opening, Malformed> {
        Ok(Opening {
            stream_id: open.stream_id.ok_or(bad_field("StreamOpen", "stream_id"))?,
            subject: Subject::read(open)?,
            wanted: Wanted {
                offset: open.offset.unwrap_or(0),
                bytes_max: open.bytes_max,
                follow: open.follow,
                granted: open.granted.unwrap_or(0),
                gaps: open.gaps,
            },
        })
    }
}

impl Subject {
    fn read(open: &StreamOpen) -> Result<Subject, Malformed> {
        if let Some(program) = open.trace {
            let program = TraceKind::try_from(program).ok().filter(|kind| *kind != TraceKind::Unspecified);
            return Ok(Subject::Trace { program, tail: open.tail });
        }
        let file = match &open.file {
            Some(name) => Some(Which::Kept(name.clone())),
            None => open
                .stream
                .and_then(|s| StreamKind::try_from(s).ok())
                .filter(|s| *s != StreamKind::Unspecified)
                .map(Which::Output),
        };
        Ok(Subject::File { run_id: run_id("StreamOpen", &open.run_id)?, file })
    }
}

/// A look to be taken at a file: its size, and so many bytes from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// For which stream.
    pub stream_id: u64,
    /// From this byte.
    pub offset: u64,
    /// At most so many bytes.
    pub bytes_max: usize,
    /// What the output limit left out is to be looked for, and skipped.
    pub gaps: bool,
}

/// What a look found. Whether the run is complete has to be known before the size is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The bytes: from where the look begins, or from the end of the gap if it begins in there; never some of the gap.
    pub data: Vec<u8>,
    /// The size of the file.
    pub size: u64,
    /// What the output limit left out of the file.
    pub gap: Option<Range<u64>>,
    /// It will not grow.
    pub complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Looking,
    Broke,
    Idle { look_at_ms: u64 },
}

#[derive(Debug)]
struct Source {
    state: State,
    /// The next byte of the file.
    at: u64,
    /// The byte of the file at which the stream ends; known when its beginning is.
    end_at: Option<u64>,
    bytes_max: Option<u64>,
    follow: bool,
    gaps: bool,
    begun: bool,
    sent: u64,
    granted: u64,
    pause_ms: u64,
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub struct Sources {
    streams: HashMap<u64, Source>,
    /// Whose turn is next; numbers of streams that are gone are passed over.
    turns: VecDeque<u64>,
    /// The idle ones by the time of their next look.
    looks: BTreeSet<(u64, u64)>,
    pace: Pace,
}

impl Sources {
    /// Opens a stream; the frame is the refusal, if it is refused.
    pub fn on_open(&mut self, stream_id: u64, wanted: Wanted) -> Result<(), Box<Frame>> {
        if self.streams.len() >= STREAMS_MAX {
            let reason = format!("{STREAMS_MAX} streams of output are open on this connection");
            return Err(Box::new(end(stream_id, false, Some(reason), false)));
        }
        let source = Source {
            state: State::Ready,
            at: wanted.offset,
            end_at: None,
            bytes_max: wanted.bytes_max,
            follow: wanted.follow,
            gaps: wanted.gaps,
            begun: false,
            sent: 0,
            granted: wanted.granted,
            pause_ms: LOOK_MS_MIN,
        };
        self.on_cancel(stream_id); // a number that is used again means the new one
        self.streams.insert(stream_id, source);
        self.turns.push_back(stream_id);
        Ok(())
    }

    /// The server grants more.
    pub fn on_grant(&mut self, stream_id: u64, granted: u64) {
        let Some(source) = self.streams.get_mut(&stream_id) else { return };
        source.granted = source.granted.max(granted);
        if source.state == State::Broke && source.granted > source.sent {
            source.state = State::Ready;
            self.turns.push_back(stream_id);
        }
    }

    /// Nobody reads it any more.
    pub fn on_cancel(&mut self, stream_id: u64) {
        if let Some(Source { state: State::Idle { look_at_ms }, .. }) = self.streams.remove(&stream_id) {
            self.looks.remove(&(look_at_ms, stream_id));
        }
        if self.streams.is_empty() {
            self.turns.clear();
        }
    }

    /// The server has received so many bytes of all streams.
    pub fn on_receipt(&mut self, now_ms: u64, received: u64) -> Result<(), StreamError> {
        self.pace.on_receipt(now_ms, received)
    }

    /// There may be something new in the file of this stream.
    pub fn on_hint(&mut self, stream_id: u64) {
        let Some(source) = self.streams.get_mut(&stream_id) else { return };
        if let State::Idle { look_at_ms } = source.state {
            self.looks.remove(&(look_at_ms, stream_id));
            source.state = State::Ready;
            self.turns.push_back(stream_id);
        }
    }

    /// The next look to be taken, if there is one now: stream by stream, and nothing while enough is on its way.
    pub fn next(&mut self, now_ms: u64) -> Option<Look> {
        while let Some((_, stream_id)) = self.looks.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms) {
            self.on_hint(stream_id);
        }
        let room = self.pace.room();
        if room == 0 {
            return None;
        }
        while let Some(stream_id) = self.turns.pop_front() {
            let Some(source) = self.streams.get_mut(&stream_id) else { continue };
            if source.state != State::Ready {
                continue;
            }
            source.state = State::Looking;
            let limit = source.end_at.map_or(source.bytes_max, |end_at| Some(end_at - source.at));
            let bytes = room.min(source.granted - source.sent).min(limit.unwrap_or(u64::MAX));
            let bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
            return Some(Look { stream_id, offset: source.at, bytes_max, gaps: source.gaps });
        }
        None
    }

    /// When [`Sources::next`] has to be called again even if nothing happens.
    pub fn look_at_ms(&self) -> Option<u64> {
        self.looks.first().map(|(at_ms, _)| *at_ms)
    }

    /// A look found this. Gives the frames to be sent, in this order.
    pub fn on_found(&mut self, now_ms: u64, stream_id: u64, found: Found) -> Vec<Frame> {
        let Some(source) = self.streams.get_mut(&stream_id).filter(|s| s.state == State::Looking) else {
            return Vec::new(); // it was cancelled meanwhile
        };
        let Found { mut data, size, complete, gap } = found;
        let gap = gap.filter(|_| source.gaps);
        let bytes = source.begin_or_cut(&mut data, size, gap.as_ref());
        let mut frames = Vec::new();
        if bytes > 0 || !source.begun {
            let (offset, size) = (Some(source.at), Some(size));
            let (gap_from, gap_to) = gap.map(|gap| (gap.start, gap.end)).unzip();
            let stream_id = Some(stream_id);
            frames.push(StreamPiece { stream_id, offset, data, size, complete, gap_from, gap_to }.into());
            source.begun = true;
            source.at += bytes;
            source.sent += bytes;
            self.pace.on_sent(now_ms, bytes);
        }
        match source.after(now_ms, bytes, size, complete) {
            After::Over { complete, failed } => {
                frames.push(end(stream_id, complete, failed, false));
                self.streams.remove(&stream_id);
            }
            After::Turn => {
                source.state = State::Ready;
                self.turns.push_back(stream_id);
            }
            After::Broke => source.state = State::Broke,
            After::Idle { look_at_ms } => {
                source.state = State::Idle { look_at_ms };
                self.looks.insert((look_at_ms, stream_id));
            }
        }
        frames
    }

    /// Nothing can be read for this stream, now or (`gone`) ever again: gives the frame that says so.
    pub fn on_failed(&mut self, stream_id: u64, reason: String, gone: bool) -> Option<Frame> {
        self.streams.remove(&stream_id).map(|_| end(stream_id, false, Some(reason), gone))
    }

    /// How many streams are open.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether this one waits for its file to grow.
    pub fn is_idle(&self, stream_id: u64) -> bool {
        self.streams.get(&stream_id).is_some_and(|source| matches!(source.state, State::Idle { .. }))
    }
}

/// What comes after a look.
enum After {
    Over { complete: bool, failed: Option<String> },
    Turn,
    Broke,
    Idle { look_at_ms: u64 },
}

impl Source {
    /// At the first look decides where the stream begins and ends; cuts what may not be sent. Gives how many bytes are left.
    fn begin_or_cut(&mut self, data: &mut Vec<u8>, size: u64, gap: Option<&Range<u64>>) -> u64 {
        if !self.begun {
            self.at = self.at.min(size);
            let limit = self.bytes_max.map(|bytes_max| self.at.saturating_add(bytes_max));
            self.end_at = if self.follow { limit } else { Some(size.min(limit.unwrap_or(u64::MAX))) };
        }
        let end_at = self.end_at.unwrap_or(u64::MAX);
        let begin = match gap {
            Some(gap) if gap.contains(&self.at) => gap.end.min(size).min(end_at).max(self.at),
            Some(_) | None => self.at,
        };
        let limit = end_at - begin;
        let allowed = limit.min(self.granted - self.sent);
        data.truncate(usize::try_from(allowed).unwrap_or(usize::MAX));
        // Nothing is skipped before what follows is there: the gap may still grow.
        if !data.is_empty() || !self.begun || limit == 0 {
            self.at = begin;
        }
        data.len() as u64
    }

    fn after(&mut self, now_ms: u64, bytes: u64, size: u64, complete: bool) -> After {
        let all_there_is = self.at >= size;
        if self.end_at == Some(self.at) || complete && all_there_is {
            return After::Over { complete: complete && all_there_is, failed: None };
        }
        if !self.follow && all_there_is {
            let reason = "the output became shorter while it was read".to_owned();
            return After::Over { complete: false, failed: Some(reason) };
        }
        if all_there_is {
            self.pause_ms = if bytes > 0 { LOOK_MS_MIN } else { (self.pause_ms * 3 / 2).min(LOOK_MS_MAX) };
            return After::Idle { look_at_ms: now_ms.saturating_add(self.pause_ms) };
        }
        if self.sent < self.granted { After::Turn } else { After::Broke }
    }
}

fn end(stream_id: u64, complete: bool, failed: Option<String>, gone: bool) -> Frame {
    StreamEnd { stream_id: Some(stream_id), complete, failed, gone }.into()
}

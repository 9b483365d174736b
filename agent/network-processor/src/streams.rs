//! Output and kept files that are sent as streams: a task per link, driven by `protocol::stream::Sources`. It has no part in anything else: a slow disk or a
//! slow reader delays output and nothing but output.
//!
//! Whether a run is complete is known to the event loop alone. It tells: by a flag for every run that somebody reads, and by a word when the
//! flag falls. Who reads nothing costs nothing.

use crate::agent::Agent;
use crate::disk::Disk;
use crate::identity::IdentityFile;
use crate::output::{self, Open, Output, Part, Unreadable};
use job::RunId;
use link::Sender;
use os::clock::boottime_ms;
use protocol::Frame;
use protocol::message::{StreamOpen, TraceKind};
use protocol::stream::{Found, Look, Opening, Sources, Subject};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use trace::TraceReader;

/// Words of the server that wait for the task of a link; one that says more than the task can take up is not in good order.
const WORDS_WAITING_MAX: usize = 8192;

/// The streams of all links, as the event loop sees them.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    links: HashMap<u64, mpsc::Sender<Word>>,
    /// Runs that somebody reads, and whether they are still kept: their output may grow.
    kept: HashMap<RunId, Arc<AtomicBool>>,
}

/// What the task of a link is told.
#[derive(Debug)]
pub(crate) enum Word {
    /// A stream is to be opened; the flag says whether what it reads may grow.
    Open(Opening, Arc<AtomicBool>),
    /// As in [`protocol::message::StreamGrant`].
    Grant(u64, u64),
    /// As in [`protocol::message::StreamCancel`].
    Cancel(u64),
    /// As in [`protocol::message::StreamReceipt`].
    Receipt(u64),
    /// The output of this run will not grow any more.
    Complete(RunId),
}

impl Agent {
    pub(crate) fn on_stream_open(&mut self, session: u64, open: &StreamOpen) {
        let opening = match Opening::read(open) {
            Ok(opening) => opening,
            Err(e) => return self.sessions.complain(session, &e.to_string()),
        };
        let Some(link) = self.sessions.link(session) else { return };
        let kept = match &opening.subject {
            Subject::File { run_id, .. } => {
                let now = self.runs.get(run_id).is_some_and(|run| run.is_kept());
                let kept = self.streams.kept.entry(*run_id);
                kept.or_insert_with(|| Arc::new(AtomicBool::new(now))).clone()
            }
            Subject::Trace { .. } => Arc::new(AtomicBool::new(true)),
        };
        let (disk, identity) = (self.disk.clone(), self.identity.file.clone());
        self.streams.links.entry(session).or_insert_with(|| {
            let (words, queue) = mpsc::channel(WORDS_WAITING_MAX);
            let (sources, files) = (Sources::default(), HashMap::new());
            tokio::spawn(Pump { disk, identity, link, words: queue, sources, files }.run());
            words
        });
        self.on_stream_word(session, Word::Open(opening, kept));
    }

    /// Passes on what the server says about its streams.
    pub(crate) fn on_stream_word(&mut self, session: u64, word: Word) {
        // Without a task no stream was ever opened, and what is said of one means nothing.
        let Some(words) = self.streams.links.get(&session) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = words.try_send(word) {
            self.sessions.complain(session, "more was said about streams of output than can be taken up");
        }
    }

    /// The link is over, and its streams with it.
    pub(crate) fn close_streams(&mut self, session: u64) {
        self.streams.links.remove(&session);
    }

    /// Tells who reads that a run is complete. Called after every turn of the loop; there is mostly nobody to tell.
    pub(crate) fn tell_readers(&mut self) {
        let (runs, links) = (&self.runs, &self.streams.links);
        self.streams.kept.retain(|run_id, kept| {
            let now = runs.get(run_id).is_some_and(|run| run.is_kept());
            if kept.swap(now, Ordering::AcqRel) && !now {
                for words in links.values() {
                    let _ = words.try_send(Word::Complete(*run_id)); // a full task looks by itself a little later
                }
            }
            Arc::strong_count(kept) > 1
        });
    }
}

/// The task of one link.
struct Pump {
    disk: Disk,
    identity: IdentityFile,
    link: Sender,
    words: mpsc::Receiver<Word>,
    sources: Sources,
    files: HashMap<u64, Reading>,
}

/// What is read for one stream.
#[derive(Clone)]
struct Reading {
    subject: Subject,
    kept: Arc<AtomicBool>,
    file: Option<Reader>,
}

/// What is open for one stream.
#[derive(Clone)]
enum Reader {
    /// Open while there is something to read, so that who waits for growth holds no descriptor.
    Output(Arc<Open>),
    /// Open from the beginning on: it is what bytes are counted from.
    Trace(Arc<Mutex<TraceReader>>),
}

impl Pump {
    /// Until the link is over.
    async fn run(mut self) {
        loop {
            while let Ok(word) = self.words.try_recv() {
                if !self.on(word).await {
                    return;
                }
            }
            if let Some(look) = self.sources.next(boottime_ms()) {
                if !self.look(look).await {
                    return;
                }
                continue;
            }
            let pause_ms = self.sources.look_at_ms().map(|at_ms| at_ms.saturating_sub(boottime_ms()));
            tokio::select! {
                word = self.words.recv() => {
                    let Some(word) = word else { return };
                    if !self.on(word).await {
                        return;
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(pause_ms.unwrap_or(0))), if pause_ms.is_some() => {}
            }
        }
    }

    /// `false`: the link is over.
    async fn on(&mut self, word: Word) -> bool {
        match word {
            Word::Open(Opening { stream_id, subject, wanted }, kept) => {
                if let Err(refusal) = self.sources.on_open(stream_id, wanted) {
                    return self.link.send(*refusal).await.is_ok();
                }
                self.files.insert(stream_id, Reading { subject, kept, file: None });
            }
            Word::Grant(stream_id, granted) => self.sources.on_grant(stream_id, granted),
            Word::Cancel(stream_id) => {
                self.sources.on_cancel(stream_id);
                self.files.remove(&stream_id);
            }
            Word::Receipt(received) => {
                if let Err(e) = self.sources.on_receipt(boottime_ms(), received) {
                    tracing::warn!("closing the link: {e}");
                    self.link
                        .close(Some(protocol::message::Goodbye { reason: e.to_string(), stopping: false }));
                    return false;
                }
            }
            Word::Complete(run_id) => {
                let of_run = self.files.iter().filter(|(_, reading)| reading.is_of(run_id));
                of_run.for_each(|(stream_id, _)| self.sources.on_hint(*stream_id));
            }
        }
        true
    }

    /// Reads for one stream and sends what was found; `false`: the link is over.
    async fn look(&mut self, look: Look) -> bool {
        let stream_id = look.stream_id;
        let Some(reading) = self.files.get(&stream_id).cloned() else {
            self.sources.on_cancel(stream_id);
            return true;
        };
        let (disk, identity) = (self.disk.clone(), self.identity.clone());
        let found = tokio::task::spawn_blocking(move || reading.look(&disk, &identity, look)).await;
        let frames = match found.unwrap_or_else(|e| Err(Unreadable::Now(e.to_string()))) {
            Ok((found, file)) => {
                let frames = self.sources.on_found(boottime_ms(), stream_id, found);
                self.keep(stream_id, file);
                frames
            }
            Err(unreadable) => {
                self.files.remove(&stream_id);
                let (reason, gone) = unreadable.told();
                self.sources.on_failed(stream_id, reason, gone).into_iter().collect()
            }
        };
        for frame in frames {
            let over = matches!(frame, Frame::StreamEnd(_));
            if self.link.send(frame).await.is_err() {
                return false;
            }
            if over {
                self.files.remove(&stream_id);
            }
        }
        true
    }

    fn keep(&mut self, stream_id: u64, file: Option<Reader>) {
        let idle = self.sources.is_idle(stream_id);
        if let Some(reading) = self.files.get_mut(&stream_id) {
            reading.file = file.filter(|file| !idle || matches!(file, Reader::Trace(_)));
        }
    }
}

impl Reading {
    fn is_of(&self, run: RunId) -> bool {
        match self.subject {
            Subject::File { run_id, .. } => run_id == run,
            Subject::Trace { .. } => false,
        }
    }

    fn look(
        self,
        disk: &Disk,
        identity: &IdentityFile,
        look: Look,
    ) -> Result<(Found, Option<Reader>), Unreadable> {
        let (run_id, which) = match self.subject {
            Subject::File { run_id, file } => (run_id, file),
            Subject::Trace { program, tail } => {
                return read_trace(disk, (program, tail), self.file, look)
                    .map(|(found, file)| (found, Some(file)))
                    .map_err(Unreadable::Now);
            }
        };
        // Whether the run is complete is asked first: then what is there is all that there will be.
        let complete = !self.kept.load(Ordering::Acquire);
        let nothing = Found { data: Vec::new(), size: 0, gap: None, complete };
        let file = match self.file {
            Some(Reader::Output(file)) => file,
            Some(Reader::Trace(_)) | None => match output::open(disk, run_id, which.as_ref())? {
                Output::Open(open) => Arc::new(open),
                Output::NotWritten => return Ok((nothing, None)),
                Output::NoRecord if complete => {
                    return Err(output::no_record(run_id, identity.expired_ms()));
                }
                Output::NoRecord => return Ok((nothing, None)), // it is being prepared
            },
        };
        let part = match look.gaps {
            true => file.read_beside_the_gap(look.offset, look.bytes_max),
            false => {
                let read = file.read(look.offset, look.bytes_max);
                read.map(|(data, size)| Part { data, size, gap: None })
            }
        };
        let part = part.map_err(Unreadable::Now)?;
        Ok((Found { data: part.data, size: part.size, gap: part.gap, complete }, Some(Reader::Output(file))))
    }
}

/// A trace is never complete.
fn read_trace(
    disk: &Disk,
    (program, tail): (Option<TraceKind>, Option<u64>),
    open: Option<Reader>,
    look: Look,
) -> Result<(Found, Reader), String> {
    let program = program.ok_or("this agent has no such program")?.program();
    let failed = |e: io::Error| {
        if e.kind() == io::ErrorKind::NotFound {
            format!("{program} has traced nothing here")
        } else {
            format!("the trace of {program} cannot be read: {e}")
        }
    };
    let reader = match open {
        Some(Reader::Trace(reader)) => reader,
        Some(Reader::Output(_)) | None => {
            let reader = TraceReader::open(&disk.root.trace_dir(), program, tail.unwrap_or(u64::MAX));
            Arc::new(Mutex::new(reader.map_err(failed)?))
        }
    };
    let (data, size) = {
        let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.read(look.offset, look.bytes_max).map_err(failed)?
    };
    Ok((Found { data, size, gap: None, complete: false }, Reader::Trace(reader)))
}

//! What jobs wrote, and files that were kept of them, read from their agents as streams (protocol 2): a task for each reader, and one for each connection that says what arrived.
//!
//! Memory is bounded twice: what one reader has not taken, by the credit of its stream (`protocol::stream::Sink`); what all readers of this
//! server have not taken, by [`UNREAD_BYTES_MAX`], of which every stream reserves its credit. A reader that does not take its bytes stalls its
//! own stream. The session that hands over the pieces never waits for a reader.

use super::by_piece;
use super::directory::{ANSWER_MAX, Directory, Live, QueryError};
use job::RunId;
use protocol::convert::run_id_field;
use protocol::frame::{Frame, kind};
use protocol::message::{
    StreamCancel, StreamEnd, StreamGrant, StreamOpen, StreamPiece, StreamReceipt, TraceKind,
};
use protocol::stream::{Sink, StreamError, WINDOW_BYTES_MIN, Which};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

/// What all readers of this server may have waiting; a thousand of them, if none is quick.
pub(super) const UNREAD_BYTES_MAX: usize = 64 << 20;
/// Pieces between a stream's task and its reader, beside its credit.
pub(super) const PIECES_WAITING_MAX: usize = 1;

/// What somebody wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The run that wrote it.
    pub run: RunId,
    /// Which of its files.
    pub which: Which,
    /// From this byte, or from the end if that comes first.
    pub offset: u64,
    /// At most so many bytes.
    pub bytes_max: Option<u64>,
    /// What is written later too, until the run is complete.
    pub follow: bool,
}

/// What somebody wants to read of what an agent traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceWanted {
    /// Which of its programs.
    pub program: TraceKind,
    /// So many bytes before its end, from the beginning of a line on.
    pub tail: u64,
    /// What is written later too, for ever.
    pub follow: bool,
}

/// What is read, from its beginning on. Dropping it ends the reading.
#[derive(Debug)]
pub struct Output {
    /// Where it begins.
    pub offset: u64,
    /// The size of the file at the beginning.
    pub size: u64,
    /// The file had its last byte already.
    pub complete: bool,
    /// What the output limit left out of the file by then; the bytes skip it. If it grows before they come to it, they end where it begins.
    pub gap: Option<Range<u64>>,
    pieces: mpsc::Receiver<Result<Vec<u8>, QueryError>>,
}

impl Output {
    pub(super) fn new(
        (offset, size, complete): (u64, u64, bool),
        gap: Option<Range<u64>>,
    ) -> (mpsc::Sender<Result<Vec<u8>, QueryError>>, Output) {
        let (reader, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        (reader, Output { offset, size, complete, gap, pieces })
    }

    /// The output of something that wrote nothing and never will.
    pub fn nothing() -> Output {
        Output::new((0, 0, true), None).1
    }

    /// The next bytes; after an error, and at the end, there are none.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, QueryError>> {
        self.pieces.recv().await
    }

    /// The same for who polls.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, QueryError>>> {
        self.pieces.poll_recv(context)
    }
}

impl Directory {
    /// Reads what a run wrote. The answer comes with the first word of the agent; what follows comes as fast as it is taken.
    pub async fn output(&self, agent: &str, wanted: Wanted) -> Result<Output, QueryError> {
        let live = self.get(agent).ok_or_else(|| QueryError::Away(agent.to_owned()))?;
        if live.sender.speaks(kind::STREAM_OPEN) {
            let (stream, file) = match wanted.which {
                Which::Output(kind) => (Some(kind as i32), None),
                Which::Kept(name) => (None, Some(name)),
            };
            let wanted = StreamOpen {
                run_id: run_id_field(wanted.run),
                stream,
                file,
                offset: Some(wanted.offset),
                bytes_max: wanted.bytes_max,
                follow: wanted.follow,
                gaps: true,
                ..StreamOpen::default()
            };
            open(self, agent, live, wanted).await
        } else {
            by_piece::open(self.clone(), agent.to_owned(), wanted).await
        }
    }

    /// Reads what an agent traced, like output.
    pub async fn trace(&self, agent: &str, wanted: TraceWanted) -> Result<Output, QueryError> {
        let live = self.get(agent).ok_or_else(|| QueryError::Away(agent.to_owned()))?;
        self.check_speaks(agent, kind::STREAM_OPEN, "logs")?;
        let wanted = StreamOpen {
            run_id: run_id_field(RunId::new(0, 0)),
            trace: Some(wanted.program as i32),
            tail: Some(wanted.tail),
            follow: wanted.follow,
            ..StreamOpen::default()
        };
        open(self, agent, live, wanted).await
    }
}

/// The streams of one session.
#[derive(Default)]
pub(super) struct Streams {
    open: Mutex<HashMap<u64, Entry>>,
    last_id: AtomicU64,
    /// Bytes of pieces on this connection.
    received: AtomicU64,
    arrived: Notify,
}

struct Entry {
    sink: Arc<Mutex<Sink>>,
    words: mpsc::UnboundedSender<Word>,
}

/// What the agent says of one stream. Bounded by its credit.
enum Word {
    Piece(StreamPiece),
    End(StreamEnd),
}

impl Streams {
    /// A piece came; an error ends the connection. One that nobody reads any more is dropped.
    pub(super) fn on_piece(&self, piece: StreamPiece) -> Result<(), StreamError> {
        self.received.fetch_add(piece.data.len() as u64, Ordering::Relaxed);
        self.arrived.notify_one();
        if let Some(entry) = piece.stream_id.and_then(|id| self.lock().get(&id).cloned()) {
            lock(&entry.sink).on_piece(&piece)?;
            let _ = entry.words.send(Word::Piece(piece)); // a reader that goes takes its entry with it
        }
        Ok(())
    }

    /// A stream is over.
    pub(super) fn on_end(&self, end: StreamEnd) {
        if let Some(entry) = end.stream_id.and_then(|id| self.lock().remove(&id)) {
            let _ = entry.words.send(Word::End(end));
        }
    }

    /// The session is over: who reads is told by the silence of its queue.
    pub(super) fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        lock(&self.open)
    }
}

impl Clone for Entry {
    fn clone(&self) -> Entry {
        Entry { sink: Arc::clone(&self.sink), words: self.words.clone() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what arrived, until the link is over. Many pieces that come together are one word.
pub(super) async fn say_receipts(live: Arc<Live>) {
    loop {
        tokio::select! {
            () = live.streams.arrived.notified() => {}
            () = live.sender.closed() => return,
        }
        let received = Some(live.streams.received.load(Ordering::Relaxed));
        if live.sender.send(Frame::StreamReceipt(StreamReceipt { received })).await.is_err() {
            return;
        }
    }
}

/// One stream, as its reader's task has it. Going, it tells the agent.
struct Stream {
    agent: String,
    live: Arc<Live>,
    id: u64,
    sink: Arc<Mutex<Sink>>,
    words: mpsc::UnboundedReceiver<Word>,
    over: bool,
    budget: Arc<Semaphore>,
    reserved: OwnedSemaphorePermit,
}

async fn open(
    directory: &Directory,
    agent: &str,
    live: Arc<Live>,
    wanted: StreamOpen,
) -> Result<Output, QueryError> {
    let mut stream = Stream::new(directory.unread(), agent, live)?;
    let first = tokio::time::timeout(ANSWER_MAX, stream.begin(wanted));
    let timed_out = |_| QueryError::TimedOut { agent: agent.to_owned(), seconds: ANSWER_MAX.as_secs() };
    let first = first.await.map_err(timed_out)??;
    let head = (first.offset.unwrap_or(0), first.size.unwrap_or(0), first.complete);
    let (reader, output) = Output::new(head, first.gap());
    tokio::spawn(stream.pump(first, reader));
    Ok(output)
}

impl Stream {
    fn new(budget: Arc<Semaphore>, agent: &str, live: Arc<Live>) -> Result<Stream, QueryError> {
        let reserved = Arc::clone(&budget).try_acquire_many_owned(permits(WINDOW_BYTES_MIN));
        let reserved = reserved.map_err(|_| QueryError::Crowded)?;
        let id = live.streams.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (sink, (into, words)) = (Arc::<Mutex<Sink>>::default(), mpsc::unbounded_channel());
        live.streams.lock().insert(id, Entry { sink: Arc::clone(&sink), words: into });
        Ok(Stream { agent: agent.to_owned(), live, id, sink, words, over: false, budget, reserved })
    }

    /// Asks for it and waits for the first word.
    async fn begin(&mut self, wanted: StreamOpen) -> Result<StreamPiece, QueryError> {
        let granted = Some(lock(&self.sink).granted());
        let open = StreamOpen { stream_id: Some(self.id), granted, ..wanted };
        self.live.sender.send(Frame::StreamOpen(open)).await.map_err(|_| self.away())?;
        match self.next().await? {
            Some(first) => Ok(first),
            None => Err(self.failed("it ended a stream before it began")),
        }
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<StreamPiece>, QueryError> {
        match self.words.recv().await {
            Some(Word::Piece(piece)) => Ok(Some(piece)),
            Some(Word::End(end)) => {
                self.over = true;
                match end.failed {
                    Some(reason) if end.gone => Err(QueryError::Gone { agent: self.agent.clone(), reason }),
                    Some(reason) => Err(self.failed(&reason)),
                    None => Ok(None),
                }
            }
            None => {
                self.over = true;
                Err(self.away())
            }
        }
    }

    /// Hands piece after piece to the reader, until it is over, or the reader is gone, or something is left out that the reader was not told of.
    async fn pump(mut self, first: StreamPiece, reader: mpsc::Sender<Result<Vec<u8>, QueryError>>) {
        let told = first.gap();
        let (mut due, mut next) = (first.offset.unwrap_or(0), first);
        loop {
            let (begin, bytes) = (next.offset.unwrap_or(0), next.data.len() as u64);
            let is_told = |gap: &Range<u64>| gap.contains(&due) && gap.end == begin;
            if begin != due && !told.as_ref().is_some_and(is_told) {
                return;
            }
            due = begin + bytes;
            if bytes > 0 && reader.send(Ok(next.data)).await.is_err() {
                return;
            }
            self.grant(bytes).await;
            let piece = tokio::select! {
                piece = self.next() => piece,
                () = reader.closed() => return,
            };
            next = match piece {
                Ok(Some(piece)) => piece,
                Ok(None) => return,
                Err(error) => {
                    let _ = reader.send(Err(error)).await; // a reader that is gone needs no reason
                    return;
                }
            };
        }
    }

    /// The reader took so many bytes.
    async fn grant(&mut self, bytes: u64) {
        let granted = {
            let mut sink = lock(&self.sink);
            let granted = sink.on_taken(bytes);
            if sink.wants_more()
                && let Ok(more) = Arc::clone(&self.budget).try_acquire_many_owned(permits(sink.window()))
            {
                self.reserved.merge(more);
                sink.widen();
            }
            granted
        };
        let Some(granted) = granted else { return };
        let grant = StreamGrant { stream_id: Some(self.id), granted: Some(granted) };
        let _over = self.live.sender.send(Frame::StreamGrant(grant)).await.is_err(); // the next word says so
    }

    fn away(&self) -> QueryError {
        QueryError::Away(self.agent.clone())
    }

    fn failed(&self, reason: &str) -> QueryError {
        QueryError::Failed { agent: self.agent.clone(), reason: reason.to_owned() }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.live.streams.lock().remove(&self.id);
        if self.over || self.live.sender.is_closed() {
            return;
        }
        let (sender, stream_id) = (self.live.sender.clone(), Some(self.id));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { sender.send(Frame::StreamCancel(StreamCancel { stream_id })).await });
        }
    }
}

fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

//! One connection to a peer that proved itself, as the programs see it.
//!
//! Memory is bounded by bytes: every frame that waits holds its share of the room of its lane until it is written (or, coming in,
//! until it is taken). A lane that is full makes its senders wait; an inbox that is full makes the reader wait, and so the peer.

use crate::drive;
use crate::{Closed, LinkError};
use protocol::frame::{FrameDecoder, Lane, since};
use protocol::message::Goodbye;
use protocol::session::{Session, Timing};
use protocol::{Frame, Role};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

/// Room for urgent frames that wait to be written.
const URGENT_BYTES_MAX: u32 = 6 << 20;
/// Room for questions and answers that wait to be written.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Room for output that waits to be written: what waits here is old already when it goes.
const OUTPUT_BYTES_MAX: u32 = 128 << 10;
/// Room for frames that came and were not taken.
const INBOX_BYTES_MAX: u32 = 6 << 20;
/// What a frame takes in memory beside its bytes.
const FRAME_OVERHEAD_BYTES: u32 = 512;

/// A connection to a peer that proved itself. Dropping the receiver closes it: a link that nobody reads is over.
#[derive(Debug)]
pub struct Link {
    /// Who is at the other end.
    pub peer: Peer,
    /// To it.
    pub sender: Sender,
    /// From it.
    pub receiver: Receiver,
}

/// Who is at the other end of a link, as it proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The agent's name, or the server node's.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// Where it was reached, or where it came from.
    pub address: SocketAddr,
    /// The protocol version that both speak on this link.
    pub version: u32,
    /// Whether we dialled.
    pub dialled_by_us: bool,
}

/// Puts frames on the link.
///
/// Three lanes (`protocol::frame::Lane`). Whoever waits in `send` within the same task that receives, stops receiving: a program that
/// answers much sends from another task.
#[derive(Clone, Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    version: u32,
    lanes: Lanes<(mpsc::UnboundedSender<Held>, Arc<Semaphore>)>,
}

/// One of something for each lane.
#[derive(Clone, Debug)]
pub(crate) struct Lanes<T> {
    pub(crate) urgent: T,
    pub(crate) request: T,
    pub(crate) output: T,
}

/// Takes frames from the link.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Held>,
}

/// A frame that holds its share of the room where it waits.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) frame: Frame,
    _room: OwnedSemaphorePermit,
}

impl Held {
    pub(crate) fn new(frame: Frame, room: OwnedSemaphorePermit) -> Held {
        Held { frame, _room: room }
    }
}

/// The life of a link.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Open,
    /// We take our leave: with a goodbye, what waits goes first.
    Closing(Option<Goodbye>),
    Over(LinkError),
}

/// What the two tasks and the two handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) session: Mutex<Session>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) silence_max: Duration,
    pub(crate) tick: Duration,
    pub(crate) inbox_room: Arc<Semaphore>,
    lane_rooms: Lanes<Arc<Semaphore>>,
    began: Instant,
    /// When the peer's last bytes came, by the wall clock in Unix milliseconds: for people, nothing is decided by it.
    heard_at_ms: AtomicI64,
}

/// What a frame takes of a lane's room; a frame that is bigger than a lane takes all of it.
pub(crate) fn room_for(frame: &Frame, lane_bytes_max: u32) -> u32 {
    let bytes = u32::try_from(frame.encoded_len()).unwrap_or(u32::MAX);
    bytes.saturating_add(FRAME_OVERHEAD_BYTES).min(lane_bytes_max)
}

impl Shared {
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Bytes came.
    pub(crate) fn set_heard(&self) {
        self.heard_at_ms.store(os::clock::wall_ms(), Ordering::Relaxed);
    }

    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first reason counts.
    pub(crate) fn set_over(&self, reason: LinkError) {
        self.phase.send_if_modified(|phase| match phase {
            Phase::Open => {
                *phase = Phase::Over(reason);
                true
            }
            Phase::Closing(_) => {
                *phase = Phase::Over(LinkError::ClosedByUs);
                true
            }
            Phase::Over(_) => false,
        });
        let Lanes { urgent, request, output } = &self.lane_rooms;
        for room in [urgent, request, output, &self.inbox_room] {
            room.close();
        }
    }

    fn set_closing(&self, goodbye: Option<Goodbye>) {
        self.phase.send_if_modified(|phase| match phase {
            Phase::Open => {
                *phase = Phase::Closing(goodbye);
                true
            }
            Phase::Closing(_) | Phase::Over(_) => false,
        });
    }

    pub(crate) fn inbox_room_for(&self, frame: &Frame) -> u32 {
        room_for(frame, INBOX_BYTES_MAX)
    }
}

impl Link {
    /// Starts the two tasks over an authenticated stream; `decoder` may hold bytes that came already.
    pub(crate) fn start<IO>(stream: IO, peer: Peer, timing: Timing, decoder: FrameDecoder) -> Link
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let room = |bytes_max: u32| Arc::new(Semaphore::new(bytes_max as usize));
        let rooms = Lanes {
            urgent: room(URGENT_BYTES_MAX),
            request: room(REQUEST_BYTES_MAX),
            output: room(OUTPUT_BYTES_MAX),
        };
        let (urgent, urgent_queue) = mpsc::unbounded_channel();
        let (request, request_queue) = mpsc::unbounded_channel();
        let (output, output_queue) = mpsc::unbounded_channel();
        let (inbox_in, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            session: Mutex::new(Session::new(peer.role.other(), peer.version, timing, 0)),
            phase: watch::Sender::new(Phase::Open),
            silence_max: Duration::from_millis(timing.silence_ms_max),
            tick: Duration::from_millis((timing.heartbeat_ms / 4).max(1)),
            inbox_room: room(INBOX_BYTES_MAX),
            lane_rooms: rooms.clone(),
            began: Instant::now(),
            heard_at_ms: AtomicI64::new(os::clock::wall_ms()),
        });
        let queues = Lanes { urgent: urgent_queue, request: request_queue, output: output_queue };
        drive::spawn(stream, shared.clone(), decoder, inbox_in, queues);
        let lanes = Lanes {
            urgent: (urgent, rooms.urgent),
            request: (request, rooms.request),
            output: (output, rooms.output),
        };
        let sender = Sender { shared: shared.clone(), version: peer.version, lanes };
        Link { peer, sender, receiver: Receiver { shared, inbox } }
    }
}

impl Sender {
    /// Waits for room, then puts the frame on the link; `Ok` does not mean that it arrived.
    ///
    /// A frame that is longer than any peer takes, or that this peer is too old for, is traced and left out; see [`Frame::fits`]
    /// and [`Sender::speaks`].
    pub async fn send(&self, frame: Frame) -> Result<(), Closed> {
        if !frame.fits() || frame.since() > self.version {
            tracing::error!(
                frame = frame.name(),
                bytes = frame.encoded_len(),
                speaks = self.version,
                needs = frame.since(),
                "a frame is too long to be sent, or the peer is too old for it; it was left out"
            );
            return if self.is_closed() { Err(Closed) } else { Ok(()) };
        }
        let ((queue, room), bytes_max) = match frame.lane() {
            Lane::Urgent => (&self.lanes.urgent, URGENT_BYTES_MAX),
            Lane::Request => (&self.lanes.request, REQUEST_BYTES_MAX),
            Lane::Output => (&self.lanes.output, OUTPUT_BYTES_MAX),
        };
        let room = room.clone().acquire_many_owned(room_for(&frame, bytes_max)).await.map_err(|_| Closed)?;
        match *self.shared.phase.borrow() {
            Phase::Open => queue.send(Held::new(frame, room)).map_err(|_| Closed),
            Phase::Closing(_) | Phase::Over(_) => Err(Closed),
        }
    }

    /// Whether the peer is new enough for frames of this kind (`protocol::frame::kind`).
    pub fn speaks(&self, kind: u16) -> bool {
        since(kind).is_some_and(|since| since <= self.version)
    }

    /// The peer's last sign of life, heartbeats included: Unix milliseconds by this host's wall clock.
    pub fn heard_at_ms(&self) -> i64 {
        self.shared.heard_at_ms.load(Ordering::Relaxed)
    }

    /// Ends the link: with a goodbye, what waits to be sent (but answers and output) goes first and the goodbye after it, as far as a
    /// short time allows; without one, at once. Only the first call counts.
    pub fn close(&self, goodbye: Option<Goodbye>) {
        self.shared.set_closing(goodbye);
    }

    /// Whether the link is over or about to be.
    pub fn is_closed(&self) -> bool {
        !matches!(*self.shared.phase.borrow(), Phase::Open)
    }

    /// Waits until the link is over.
    pub async fn closed(&self) {
        wait_over(&self.shared).await;
    }
}

impl Receiver {
    /// The next frame; after an error there is none. May be given up and called again without losing a frame.
    ///
    /// A goodbye of the peer comes as [`LinkError::Goodbye`]; pings, pongs and kinds that are not known never come.
    pub async fn recv(&mut self) -> Result<Frame, LinkError> {
        match self.inbox.recv().await {
            Some(held) => Ok(held.frame),
            None => Err(wait_over(&self.shared).await),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.set_closing(None);
    }
}

async fn wait_over(shared: &Shared) -> LinkError {
    let mut phase = shared.phase.subscribe();
    let over = phase.wait_for(|phase| matches!(phase, Phase::Over(_))).await;
    match over.as_deref() {
        Ok(Phase::Over(reason)) => reason.clone(),
        Ok(Phase::Open | Phase::Closing(_)) | Err(_) => LinkError::ClosedByUs,
    }
}

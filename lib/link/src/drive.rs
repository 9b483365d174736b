//! The two tasks of a link: one reads, one writes. Each ends when the link is over; when both have ended, the connection is closed.
//!
//! The way out, by who begins it:
//!
//! | begun by                    | reader                                | writer                                     |
//! |-----------------------------|---------------------------------------|--------------------------------------------|
//! | the peer's goodbye, its end | sets the reason, ends                 | ends at once                               |
//! | our goodbye                 | reads on, so that the goodbye is not lost to a reset | writes what waits, the goodbye, TLS's end |
//! | our close without one       | ends at once                          | ends at once                               |
//! | silence, stalled writing    | ends at once                          | sets the reason, ends                      |

use crate::LinkError;
use crate::auth::is_hang_up;
use crate::link::{Held, Lanes, Phase, Shared};
use protocol::Frame;
use protocol::frame::FrameDecoder;
use protocol::message::Goodbye;
use protocol::session::{Command, Received};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// What is read at once: one TLS record.
const READ_BYTES: usize = 16 << 10;
/// Frames are collected up to here and written together.
const BATCH_BYTES: usize = 64 << 10;
/// For what waits and the goodbye to be written, and for the peer to hang up.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pongs and the like that wait; beyond that they are left out, for the peer sees signs of life enough.
const REPLIES_MAX: usize = 16;

/// Starts both tasks.
pub(crate) fn spawn<IO>(
    stream: IO,
    shared: Arc<Shared>,
    decoder: FrameDecoder,
    inbox: mpsc::UnboundedSender<Held>,
    lanes: Lanes<mpsc::UnboundedReceiver<Held>>,
) where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(stream);
    let (replies_in, replies) = mpsc::channel(REPLIES_MAX);
    let reader = Reader { shared: shared.clone(), stream: read, decoder, inbox, replies: replies_in };
    let batch = Vec::new();
    let writer =
        Writer { shared: shared.clone(), stream: write, lanes, replies, batch, tick_at: Instant::now() };
    tokio::spawn(until_stopped(shared.clone(), reader.run()));
    tokio::spawn(until_stopped(shared, writer.run()));
}

/// Runs one side until it is done or the link must end.
async fn until_stopped(shared: Arc<Shared>, side: impl Future<Output = LinkError>) {
    let reason = tokio::select! {
        biased;
        () = must_stop(&shared) => LinkError::ClosedByUs,
        reason = side => reason,
    };
    shared.set_over(reason);
}

/// Waits until there is nothing more to be said or read.
async fn must_stop(shared: &Shared) {
    let mut phase = shared.phase.subscribe();
    let takes_leave = match phase.wait_for(|phase| !matches!(phase, Phase::Open)).await.as_deref() {
        Ok(Phase::Closing(Some(_))) => true,
        Ok(Phase::Closing(None) | Phase::Open | Phase::Over(_)) | Err(_) => false,
    };
    if takes_leave {
        let over = phase.wait_for(|phase| matches!(phase, Phase::Over(_)));
        let _late = timeout(GOODBYE_TIMEOUT, over).await.is_err();
    }
}

struct Reader<IO> {
    shared: Arc<Shared>,
    stream: ReadHalf<IO>,
    decoder: FrameDecoder,
    inbox: mpsc::UnboundedSender<Held>,
    replies: mpsc::Sender<Frame>,
}

impl<IO: AsyncRead + AsyncWrite> Reader<IO> {
    async fn run(mut self) -> LinkError {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            if let Err(reason) = self.take_frames().await {
                return reason;
            }
            match self.stream.read(&mut bytes).await {
                Ok(0) => return LinkError::PeerGone,
                Ok(n) => self.decoder.feed(&bytes[..n]),
                Err(error) => return broken("read from", error),
            }
            self.shared.set_heard();
            self.shared.session().on_bytes(self.shared.now_ms());
        }
    }

    async fn take_frames(&mut self) -> Result<(), LinkError> {
        while let Some(frame) = self.decoder.take()? {
            let received = self.shared.session().on_frame(self.shared.now_ms(), &frame)?;
            match received {
                Received::Deliver => self.deliver(frame).await,
                Received::Pong(pong) => self.reply(pong.into()),
                Received::Unsupported(unsupported) => {
                    tracing::debug!(
                        kind = unsupported.kind,
                        "the peer sent a kind of frame of a newer version"
                    );
                    self.reply(unsupported.into());
                }
                Received::Nothing => {}
                Received::Over(Goodbye { reason, stopping }) => {
                    return Err(LinkError::Goodbye { reason, stopping });
                }
            }
        }
        Ok(())
    }

    /// Waits for room in the inbox: then the peer waits too. That silence is not the peer's.
    async fn deliver(&mut self, frame: Frame) {
        let room = self.shared.inbox_room_for(&frame);
        let room = match self.shared.inbox_room.clone().try_acquire_many_owned(room) {
            Ok(room) => Ok(room),
            Err(_) => {
                self.shared.session().on_paused();
                let room = self.shared.inbox_room.clone().acquire_many_owned(room).await;
                self.shared.session().on_resumed(self.shared.now_ms());
                room
            }
        };
        // No room, no receiver: the link is ending, and nobody waits for this frame.
        if let Ok(room) = room {
            let _nobody = self.inbox.send(Held::new(frame, room)).is_err();
        }
    }

    fn reply(&self, frame: Frame) {
        let _full = self.replies.try_send(frame).is_err();
    }
}

struct Writer<IO> {
    shared: Arc<Shared>,
    stream: WriteHalf<IO>,
    lanes: Lanes<mpsc::UnboundedReceiver<Held>>,
    replies: mpsc::Receiver<Frame>,
    batch: Vec<u8>,
    tick_at: Instant,
}

impl<IO: AsyncRead + AsyncWrite> Writer<IO> {
    async fn run(mut self) -> LinkError {
        match self.write_until_closing().await {
            Err(reason) => reason,
            Ok(goodbye) => {
                if let Err(reason) = self.take_leave(goodbye).await {
                    return reason;
                }
                // The reader sees the peer hang up; `must_stop` ends the wait for one that does not.
                sleep(GOODBYE_TIMEOUT).await;
                LinkError::ClosedByUs
            }
        }
    }

    async fn write_until_closing(&mut self) -> Result<Goodbye, LinkError> {
        let mut phase = self.shared.phase.subscribe();
        loop {
            if let Phase::Closing(Some(goodbye)) = &*phase.borrow_and_update() {
                return Ok(goodbye.clone());
            }
            if Instant::now() >= self.tick_at {
                self.on_tick()?;
            }
            self.collect()?;
            if !self.batch.is_empty() {
                self.write_batch().await?;
                continue;
            }
            tokio::select! {
                changed = phase.changed() => if changed.is_err() { return Err(LinkError::ClosedByUs) },
                Some(frame) = self.replies.recv() => self.put(&frame)?,
                Some(held) = self.lanes.urgent.recv() => self.put(&held.frame)?,
                Some(held) = self.lanes.request.recv() => self.put(&held.frame)?,
                Some(held) = self.lanes.output.recv() => self.put(&held.frame)?,
                () = sleep_until(self.tick_at) => {}
            }
        }
    }

    /// Fills the batch with what waits: all that is urgent up to the limit, then at most one frame of each other lane.
    fn collect(&mut self) -> Result<(), LinkError> {
        self.collect_urgent()?;
        if let Ok(held) = self.lanes.request.try_recv() {
            self.put(&held.frame)?;
        }
        if let Ok(held) = self.lanes.output.try_recv() {
            self.put(&held.frame)?;
        }
        Ok(())
    }

    fn collect_urgent(&mut self) -> Result<(), LinkError> {
        while self.batch.len() < BATCH_BYTES {
            if let Ok(frame) = self.replies.try_recv() {
                self.put(&frame)?;
            } else if let Ok(held) = self.lanes.urgent.try_recv() {
                self.put(&held.frame)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn put(&mut self, frame: &Frame) -> Result<(), LinkError> {
        self.shared.session().on_send(self.shared.now_ms(), frame)?;
        frame.encode(&mut self.batch);
        Ok(())
    }

    fn on_tick(&mut self) -> Result<(), LinkError> {
        self.tick_at = Instant::now() + self.shared.tick;
        let commands = self.shared.session().on_tick(self.shared.now_ms());
        for command in commands {
            match command {
                Command::Ping(ping) => self.put(&ping.into())?,
                Command::Close(reason) => return Err(reason.into()),
            }
        }
        Ok(())
    }

    async fn write_batch(&mut self) -> Result<(), LinkError> {
        let mut rest = &self.batch[..];
        let after = self.shared.silence_max;
        let stalled = |_| LinkError::WriteStalled { after };
        while !rest.is_empty() {
            let written = timeout(after, self.stream.write(rest)).await.map_err(stalled)?;
            match written {
                Ok(0) => return Err(LinkError::PeerGone),
                Ok(n) => rest = &rest[n..],
                Err(error) => return Err(broken("write to", error)),
            }
        }
        let flushed = timeout(after, self.stream.flush()).await.map_err(stalled)?;
        flushed.map_err(|error| broken("write to", error))?;
        self.batch.clear();
        if self.batch.capacity() > 2 * BATCH_BYTES {
            self.batch = Vec::new();
        }
        Ok(())
    }

    async fn take_leave(&mut self, goodbye: Goodbye) -> Result<(), LinkError> {
        loop {
            self.collect_urgent()?;
            if self.batch.is_empty() {
                break;
            }
            self.write_batch().await?;
        }
        self.put(&goodbye.into())?;
        self.write_batch().await?;
        self.stream.shutdown().await.map_err(|error| broken("close", error))
    }
}

fn broken(what: &'static str, error: std::io::Error) -> LinkError {
    match is_hang_up(&error) {
        true => LinkError::PeerGone,
        false => LinkError::Io { what, source: Arc::new(error) },
    }
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;

//! Connections between network-processors and servers: a stream of bytes each way, carried in segments that a network loses, doubles, delays and
//! overtakes, and puts together again at the other end, as TCP does it. What is above it sees stalls, dead peers, and late words of the dead.
//!
//! Each end has the protocol's own session and decoder, driven as `lib/link/src/drive.rs` does it. The proofs of the shared secret are not in it.

use crate::queue::Ms;
use crate::world::{Event, World};
use protocol::frame::{FRAME_BYTES_MAX, FrameDecoder};
use protocol::handshake::PROTOCOL_VERSION;
use protocol::message::Goodbye;
use protocol::session::{Command, Received, Session, Timing};
use protocol::{Frame, Role};
use std::collections::BTreeMap;

/// Of one segment, bytes.
const SEGMENT_BYTES_MAX: usize = 700;
/// Before a lost segment is sent again, milliseconds; it doubles.
const AGAIN_MS: Ms = 200;
/// A segment is lost so often at most.
const LOSSES_MAX: u32 = 6;
/// Between two looks at the clock of a session, milliseconds.
const TICK_MS: Ms = 1_250;

/// The number of a connection.
pub(crate) type Conn = usize;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Agent,
    Server,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Agent => Side::Server,
            Side::Server => Side::Agent,
        }
    }

    fn role(self) -> Role {
        match self {
            Side::Agent => Role::Agent,
            Side::Server => Role::Server,
        }
    }
}

/// The way between one host and the server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    pub(crate) latency_ms: Ms,
    pub(crate) jitter_ms: Ms,
    pub(crate) lost_percent: u64,
    pub(crate) doubled_percent: u64,
    /// Nothing passes before.
    pub(crate) cut_until_ms: Ms,
}

#[derive(Debug)]
struct End {
    is_open: bool,
    sent: usize,
    received: usize,
    early: BTreeMap<usize, Vec<u8>>,
    /// The peer closed behind this byte.
    fin: Option<usize>,
    decoder: FrameDecoder,
    session: Session,
}

/// A connection; its ends belong to processes.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) host: usize,
    /// The network-processor's instance.
    pub(crate) np: u64,
    /// The server's instance.
    pub(crate) server: u64,
    pub(crate) opened_ms: Ms,
    agent: End,
    at_server: End,
}

impl Connection {
    pub(crate) fn new(host: usize, np: u64, server: u64, now_ms: Ms) -> Connection {
        Connection {
            host,
            np,
            server,
            opened_ms: now_ms,
            agent: End::new(Side::Agent, now_ms),
            at_server: End::new(Side::Server, now_ms),
        }
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Agent => &mut self.agent,
            Side::Server => &mut self.at_server,
        }
    }

    pub(crate) fn is_open(&self, side: Side) -> bool {
        match side {
            Side::Agent => self.agent.is_open,
            Side::Server => self.at_server.is_open,
        }
    }

    /// The host's power went: nobody says goodbye.
    pub(crate) fn drop_end(&mut self, side: Side) {
        self.end(side).is_open = false;
    }
}

impl End {
    fn new(side: Side, now_ms: Ms) -> End {
        End {
            is_open: true,
            sent: 0,
            received: 0,
            early: BTreeMap::new(),
            fin: None,
            decoder: FrameDecoder::new(FRAME_BYTES_MAX),
            session: Session::new(side.role(), PROTOCOL_VERSION, Timing::default(), now_ms),
        }
    }

    /// What came in order, now with this segment.
    fn take_in(&mut self, offset: usize, bytes: Vec<u8>) -> Vec<u8> {
        if offset >= self.received {
            self.early.insert(offset, bytes);
        }
        let mut stream = Vec::new();
        while let Some(bytes) = self.early.remove(&self.received) {
            self.received += bytes.len();
            stream.extend(bytes);
        }
        stream
    }
}

impl World {
    pub(crate) fn watch_connection(&mut self, conn: Conn) {
        for side in [Side::Agent, Side::Server] {
            self.queue.after(TICK_MS, Event::LinkTick { conn, side });
        }
    }

    /// Sends a frame, if that end is open.
    pub(crate) fn send(&mut self, conn: Conn, side: Side, frame: &Frame) {
        let now_ms = self.queue.now_ms();
        let end = self.connections[conn].end(side);
        if !end.is_open {
            return;
        }
        if let Err(e) = end.session.on_send(now_ms, frame) {
            return self.oracle.fail(format!("our own program speaks out of turn: {e}"));
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let begin = end.sent;
        end.sent += bytes.len();
        for (ix, segment) in bytes.chunks(SEGMENT_BYTES_MAX).enumerate() {
            let offset = begin + ix * SEGMENT_BYTES_MAX;
            self.carry(conn, side, offset, segment);
        }
    }

    fn carry(&mut self, conn: Conn, from: Side, offset: usize, bytes: &[u8]) {
        let to = from.other();
        let way = self.ways[self.connections[conn].host];
        let copies = if self.rng.percent(way.doubled_percent) { 2 } else { 1 };
        for _ in 0..copies {
            let at_ms = self.arrival(way);
            self.queue.at(at_ms, Event::Segment { conn, to, offset, bytes: bytes.to_vec() });
        }
    }

    fn arrival(&mut self, way: Way) -> Ms {
        let begin = self.queue.now_ms().max(way.cut_until_ms);
        let mut delay_ms = way.latency_ms + self.rng.below(way.jitter_ms + 1);
        let mut again_ms = AGAIN_MS;
        for _ in 0..LOSSES_MAX {
            if !self.rng.percent(way.lost_percent) {
                break;
            }
            delay_ms += again_ms;
            again_ms *= 2;
        }
        begin + delay_ms
    }

    /// Closes one end: what it sent before arrives before.
    pub(crate) fn close(&mut self, conn: Conn, side: Side) {
        let end = self.connections[conn].end(side);
        if !std::mem::replace(&mut end.is_open, false) {
            return;
        }
        let offset = end.sent;
        let at_ms = self.arrival(self.ways[self.connections[conn].host]);
        self.queue.at(at_ms, Event::Fin { conn, to: side.other(), offset: Some(offset) });
    }

    /// Says why, and closes.
    pub(crate) fn goodbye(&mut self, conn: Conn, side: Side, reason: &str, stopping: bool) {
        self.send(conn, side, &Goodbye { reason: reason.to_owned(), stopping }.into());
        self.close(conn, side);
        self.on_closed(conn, side, false);
    }

    pub(crate) fn on_segment(&mut self, conn: Conn, to: Side, offset: usize, bytes: Vec<u8>) {
        let now_ms = self.queue.now_ms();
        if !self.connections[conn].is_open(to) {
            return self.reset(conn, to);
        }
        let end = self.connections[conn].end(to);
        let stream = end.take_in(offset, bytes);
        end.decoder.feed(&stream);
        end.session.on_bytes(now_ms);
        loop {
            let end = self.connections[conn].end(to);
            if !end.is_open {
                return;
            }
            match end.decoder.take() {
                Ok(None) => break,
                Ok(Some(frame)) => self.on_link_frame(conn, to, frame),
                Err(e) => return self.oracle.fail(format!("a stream cannot be read: {e}")),
            }
        }
        self.end_if_read(conn, to);
    }

    /// Whoever sends to an end that is closed is told so by the system, if there is one.
    fn reset(&mut self, conn: Conn, closed: Side) {
        let connection = &self.connections[conn];
        if closed == Side::Server || self.hosts[connection.host].is_powered {
            let at_ms = self.arrival(self.ways[connection.host]);
            self.queue.at(at_ms, Event::Fin { conn, to: closed.other(), offset: None });
        }
    }

    pub(crate) fn on_fin(&mut self, conn: Conn, to: Side, offset: Option<usize>) {
        let end = self.connections[conn].end(to);
        end.fin = Some(offset.unwrap_or(end.received));
        self.end_if_read(conn, to);
    }

    fn end_if_read(&mut self, conn: Conn, side: Side) {
        let end = self.connections[conn].end(side);
        if end.is_open && end.fin.is_some_and(|fin| fin <= end.received) {
            self.close(conn, side);
            self.on_closed(conn, side, false);
        }
    }

    fn on_link_frame(&mut self, conn: Conn, side: Side, frame: Frame) {
        let now_ms = self.queue.now_ms();
        match self.connections[conn].end(side).session.on_frame(now_ms, &frame) {
            Ok(Received::Deliver) => match side {
                Side::Agent => self.on_frame_at_agent(conn, frame),
                Side::Server => self.on_frame_at_server(conn, frame),
            },
            Ok(Received::Pong(pong)) => self.send(conn, side, &pong.into()),
            Ok(Received::Unsupported(_) | Received::Nothing) => {}
            Ok(Received::Over(goodbye)) => {
                self.close(conn, side);
                self.on_closed(conn, side, goodbye.stopping);
            }
            Err(e) => self.oracle.fail(format!("a peer spoke out of turn: {e}")),
        }
    }

    pub(crate) fn on_link_tick(&mut self, conn: Conn, side: Side) {
        let now_ms = self.queue.now_ms();
        let end = self.connections[conn].end(side);
        if !end.is_open {
            return;
        }
        for command in end.session.on_tick(now_ms) {
            match command {
                Command::Ping(ping) => self.send(conn, side, &ping.into()),
                Command::Close(_) => {
                    self.close(conn, side);
                    return self.on_closed(conn, side, false);
                }
            }
        }
        self.queue.after(TICK_MS, Event::LinkTick { conn, side });
    }

    /// An end of a connection is closed: its process hears it.
    fn on_closed(&mut self, conn: Conn, side: Side, stopping: bool) {
        match side {
            Side::Agent => self.on_link_over(conn),
            Side::Server => self.on_session_over(conn, stopping),
        }
    }
}

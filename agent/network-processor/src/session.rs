//! Sessions with servers: many may be linked, one is active: the last whose epoch was admitted.
//!
//! ```text
//! linked ──AgentHello──▶ candidate ──ServerHello, epoch admitted and written down──▶ active ──another becomes active, or the link ends──▶ over
//!                                   └─epoch refused──▶ closed with the reason
//! ```

use crate::agent::Agent;
use crate::event::Event;
use crate::resend::CatchingUp;
use crate::streams::Word;
use job::RunId;
use link::{Link, LinkError, Sender};
use protocol::message::{
    AgentHello, AgentState, Goodbye, InventoryItem, Position, RefusalKind, Refused, ServerHello,
    StreamCancel, StreamGrant, StreamReceipt,
};
use protocol::reconcile::{History, account_parts, history};
use protocol::{Frame, convert};
use spool::Fence;
use std::collections::HashMap;
use tokio::sync::mpsc;

/// Frames that wait for the link; a peer that takes no more is too slow to be talked to.
const FRAMES_WAITING_MAX: usize = 1024;
/// Room that is left for what is not facts.
const FRAMES_FOR_OTHERS: usize = 512;

/// Every link, and which one counts.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    links: HashMap<u64, Session>,
    active: Option<u64>,
    next: u64,
    /// Links that came while the runs of the last time were being read.
    early: Vec<Link>,
    /// Runs that were set aside while no server was there to be told. An account that was under way may still have named them.
    damaged: Vec<RunId>,
}

#[derive(Debug)]
struct Session {
    link: Sender,
    frames: mpsc::Sender<Frame>,
    server: String,
    /// What came while its epoch was being written down: it is not obeyed before.
    held: Option<Vec<Frame>>,
    /// Runs that are refused since it was given our account, which may still name them. Said when its server is obeyed.
    refused: Vec<Refused>,
}

/// An epoch was written down, or not, for a server that wants to be obeyed.
#[derive(Debug)]
pub(crate) struct Raised {
    session: u64,
    hello: ServerHello,
    fence: Fence,
    done: std::io::Result<()>,
}

impl Sessions {
    /// Whether that session is the one that may command.
    pub(crate) fn is_active(&self, session: u64) -> bool {
        self.active == Some(session)
    }

    /// Whether facts may be put on the active link now.
    pub(crate) fn has_room(&self) -> bool {
        self.active().is_some_and(|session| session.frames.capacity() > FRAMES_FOR_OTHERS)
    }

    /// The link of a session, for answers that take their time.
    pub(crate) fn link(&self, session: u64) -> Option<Sender> {
        self.links.get(&session).map(|session| session.link.clone())
    }

    /// Puts a frame on the active link, if there is one. What cannot be said now is said again after the next connection.
    pub(crate) fn send(&self, frame: Frame) {
        if let Some(session) = self.active()
            && session.frames.try_send(frame).is_err()
        {
            session
                .link
                .close(Some(Goodbye { reason: "you do not read what is sent".into(), stopping: false }));
        }
    }

    /// Keeps a refusal for servers that are not obeyed yet.
    fn keep(&mut self, refused: &Refused) {
        let active = self.active;
        let candidates = self.links.iter_mut().filter(|(id, _)| Some(**id) != active);
        candidates.for_each(|(_, session)| session.refused.push(refused.clone()));
    }

    /// Closes a link whose peer said what cannot be.
    pub(crate) fn complain(&self, session: u64, what: &str) {
        if let Some(session) = self.links.get(&session) {
            tracing::warn!(server = %session.server, "closing the link: {what}");
            session.link.close(Some(Goodbye { reason: what.to_owned(), stopping: false }));
        }
    }

    /// Says goodbye on every link and waits until it is said, or for two seconds.
    pub(crate) async fn goodbye(&mut self, reason: &str, stopping: bool) {
        for session in self.links.values() {
            session.link.close(Some(Goodbye { reason: reason.to_owned(), stopping }));
        }
        let all_closed = async {
            for session in self.links.values() {
                session.link.closed().await;
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), all_closed).await;
    }

    /// The active link, for much that takes its time.
    pub(crate) fn active_link(&self) -> Option<Sender> {
        self.active().map(|session| session.link.clone())
    }

    fn active(&self) -> Option<&Session> {
        self.active.and_then(|session| self.links.get(&session))
    }
}

impl Agent {
    /// A server proved itself: tell it who we are and what we have. While the directories of the last time are being read that has to wait a
    /// moment, so that the account is true.
    pub(crate) fn on_linked(&mut self, link: Link) {
        if self.unread > 0 {
            return self.sessions.early.push(link);
        }
        let id = self.sessions.next;
        self.sessions.next += 1;
        tracing::info!(server = %link.peer.name, address = %link.peer.address, dialled = link.peer.dialled_by_us, "linked");
        let (frames, queue) = mpsc::channel(FRAMES_WAITING_MAX);
        for hello in self.hellos() {
            let _ = frames.try_send(Frame::AgentHello(hello)); // a fresh queue has room
        }
        self.sessions.links.insert(
            id,
            Session {
                link: link.sender.clone(),
                frames,
                server: link.peer.name.clone(),
                held: None,
                refused: Vec::new(),
            },
        );
        tokio::spawn(write(link.sender, queue));
        let events = self.events.clone();
        let mut receiver = link.receiver;
        tokio::spawn(async move {
            loop {
                let event = match receiver.recv().await {
                    Ok(frame) => Event::Frame(id, Box::new(frame)),
                    Err(reason) => Event::Unlinked(id, reason),
                };
                let over = matches!(event, Event::Unlinked(..));
                if events.send(event).is_err() || over {
                    return;
                }
            }
        });
    }

    /// The scan of the start is over, or has taken long enough.
    pub(crate) fn greet_early(&mut self) {
        self.unread = 0;
        for link in std::mem::take(&mut self.sessions.early) {
            self.on_linked(link);
        }
    }

    /// Whether somebody waits for the scan of the start.
    pub(crate) fn has_early(&self) -> bool {
        !self.sessions.early.is_empty()
    }

    fn hellos(&self) -> Vec<AgentHello> {
        let inventory: Vec<InventoryItem> = self
            .runs
            .iter()
            .map(|(run_id, run)| InventoryItem {
                run_id: convert::run_id_field(*run_id),
                last_seq: Some(run.last_seq),
            })
            .collect();
        let (database_id, commit) = self.identity.acked;
        let last_acked =
            Position { database_id: Some(database_id.to_vec()), commit: Some(commit), ancestors: Vec::new() };
        let hello = AgentHello {
            agent_id: Some(self.identity.agent_id.0.to_vec()),
            incarnation: Some(self.identity.incarnation),
            boot_id: Some(self.disk.boot_id.to_vec()),
            epoch: Some(self.identity.fence.epoch),
            software: format!("lastword {}", env!("CARGO_PKG_VERSION")),
            platform: platform(),
            inventory,
            more: false,
            last_acked: (database_id != [0; 16]).then_some(last_acked),
            refusing: self.refusing.clone(),
        };
        account_parts(hello)
    }

    pub(crate) fn on_frame(&mut self, session: u64, frame: Frame) {
        if let Some(held) = self.sessions.links.get_mut(&session).and_then(|session| session.held.as_mut()) {
            return held.push(frame);
        }
        match frame {
            Frame::ServerHello(hello) => self.on_server_hello(session, hello),
            Frame::Start(start) => self.on_start(session, start),
            Frame::Kill(kill) => self.on_kill(session, kill),
            Frame::Suspend(order) => self.on_pause(session, order.run_id, order.epoch, true, order.by),
            Frame::Resume(order) => self.on_pause(session, order.run_id, order.epoch, false, order.by),
            Frame::Acks(acks) => self.on_acks(session, acks),
            Frame::Query(query) => self.on_query(session, query),
            Frame::StreamOpen(open) => self.on_stream_open(session, &open),
            Frame::StreamGrant(StreamGrant { stream_id: Some(stream_id), granted: Some(granted) }) => {
                self.on_stream_word(session, Word::Grant(stream_id, granted));
            }
            Frame::StreamCancel(StreamCancel { stream_id: Some(stream_id) }) => {
                self.on_stream_word(session, Word::Cancel(stream_id));
            }
            Frame::StreamReceipt(StreamReceipt { received: Some(received) }) => {
                self.on_stream_word(session, Word::Receipt(received));
            }
            Frame::StreamGrant(_) | Frame::StreamCancel(_) | Frame::StreamReceipt(_) => {
                self.sessions.complain(session, &format!("a frame {} lacks a field", frame.name()));
            }
            // The session of the link lets none of these through.
            Frame::AuthHello(_)
            | Frame::AuthProof(_)
            | Frame::AgentHello(_)
            | Frame::Facts(_)
            | Frame::Refused(_)
            | Frame::NoRecord(_)
            | Frame::AgentState(_)
            | Frame::Answer(_)
            | Frame::StreamPiece(_)
            | Frame::StreamEnd(_)
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Goodbye(_)
            | Frame::Unsupported(_)
            | Frame::Unknown { .. } => {}
        }
    }

    fn on_server_hello(&mut self, session: u64, hello: ServerHello) {
        if !self.sessions.links.contains_key(&session) {
            return;
        }
        let incarnation = hello.incarnation.as_deref().and_then(|i| <[u8; 16]>::try_from(i).ok());
        let (Some(epoch), Some(incarnation)) = (hello.epoch, incarnation) else {
            return self.sessions.complain(session, "a server hello without epoch or incarnation");
        };
        let fence = Fence { epoch, incarnation };
        let before = self.identity.fence;
        if fence == before {
            self.establish(session, hello);
        } else if before.admits(&fence) {
            self.raise(session, hello, fence);
        } else {
            let seen = before.epoch;
            let reason =
                format!("epoch {epoch} is not obeyed: this agent has seen epoch {seen} of another server");
            self.sessions.complain(session, &reason);
        }
    }

    /// Writes the epoch down before its server is obeyed; until then what the server says is kept.
    fn raise(&mut self, session: u64, hello: ServerHello, fence: Fence) {
        if let Some(session) = self.sessions.links.get_mut(&session) {
            session.held = Some(Vec::new());
        }
        let file = self.identity.file.clone();
        self.disk.spawn(move |_| {
            let done = file.raise(fence);
            Event::Raised(Box::new(Raised { session, hello, fence, done }))
        });
    }

    pub(crate) fn on_raised(&mut self, raised: Raised) {
        let Raised { session, hello, fence, mut done } = raised;
        // Two threads may have raised it one after the other and tell in another order.
        if done.is_ok() && self.identity.fence.admits(&fence) {
            self.identity.fence = fence;
            self.refused.clear(); // what was ordered in an earlier term is fenced
        } else if done.is_ok() {
            done = Err(std::io::Error::other("a server of a later epoch was admitted meanwhile"));
        }
        let held = self.sessions.links.get_mut(&session).and_then(|session| session.held.take());
        let Some(held) = held else { return };
        if let Err(e) = done {
            let reason = format!("epoch {} could not be written down: {e}", fence.epoch);
            return self.sessions.complain(session, &reason);
        }
        self.establish(session, hello);
        for frame in held {
            self.on_frame(session, frame);
        }
    }

    /// The server of this session is obeyed from now on.
    fn establish(&mut self, session: u64, hello: ServerHello) {
        let epoch = self.identity.fence.epoch;
        if let Some(before) = self.sessions.active.replace(session).filter(|before| *before != session) {
            self.sessions.complain(before, "replaced by a newer connection of a server");
            self.outbox.on_disconnected();
            self.waiting.clear();
        }
        let complete = match self.outbox.on_connected(&hello.known) {
            Ok(complete) => complete,
            Err(e) => return self.sessions.complain(session, &e.to_string()),
        };
        tracing::info!(epoch, runs = self.runs.len(), missing = hello.missing.len(), "session established");
        for (run_id, _) in complete {
            self.settle_if_over(run_id);
        }
        let refused =
            self.sessions.links.get_mut(&session).map(|session| std::mem::take(&mut session.refused));
        for refused in refused.unwrap_or_default() {
            self.say(Frame::Refused(refused));
        }
        for run_id in std::mem::take(&mut self.sessions.damaged) {
            self.report_damaged(run_id);
        }
        for missing in hello.missing {
            match RunId::from_bytes(&missing) {
                Ok(run_id) => self.account_for(run_id),
                Err(e) => return self.sessions.complain(session, &e.to_string()),
            }
        }
        self.start_awaited();
        self.check_history(&hello.position);
    }

    /// Puts a frame on the active link, or lets it wait for room there.
    pub(crate) fn say(&mut self, frame: Frame) {
        if self.waiting.is_empty() && self.sessions.has_room() {
            self.sessions.send(frame);
        } else if self.sessions.active_link().is_some() {
            self.waiting.push_back(frame); // said anew after the next connection if this one ends
        }
    }

    /// Says what waits, as far as there is room.
    pub(crate) fn say_waiting(&mut self) {
        while self.sessions.has_room() {
            let Some(frame) = self.waiting.pop_front() else { return };
            self.sessions.send(frame);
        }
    }

    /// A database that lacks what it once acknowledged gets the settled records again.
    fn check_history(&mut self, position: &Option<Position>) {
        let Some(now) = position else { return };
        let (database_id, commit) = self.identity.acked;
        let last = (database_id != [0; 16]).then(|| Position {
            database_id: Some(database_id.to_vec()),
            commit: Some(commit),
            ancestors: Vec::new(),
        });
        let acked = protocol::reconcile::read_position(now);
        match history(last.as_ref(), now) {
            Ok(told @ (History::Restored | History::WentBack { .. })) => {
                tracing::warn!(
                    "the server's database went back in time ({told:?}): the settled records are sent again"
                );
                if let Some(session) = self.sessions.active {
                    self.catching_up = acked.ok().map(|acked| CatchingUp::new(session, acked));
                }
                return self.resend_settled();
            }
            Ok(History::First | History::Onward | History::OtherDatabase) => {}
            Err(e) => tracing::warn!("the server's position cannot be read: {e}"),
        }
        self.catching_up = None;
        self.say_caught_up(&[]);
        if let Ok(acked) = acked {
            self.identity.acked = acked;
            self.identity.dirty = true;
        }
    }

    pub(crate) fn on_unlinked(&mut self, session: u64, reason: &LinkError) {
        let Some(over) = self.sessions.links.remove(&session) else { return };
        tracing::warn!(server = %over.server, "the link is over: {reason}");
        self.close_streams(session);
        if self.sessions.is_active(session) {
            self.sessions.active = None;
            self.outbox.on_disconnected();
            self.waiting.clear();
        }
    }

    /// Tells the server, if it is a change, that no new runs are taken and why (or that they are again).
    pub(crate) fn set_refusing(&mut self, refusing: String) {
        if self.refusing != refusing {
            match refusing.as_str() {
                "" => tracing::info!("new runs are taken again"),
                why => tracing::warn!("new runs are refused: {why}"),
            }
            self.refusing.clone_from(&refusing);
            self.say(Frame::AgentState(AgentState { refusing, ..AgentState::default() }));
        }
    }

    /// Says that a run's log is damaged, so that nobody can tell its outcome.
    pub(crate) fn report_damaged(&mut self, run_id: RunId) {
        if self.sessions.active.is_none() {
            return self.sessions.damaged.push(run_id);
        }
        let reason = format!(
            "the run's log on agent {} is damaged; it is kept in quarantine/{run_id}",
            self.config.name
        );
        self.say_refused(run_id, RefusalKind::Damaged, reason);
    }

    /// Says that a run is not taken, or not told.
    pub(crate) fn say_refused(&mut self, run_id: RunId, kind: RefusalKind, reason: String) {
        let refused = Refused { run_id: convert::run_id_field(run_id), kind: Some(kind as i32), reason };
        if kind != RefusalKind::Fenced {
            self.sessions.keep(&refused);
        }
        self.say(Frame::Refused(refused));
    }
}

/// Carries frames from the event loop to the link, which may make it wait.
async fn write(link: Sender, mut queue: mpsc::Receiver<Frame>) {
    while let Some(frame) = queue.recv().await {
        if link.send(frame).await.is_err() {
            return;
        }
    }
}

fn platform() -> String {
    let name = os::process::uname();
    format!("{} {} {} {}", name.node, name.system, name.release, name.machine)
}

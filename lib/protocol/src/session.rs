//! The conversation of one connection after the proofs: who may say what when, and how long silence lasts.
//!
//! ```text
//!  Opening ── the agent's last AgentHello ──▶ Answering ── ServerHello ──▶ Established
//!  agent: AgentHello (parts)                  agent: AgentState            server: Start, Kill, Suspend, Resume, Acks, Query, StreamOpen, …
//!                                                                          agent: Facts, Refused, NoRecord, AgentState, Answer, StreamPiece, …
//!  both, always: Ping, Pong, Goodbye, Unsupported, kinds of newer versions
//! ```
//!
//! The same machine watches both directions: what the peer says out of turn ends the connection, and so does what our own program
//! would say out of turn, since that is a defect and the peer would close anyway.
//!
//! A frame of a version above the one that both chose is, for this connection, a kind that is not known: it is passed over and answered so,
//! as the older peer itself would do.

use crate::message::{AgentHello, Goodbye, Ping, Pong, Unsupported};
use crate::{Frame, Role};
use std::fmt;

/// A ping is sent when nothing was sent for this long.
pub const HEARTBEAT_MS: u64 = 5_000;
/// A connection is closed when nothing was received for this long.
pub const SILENCE_MS_MAX: u64 = 20_000;
/// Runs in one inventory, all parts together.
pub const INVENTORY_RUNS_MAX: usize = 200_000;

/// The times that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Usually [`HEARTBEAT_MS`].
    pub heartbeat_ms: u64,
    /// Usually [`SILENCE_MS_MAX`].
    pub silence_ms_max: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { heartbeat_ms: HEARTBEAT_MS, silence_ms_max: SILENCE_MS_MAX }
    }
}

/// How far the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The agent gives its account.
    Opening {
        /// Parts that were said.
        parts: usize,
        /// Runs in them.
        runs: usize,
    },
    /// The server has it and has not answered.
    Answering,
    /// Both know where they stand.
    Established,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Opening { .. } => "before the agent's account of itself was complete",
            Stage::Answering => "before the server's answer to the agent's account",
            Stage::Established => "after both had introduced themselves",
        })
    }
}

/// The conversation cannot go on; the text is the line for the trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A frame that only the other part sends.
    #[error("the {speaker} sent a frame {frame}, which only the {} sends", speaker.other())]
    WrongDirection {
        /// Which frame.
        frame: &'static str,
        /// Who sent it.
        speaker: Role,
    },
    /// A frame whose time has not come, or is over.
    #[error("the {speaker} sent a frame {frame} {stage}")]
    OutOfTurn {
        /// Which frame.
        frame: &'static str,
        /// Who sent it.
        speaker: Role,
        /// When.
        stage: Stage,
    },
    /// A frame that the peer is too old for: whoever sends asks first.
    #[error("a frame {frame} was to be sent, which needs protocol {needs}; the peer speaks {speaks}")]
    TooNew {
        /// Which frame.
        frame: &'static str,
        /// The version of this connection.
        speaks: u32,
        /// The version that is needed.
        needs: u32,
    },
    /// More runs than an agent may have unsettled.
    #[error("the agent's inventory has more than {INVENTORY_RUNS_MAX} runs")]
    TooManyRuns,
    /// A part that says nothing but that there is more.
    #[error("the agent's inventory goes on without an end: a part has no runs")]
    EmptyPart,
    /// Nothing came.
    #[error("nothing was received for {silence_ms} ms: the peer or the way to it is gone")]
    Silence {
        /// For how long.
        silence_ms: u64,
    },
}

/// What to do with a frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Give it to the program.
    Deliver,
    /// It is done with; answer this if there is room.
    Pong(Pong),
    /// It is passed over; answer this if there is room.
    Unsupported(Unsupported),
    /// It is done with.
    Nothing,
    /// The peer takes its leave.
    Over(Goodbye),
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send this, if there is room: what fills the room is a sign of life too.
    Ping(Ping),
    /// Close, for this reason.
    Close(SessionError),
}

/// The machine of one side.
#[derive(Debug)]
pub struct Session {
    role: Role,
    version: u32,
    timing: Timing,
    stage: Stage,
    sent_at_ms: u64,
    received_at_ms: u64,
    /// The reader waits for our own program: then silence is our doing.
    paused: bool,
    pings: u64,
}

impl Session {
    /// Begins right after the proofs. `role`: ours. `version`: the one that both chose.
    pub fn new(role: Role, version: u32, timing: Timing, now_ms: u64) -> Session {
        Session {
            role,
            version,
            timing,
            stage: Stage::Opening { parts: 0, runs: 0 },
            sent_at_ms: now_ms,
            received_at_ms: now_ms,
            paused: false,
            pings: 0,
        }
    }

    /// A frame came from the peer.
    pub fn on_frame(&mut self, now_ms: u64, frame: &Frame) -> Result<Received, SessionError> {
        self.received_at_ms = now_ms;
        if frame.since() > self.version {
            return Ok(Received::Unsupported(Unsupported { kind: Some(u32::from(frame.kind())) }));
        }
        self.step(self.role.other(), frame)?;
        Ok(match frame {
            Frame::Ping(Ping { number }) => Received::Pong(Pong { number: *number }),
            Frame::Pong(_) | Frame::Unsupported(_) | Frame::Unknown { .. } => Received::Nothing,
            Frame::Goodbye(goodbye) => Received::Over(goodbye.clone()),
            Frame::AuthHello(_)
            | Frame::AuthProof(_)
            | Frame::AgentHello(_)
            | Frame::ServerHello(_)
            | Frame::Start(_)
            | Frame::Kill(_)
            | Frame::Suspend(_)
            | Frame::Resume(_)
            | Frame::Facts(_)
            | Frame::Acks(_)
            | Frame::Refused(_)
            | Frame::NoRecord(_)
            | Frame::AgentState(_)
            | Frame::Query(_)
            | Frame::Answer(_)
            | Frame::StreamOpen(_)
            | Frame::StreamGrant(_)
            | Frame::StreamCancel(_)
            | Frame::StreamPiece(_)
            | Frame::StreamEnd(_)
            | Frame::StreamReceipt(_) => Received::Deliver,
        })
    }

    /// Bytes came that are not yet a whole frame.
    pub fn on_bytes(&mut self, now_ms: u64) {
        self.received_at_ms = now_ms;
    }

    /// A frame is about to be sent.
    pub fn on_send(&mut self, now_ms: u64, frame: &Frame) -> Result<(), SessionError> {
        self.sent_at_ms = now_ms;
        if frame.since() > self.version {
            return Err(SessionError::TooNew {
                frame: frame.name(),
                speaks: self.version,
                needs: frame.since(),
            });
        }
        self.step(self.role, frame)
    }

    /// Nothing is read for a while because our own program is busy.
    pub fn on_paused(&mut self) {
        self.paused = true;
    }

    /// Reading goes on.
    pub fn on_resumed(&mut self, now_ms: u64) {
        self.paused = false;
        self.received_at_ms = now_ms;
    }

    /// To be called several times per heartbeat.
    pub fn on_tick(&mut self, now_ms: u64) -> Vec<Command> {
        let silence_ms = now_ms.saturating_sub(self.received_at_ms);
        if !self.paused && silence_ms >= self.timing.silence_ms_max {
            return vec![Command::Close(SessionError::Silence { silence_ms })];
        }
        if now_ms.saturating_sub(self.sent_at_ms) < self.timing.heartbeat_ms {
            return Vec::new();
        }
        self.sent_at_ms = now_ms;
        self.pings += 1;
        vec![Command::Ping(Ping { number: Some(self.pings) })]
    }

    /// How far the conversation is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    fn step(&mut self, speaker: Role, frame: &Frame) -> Result<(), SessionError> {
        let out_of_turn = Err(SessionError::OutOfTurn { frame: frame.name(), speaker, stage: self.stage });
        if only_from(frame).is_some_and(|role| role != speaker) {
            return Err(SessionError::WrongDirection { frame: frame.name(), speaker });
        }
        match (frame, self.stage) {
            (
                Frame::Ping(_)
                | Frame::Pong(_)
                | Frame::Goodbye(_)
                | Frame::Unsupported(_)
                | Frame::Unknown { .. },
                _,
            ) => Ok(()),
            (Frame::AgentHello(part), Stage::Opening { parts, runs }) => self.on_part(part, parts, runs),
            (Frame::ServerHello(_), Stage::Answering) => {
                self.stage = Stage::Established;
                Ok(())
            }
            (Frame::AgentState(_), Stage::Answering | Stage::Established) => Ok(()),
            (
                Frame::Start(_)
                | Frame::Kill(_)
                | Frame::Suspend(_)
                | Frame::Resume(_)
                | Frame::Acks(_)
                | Frame::Query(_)
                | Frame::Facts(_)
                | Frame::Refused(_)
                | Frame::NoRecord(_)
                | Frame::Answer(_)
                | Frame::StreamOpen(_)
                | Frame::StreamGrant(_)
                | Frame::StreamCancel(_)
                | Frame::StreamPiece(_)
                | Frame::StreamEnd(_)
                | Frame::StreamReceipt(_),
                Stage::Established,
            ) => Ok(()),
            (Frame::AuthHello(_) | Frame::AuthProof(_), _) => out_of_turn,
            (Frame::AgentHello(_), Stage::Answering | Stage::Established)
            | (Frame::ServerHello(_), Stage::Opening { .. } | Stage::Established)
            | (Frame::AgentState(_), Stage::Opening { .. })
            | (
                Frame::Start(_)
                | Frame::Kill(_)
                | Frame::Suspend(_)
                | Frame::Resume(_)
                | Frame::Acks(_)
                | Frame::Query(_)
                | Frame::Facts(_)
                | Frame::Refused(_)
                | Frame::NoRecord(_)
                | Frame::Answer(_)
                | Frame::StreamOpen(_)
                | Frame::StreamGrant(_)
                | Frame::StreamCancel(_)
                | Frame::StreamPiece(_)
                | Frame::StreamEnd(_)
                | Frame::StreamReceipt(_),
                Stage::Opening { .. } | Stage::Answering,
            ) => out_of_turn,
        }
    }

    fn on_part(&mut self, part: &AgentHello, parts: usize, runs: usize) -> Result<(), SessionError> {
        let runs = runs + part.inventory.len();
        if runs > INVENTORY_RUNS_MAX {
            return Err(SessionError::TooManyRuns);
        }
        if part.more && part.inventory.is_empty() {
            return Err(SessionError::EmptyPart);
        }
        self.stage = if part.more { Stage::Opening { parts: parts + 1, runs } } else { Stage::Answering };
        Ok(())
    }
}

/// Who alone sends frames of this kind.
fn only_from(frame: &Frame) -> Option<Role> {
    match frame {
        Frame::AgentHello(_)
        | Frame::Facts(_)
        | Frame::Refused(_)
        | Frame::NoRecord(_)
        | Frame::AgentState(_)
        | Frame::Answer(_)
        | Frame::StreamPiece(_)
        | Frame::StreamEnd(_) => Some(Role::Agent),
        Frame::ServerHello(_)
        | Frame::Start(_)
        | Frame::Kill(_)
        | Frame::Suspend(_)
        | Frame::Resume(_)
        | Frame::Acks(_)
        | Frame::Query(_)
        | Frame::StreamOpen(_)
        | Frame::StreamGrant(_)
        | Frame::StreamCancel(_)
        | Frame::StreamReceipt(_) => Some(Role::Server),
        Frame::AuthHello(_)
        | Frame::AuthProof(_)
        | Frame::Ping(_)
        | Frame::Pong(_)
        | Frame::Goodbye(_)
        | Frame::Unsupported(_)
        | Frame::Unknown { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::PROTOCOL_VERSION;
    use crate::message::{
        Acks, AgentState, Answer, AuthHello, AuthProof, Facts, InventoryItem, Kill, NoRecord, Query, Refused,
        Resume, ServerHello, Start, StreamCancel, StreamEnd, StreamGrant, StreamOpen, StreamPiece,
        StreamReceipt, Suspend,
    };

    fn every_frame() -> Vec<Frame> {
        vec![
            AuthHello::default().into(),
            AuthProof::default().into(),
            AgentHello::default().into(),
            ServerHello::default().into(),
            Start::default().into(),
            Kill::default().into(),
            Suspend::default().into(),
            Resume::default().into(),
            Facts::default().into(),
            Acks::default().into(),
            Refused::default().into(),
            NoRecord::default().into(),
            AgentState::default().into(),
            Query::default().into(),
            Answer::default().into(),
            StreamOpen::default().into(),
            StreamGrant::default().into(),
            StreamCancel::default().into(),
            StreamPiece::default().into(),
            StreamEnd::default().into(),
            StreamReceipt::default().into(),
            Ping::default().into(),
            Pong::default().into(),
            Goodbye::default().into(),
            Unsupported::default().into(),
            Frame::Unknown { kind: 999 },
        ]
    }

    fn session(role: Role, stage: Stage) -> Session {
        Session { stage, ..Session::new(role, PROTOCOL_VERSION, Timing::default(), 0) }
    }

    fn allowed(role: Role, stage: Stage) -> Vec<&'static str> {
        let passes = |frame: &Frame| session(role, stage).on_frame(0, frame).is_ok();
        let always = ["Ping", "Pong", "Goodbye", "Unsupported", "a kind of a newer version"];
        let names: Vec<_> = every_frame().into_iter().filter(passes).map(|f| f.name()).collect();
        assert!(always.iter().all(|name| names.contains(name)), "{names:?}");
        names.into_iter().filter(|name| !always.contains(name)).collect()
    }

    #[test]
    fn each_side_may_say_its_own_in_its_time_and_nothing_else() {
        let opening = Stage::Opening { parts: 0, runs: 0 };
        assert_eq!(allowed(Role::Server, opening), ["AgentHello"]);
        assert_eq!(allowed(Role::Server, Stage::Answering), ["AgentState"]);
        let from_agent = ["Facts", "Refused", "NoRecord", "AgentState", "Answer", "StreamPiece", "StreamEnd"];
        assert_eq!(allowed(Role::Server, Stage::Established), from_agent);
        assert_eq!(allowed(Role::Agent, opening), [""; 0]);
        assert_eq!(allowed(Role::Agent, Stage::Answering), ["ServerHello"]);
        let from_server = [
            "Start",
            "Kill",
            "Suspend",
            "Resume",
            "Acks",
            "Query",
            "StreamOpen",
            "StreamGrant",
            "StreamCancel",
            "StreamReceipt",
        ];
        assert_eq!(allowed(Role::Agent, Stage::Established), from_server);
    }

    #[test]
    fn an_older_peer_is_never_sent_what_it_does_not_know_and_what_it_cannot_mean_is_passed_over() {
        for frame in every_frame() {
            let since = frame.since();
            let mut old = session(Role::Server, Stage::Established);
            old.version = since.saturating_sub(1);
            let kind = Some(u32::from(frame.kind()));
            assert_eq!(old.on_frame(0, &frame), Ok(Received::Unsupported(Unsupported { kind })));
            assert!(matches!(old.on_send(0, &frame), Err(SessionError::TooNew { .. })), "{}", frame.name());
        }
    }

    #[test]
    fn both_sides_see_the_same_conversation() {
        let (mut agent, mut server) = (
            session(Role::Agent, Stage::Opening { parts: 0, runs: 0 }),
            session(Role::Server, Stage::Opening { parts: 0, runs: 0 }),
        );
        let part = |more, runs| AgentHello {
            more,
            inventory: vec![InventoryItem::default(); runs],
            ..Default::default()
        };
        for frame in [Frame::from(part(true, 2)), part(false, 0).into()] {
            agent.on_send(0, &frame).unwrap();
            assert_eq!(server.on_frame(0, &frame), Ok(Received::Deliver));
        }
        assert!(agent.on_send(0, &Facts::default().into()).is_err());
        server.on_send(0, &ServerHello::default().into()).unwrap();
        assert_eq!(agent.on_frame(0, &ServerHello::default().into()), Ok(Received::Deliver));
        assert_eq!((agent.stage(), server.stage()), (Stage::Established, Stage::Established));
        agent.on_send(0, &Facts::default().into()).unwrap();
    }

    #[test]
    fn an_inventory_has_an_end() {
        let part = |runs| {
            Frame::from(AgentHello {
                more: true,
                inventory: vec![InventoryItem::default(); runs],
                ..Default::default()
            })
        };
        let mut server = session(Role::Server, Stage::Opening { parts: 0, runs: 0 });
        server.on_frame(0, &part(INVENTORY_RUNS_MAX)).unwrap();
        assert_eq!(server.on_frame(0, &part(1)), Err(SessionError::TooManyRuns));
        let mut server = session(Role::Server, Stage::Opening { parts: 0, runs: 0 });
        assert_eq!(server.on_frame(0, &part(0)), Err(SessionError::EmptyPart));
    }

    #[test]
    fn pings_and_unknown_kinds_are_answered_and_a_goodbye_is_understood() {
        let mut session = session(Role::Agent, Stage::Established);
        let ping = Ping { number: Some(7) };
        assert_eq!(session.on_frame(0, &ping.into()), Ok(Received::Pong(Pong { number: Some(7) })));
        let unsupported = Unsupported { kind: Some(999) };
        assert_eq!(
            session.on_frame(0, &Frame::Unknown { kind: 999 }),
            Ok(Received::Unsupported(unsupported))
        );
        let goodbye = Goodbye { reason: "stop".into(), stopping: true };
        assert_eq!(session.on_frame(0, &goodbye.clone().into()), Ok(Received::Over(goodbye)));
    }

    #[test]
    fn a_quiet_connection_is_kept_alive_and_a_silent_one_is_closed() {
        let mut session = session(Role::Agent, Stage::Established);
        assert_eq!(session.on_tick(HEARTBEAT_MS - 1), []);
        assert_eq!(session.on_tick(HEARTBEAT_MS), [Command::Ping(Ping { number: Some(1) })]);
        assert_eq!(session.on_tick(HEARTBEAT_MS + 1), []);
        session.on_frame(HEARTBEAT_MS + 1, &Pong::default().into()).unwrap();
        assert_eq!(session.on_tick(SILENCE_MS_MAX).len(), 1, "still there");
        let over = HEARTBEAT_MS + 1 + SILENCE_MS_MAX;
        let silence = SessionError::Silence { silence_ms: SILENCE_MS_MAX };
        assert_eq!(session.on_tick(over), [Command::Close(silence)]);
    }

    #[test]
    fn silence_does_not_count_while_our_own_program_is_busy() {
        let mut session = session(Role::Server, Stage::Established);
        session.on_paused();
        assert!(matches!(session.on_tick(SILENCE_MS_MAX * 5)[..], [Command::Ping(_)]));
        session.on_resumed(SILENCE_MS_MAX * 5);
        assert_eq!(session.on_tick(SILENCE_MS_MAX * 5 + 1), []);
    }
}

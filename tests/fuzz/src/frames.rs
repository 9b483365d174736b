//! The wire: what a peer sends, before and after it proved itself.

use job::{Outcome, RunId};
use prost::Message;
use protocol::frame::{FRAME_BYTES_MAX, FRAME_BYTES_MAX_BEFORE_AUTH, FrameDecoder, FrameError, HEAD_BYTES};
use protocol::handshake::{Handshake, Local, PROTOCOL_VERSION, Step, Versions};
use protocol::message::{Ended, Fact, FactBody, RunSpec, StreamOpen};
use protocol::outbox::Outbox;
use protocol::session::{Session, Timing};
use protocol::stream::{Opening, Sink, Sources};
use protocol::{Frame, Role, reconcile};
use scheduler::hear;

/// Cuts bytes into frames, in pieces as a network would bring them; whatever is read must be the same when it is written and read again.
pub(crate) fn frames(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let bytes_max = if choice & 1 == 0 { FRAME_BYTES_MAX } else { FRAME_BYTES_MAX_BEFORE_AUTH };
    let in_pieces = decode(bytes_max, bytes.chunks(usize::from(choice >> 1).max(1)));
    assert_eq!(in_pieces, decode(bytes_max, [bytes].into_iter()), "pieces make other frames");
    in_pieces.0.iter().for_each(same_again);
}

/// The frames up to the first that is none, and what is left of the bytes then.
fn decode<'a>(
    bytes_max: usize,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Frame>, Result<usize, FrameError>) {
    let mut decoder = FrameDecoder::new(bytes_max);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.take() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(decoder.pending_bytes()))
}

fn same_again(frame: &Frame) {
    if matches!(frame, Frame::Unknown { .. }) {
        return;
    }
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    assert_eq!(bytes.len(), frame.encoded_len());
    let mut decoder = FrameDecoder::new(usize::MAX);
    decoder.feed(&bytes);
    assert_eq!(decoder.take().as_ref(), Ok(&Some(frame.clone())), "not the same when it is read again");
}

/// One frame of the given kind, as far as the payload is one.
fn frame_of(kind: u8, payload: &[u8]) -> Option<Frame> {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let length = u32::try_from(HEAD_BYTES + payload.len()).ok()?;
    decoder.feed(&length.to_be_bytes());
    decoder.feed(&[0, kind, 0, 0]);
    decoder.feed(payload);
    decoder.take().ok().flatten()
}

/// The frames of an input: kind, length (two bytes), payload, again and again.
pub(crate) fn split(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(([kind, high, low], rest)) = bytes.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        frames.extend(frame_of(*kind, payload));
        bytes = rest;
    }
    frames
}

/// Every message, and what is made of it.
pub(crate) fn messages(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else { return };
    facts_and_orders(payload);
    let Some(frame) = frame_of(*kind, payload) else { return };
    same_again(&frame);
    match frame {
        Frame::Facts(facts) => drop(hear::facts(facts)),
        Frame::Refused(refused) => drop(hear::refused("a".into(), 1, &refused)),
        Frame::Start(start) => drop(start.spec.map(|spec| spec.check())),
        Frame::ServerHello(hello) => {
            let mut outbox = Outbox::new();
            outbox.on_stored(RunId::new(1, 1), 3);
            let _ = outbox.on_connected(&hello.known);
            if let Some(now) = &hello.position {
                let _ = reconcile::history(None, now);
                let _ = reconcile::history(Some(now), now);
            }
        }
        Frame::AgentHello(hello) => {
            let runs = hello.inventory.len();
            let parts = reconcile::account_parts(hello);
            assert_eq!(parts.iter().map(|part| part.inventory.len()).sum::<usize>(), runs);
            assert!(parts.into_iter().all(|part| Frame::from(part).fits()), "a part that no server takes");
        }
        Frame::StreamOpen(open) => drop(opened(&open)),
        Frame::StreamPiece(piece) => {
            let mut sink = Sink::default();
            while sink.on_piece(&piece).is_ok() && sink.on_taken(piece.data.len() as u64).is_some() {}
        }
        Frame::AuthHello(_)
        | Frame::AuthProof(_)
        | Frame::Kill(_)
        | Frame::Acks(_)
        | Frame::NoRecord(_)
        | Frame::AgentState(_)
        | Frame::Suspend(_)
        | Frame::Resume(_)
        | Frame::Query(_)
        | Frame::Answer(_)
        | Frame::StreamGrant(_)
        | Frame::StreamCancel(_)
        | Frame::StreamEnd(_)
        | Frame::StreamReceipt(_)
        | Frame::Ping(_)
        | Frame::Pong(_)
        | Frame::Goodbye(_)
        | Frame::Unsupported(_)
        | Frame::Unknown { .. } => {}
    }
}

fn opened(open: &StreamOpen) -> Option<Sources> {
    let opening = Opening::read(open).ok()?;
    let mut sources = Sources::default();
    sources.on_open(opening.stream_id, opening.wanted).ok()?;
    let look = sources.next(0)?;
    assert!(look.bytes_max <= FRAME_BYTES_MAX, "a look that fits into no frame");
    sources.on_grant(opening.stream_id, opening.wanted.granted.saturating_add(1));
    sources.on_cancel(opening.stream_id);
    Some(sources)
}

/// What is kept on disk and in the database in the encoding of the wire.
fn facts_and_orders(payload: &[u8]) {
    if let Ok(spec) = RunSpec::read(payload) {
        let again = RunSpec::read(&spec.encode_to_vec()).expect("what was read can be read again");
        assert_eq!(again, spec);
        let _ = scheduler::JobSpec::of_run(&spec);
    }
    let glance = protocol::glance::started_pid(payload);
    let Ok(fact) = Fact::read(payload) else { return };
    match &fact.body {
        Some(FactBody::Started(started)) => {
            assert!(glance.is_none_or(|pid| started.pid == Some(pid)), "a glance sees another process");
        }
        Some(FactBody::Ended(ended)) => outcome(ended),
        Some(
            FactBody::Accepted(_)
            | FactBody::Stopping(_)
            | FactBody::Suspended(_)
            | FactBody::Resumed(_)
            | FactBody::Note(_)
            | FactBody::Captured(_)
            | FactBody::Gathered(_),
        )
        | None => {}
    }
    let _ = spool::dump::describe(&spool::Stored { seq: 1, bytes: payload.to_vec() });
}

/// What was read as an outcome is the same outcome when it is written and read again.
fn outcome(ended: &Ended) {
    let Ok(outcome) = Outcome::try_from(ended) else { return };
    let again = Outcome::try_from(&Ended::from(&outcome)).expect("what was read can be read again");
    assert_eq!(
        (again.status(), again.exit_code(), again.signal()),
        (outcome.status(), outcome.exit_code(), outcome.signal())
    );
}

/// A conversation, from the first word on, against each of the two roles.
pub(crate) fn session(bytes: &[u8]) {
    let frames = split(bytes);
    for role in [Role::Agent, Role::Server] {
        let mut frames = frames.iter();
        let local = Local {
            role,
            name: "here".into(),
            expected_peer: None,
            versions: Versions::OURS,
            dialled: role == Role::Agent,
            nonce: [1; 32],
            exporter: [2; 32],
            decoy: [3; 32],
            prove_with: 0,
        };
        let mut handshake = Handshake::<Vec<u8>>::new(local);
        for frame in frames.by_ref().take(2) {
            match handshake.on_frame(frame, |_| vec![b"a secret of thirty-two bytes ....".to_vec()]) {
                Ok(Step::Wait | Step::Prove(_)) => {}
                Ok(Step::Proved { .. }) => panic!("a stranger proved a secret that it does not have"),
                Err(_) => break,
            }
        }
        for version in 1..=PROTOCOL_VERSION {
            let mut session = Session::new(role, version, Timing::default(), 0);
            let mut now_ms = 0;
            for frame in &mut frames.clone() {
                now_ms += 1_000;
                if session.on_frame(now_ms, frame).is_err() {
                    break;
                }
                let _ = session.on_tick(now_ms);
            }
        }
    }
}

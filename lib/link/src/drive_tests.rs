//! Links over a pipe in memory, on a clock that goes on only when everybody waits.

use super::*;
use crate::link::{Link, Peer};
use crate::{Closed, Sender};
use protocol::Role;
use protocol::frame::{FRAME_BYTES_MAX, FrameError};
use protocol::handshake::PROTOCOL_VERSION;
use protocol::message::{
    AgentHello, Answer, AnswerBody, Facts, OutputData, Ping, Pong, Query, RunFact, ServerHello, Start,
    Unsupported,
};
use protocol::session::{SILENCE_MS_MAX, SessionError, Timing};
use std::collections::VecDeque;
use tokio::io::DuplexStream;

const PIPE_BYTES: usize = 64 << 10;

/// The other end of the pipe: says and hears frames without a session of its own.
struct RawPeer {
    stream: DuplexStream,
    decoder: FrameDecoder,
}

impl RawPeer {
    async fn say(&mut self, frame: impl Into<Frame>) {
        let mut bytes = Vec::new();
        frame.into().encode(&mut bytes);
        self.stream.write_all(&bytes).await.expect("the pipe is open");
    }

    /// The next frame but pings; `None` when the pipe is closed.
    async fn hear(&mut self) -> Option<Frame> {
        let mut bytes = vec![0; 4096];
        loop {
            match self.decoder.take().expect("a link sends good frames") {
                Some(Frame::Ping(_)) => continue,
                Some(frame) => return Some(frame),
                None => {}
            }
            match self.stream.read(&mut bytes).await.expect("a pipe can be read") {
                0 => return None,
                n => self.decoder.feed(&bytes[..n]),
            }
        }
    }
}

/// A link of ours in that part, and the peer.
fn link(role: Role) -> (Link, RawPeer) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let address = "127.0.0.1:1".parse().unwrap();
    let peer = Peer {
        name: "peer".into(),
        role: role.other(),
        address,
        version: PROTOCOL_VERSION,
        dialled_by_us: false,
    };
    let link = Link::start(ours, peer, Timing::default(), FrameDecoder::new(FRAME_BYTES_MAX));
    (link, RawPeer { stream: theirs, decoder: FrameDecoder::new(FRAME_BYTES_MAX) })
}

/// An agent's link after both introduced themselves.
async fn established_agent() -> (Link, RawPeer) {
    let (mut link, mut server) = link(Role::Agent);
    link.sender.send(AgentHello::default().into()).await.unwrap();
    assert_eq!(server.hear().await, Some(AgentHello::default().into()));
    server.say(ServerHello::default()).await;
    assert_eq!(link.receiver.recv().await.unwrap(), ServerHello::default().into());
    (link, server)
}

fn answer(n: u64) -> Frame {
    let data = OutputData { offset: Some(n), data: vec![7; 16 << 10], ..Default::default() };
    Answer { query_id: Some(n), body: Some(AnswerBody::Output(data)) }.into()
}

fn facts(bytes: usize) -> Frame {
    Facts { facts: vec![RunFact { run_id: None, seq: Some(1), fact: vec![7; bytes] }] }.into()
}

/// Sends until there is no room. The clock goes on only when all wait, so this is no race.
async fn fill(sender: &Sender, frame: impl Fn(u64) -> Frame) -> u64 {
    let mut sent = 0;
    while timeout(Duration::from_millis(1), sender.send(frame(sent))).await.is_ok() {
        sent += 1;
        assert!(sent < 10_000, "a lane without a limit");
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn frames_go_both_ways_in_their_order() {
    let (mut link, mut server) = established_agent().await;
    for n in 1..=100 {
        server.say(Query { query_id: Some(n), ..Default::default() }).await;
    }
    for n in 1..=100 {
        let query = link.receiver.recv().await.unwrap();
        assert_eq!(query, Query { query_id: Some(n), ..Default::default() }.into());
    }
    for n in 0..100 {
        link.sender.send(facts(n)).await.unwrap();
    }
    for n in 0..100 {
        assert_eq!(server.hear().await, Some(facts(n)));
    }
}

#[tokio::test(start_paused = true)]
async fn output_never_delays_a_status_by_more_than_what_is_on_its_way() {
    let (link, mut server) = established_agent().await;
    let answers = fill(&link.sender, answer).await;
    assert!(answers > 20, "the lane takes some: {answers}");
    link.sender.send(facts(1)).await.unwrap();
    let mut before = 0;
    while server.hear().await != Some(facts(1)) {
        before += 1;
    }
    // The pipe, and the answer that is being written.
    assert!(before <= PIPE_BYTES / (16 << 10) + 1, "{before} of {answers} answers came first");
}

#[tokio::test(start_paused = true)]
async fn statuses_do_not_starve_output() {
    let (link, mut server) = established_agent().await;
    fill(&link.sender, |_| facts(16 << 10)).await;
    let sender = link.sender.clone();
    let more = tokio::spawn(async move { while sender.send(facts(16 << 10)).await == Ok(()) {} });
    link.sender.send(answer(1)).await.unwrap();
    let mut before = 0;
    while server.hear().await != Some(answer(1)) {
        before += 1;
        assert!(before < 1_000, "the answer starves");
    }
    more.abort();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_costs_bounded_memory_and_is_closed() {
    let (mut link, server) = established_agent().await;
    let sent = fill(&link.sender, |_| facts(64 << 10)).await;
    assert!(sent * (64 << 10) < 8 << 20, "{sent} frames of 64 KiB were taken");
    let (_ours, mut theirs) = (link.sender.clone(), server);
    let keep_talking = tokio::spawn(async move {
        loop {
            theirs.say(Ping { number: None }).await; // it talks, it just does not read
            sleep(Duration::from_secs(5)).await;
        }
    });
    let reason = link.receiver.recv().await.unwrap_err();
    assert!(matches!(reason, LinkError::WriteStalled { .. }), "{reason}");
    assert_eq!(link.sender.send(facts(1)).await, Err(Closed));
    keep_talking.abort();
}

#[tokio::test(start_paused = true)]
async fn a_program_that_does_not_receive_makes_the_peer_wait_and_keeps_the_link() {
    let (mut link, mut server) = established_agent().await;
    let big = |n| Start { epoch: Some(n), run_id: Some(vec![7; 256 << 10]), spec: None };
    let talk = tokio::spawn(async move {
        for n in 0..100 {
            server.say(big(n)).await;
        }
        server
    });
    // Far beyond the time after which a silent peer is given up: this silence is ours.
    sleep(Duration::from_millis(SILENCE_MS_MAX * 10)).await;
    assert!(!talk.is_finished() && !link.sender.is_closed());
    for n in 0..100 {
        assert_eq!(link.receiver.recv().await.unwrap(), big(n).into());
    }
    talk.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanished_is_noticed_by_its_silence() {
    let (mut link, _silent) = established_agent().await;
    let reason = link.receiver.recv().await.unwrap_err();
    assert!(matches!(reason, LinkError::Session(SessionError::Silence { .. })), "{reason}");
    link.sender.closed().await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_signs_of_life_though_no_program_sees_them() {
    let (link, mut server) = established_agent().await;
    let before = link.sender.heard_at_ms();
    std::thread::sleep(Duration::from_millis(5)); // of the wall clock, which cannot be paused
    server.say(Ping { number: Some(5) }).await;
    assert_eq!(server.hear().await, Some(Pong { number: Some(5) }.into()));
    assert!(link.sender.heard_at_ms() > before);
}

#[tokio::test(start_paused = true)]
async fn two_quiet_links_keep_each_other_alive() {
    let (a, b) = tokio::io::duplex(PIPE_BYTES);
    let address = "127.0.0.1:1".parse().unwrap();
    let start = |stream, role| {
        let peer =
            Peer { name: "peer".into(), role, address, version: PROTOCOL_VERSION, dialled_by_us: false };
        Link::start(stream, peer, Timing::default(), FrameDecoder::new(FRAME_BYTES_MAX))
    };
    let (agent, server) = (start(a, Role::Server), start(b, Role::Agent));
    sleep(Duration::from_secs(3_600)).await;
    assert!(!agent.sender.is_closed() && !server.sender.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_kind_of_a_newer_version_is_answered_politely_and_the_link_goes_on() {
    let (mut link, mut server) = established_agent().await;
    server.say(Frame::Unknown { kind: 999 }).await;
    server.say(Ping { number: Some(5) }).await;
    server.say(Query::default()).await;
    assert_eq!(link.receiver.recv().await.unwrap(), Query::default().into());
    assert_eq!(server.hear().await, Some(Unsupported { kind: Some(999) }.into()));
    assert_eq!(server.hear().await, Some(Pong { number: Some(5) }.into()));
}

#[tokio::test(start_paused = true)]
async fn an_oversize_frame_ends_the_link_by_its_length_alone() {
    let (mut link, mut server) = established_agent().await;
    server.stream.write_all(&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes()).await.unwrap();
    let reason = link.receiver.recv().await.unwrap_err();
    assert!(matches!(reason, LinkError::Frame(FrameError::TooLong { .. })), "{reason}");
    assert_eq!(server.hear().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_out_of_turn_ends_the_link_on_either_side() {
    let (mut server, mut agent) = link(Role::Server);
    agent.say(facts(1)).await;
    let reason = server.receiver.recv().await.unwrap_err();
    assert!(matches!(reason, LinkError::Session(SessionError::OutOfTurn { frame: "Facts", .. })), "{reason}");

    let (mut server, mut agent) = link(Role::Server);
    server.sender.send(Start::default().into()).await.unwrap();
    let reason = server.receiver.recv().await.unwrap_err();
    assert!(matches!(reason, LinkError::Session(SessionError::OutOfTurn { frame: "Start", .. })), "{reason}");
    assert_eq!(agent.hear().await, None, "our own defect is not put on the wire");
}

#[tokio::test(start_paused = true)]
async fn what_waits_goes_before_a_goodbye_and_the_peer_gets_both() {
    let (link, mut server) = established_agent().await;
    for n in 0..20 {
        link.sender.send(facts(n)).await.unwrap();
    }
    let goodbye = Goodbye { reason: "the agent stops".into(), stopping: true };
    link.sender.close(Some(goodbye.clone()));
    assert_eq!(link.sender.send(facts(1)).await, Err(Closed));
    drop(link);
    for n in 0..20 {
        assert_eq!(server.hear().await, Some(facts(n)));
    }
    assert_eq!(server.hear().await, Some(goodbye.into()));
    assert_eq!(server.hear().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_to_a_peer_that_does_not_read_takes_a_short_time_only() {
    let (link, _server) = established_agent().await;
    fill(&link.sender, |_| facts(64 << 10)).await;
    let asked = Instant::now();
    link.sender.close(Some(Goodbye::default()));
    link.sender.closed().await;
    assert!(asked.elapsed() <= GOODBYE_TIMEOUT * 2, "on a clock that only waiting moves");
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_of_the_peer_is_the_reason_that_is_told() {
    let (mut link, mut server) = established_agent().await;
    server.say(Query::default()).await;
    server.say(Goodbye { reason: "the server stops".into(), stopping: true }).await;
    assert_eq!(
        link.receiver.recv().await.unwrap(),
        Query::default().into(),
        "what came before it is not lost"
    );
    let reason = link.receiver.recv().await.unwrap_err();
    assert!(matches!(&reason, LinkError::Goodbye { stopping: true, .. }), "{reason}");
    assert!(reason.to_string().contains("the server stops"));
    assert_eq!(server.hear().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_link_is_a_closed_connection() {
    let (link, mut server) = established_agent().await;
    drop(link);
    assert_eq!(server.hear().await, None);
}

#[tokio::test(start_paused = true)]
async fn without_senders_a_link_still_receives() {
    let (link, mut server) = established_agent().await;
    let Link { sender, mut receiver, .. } = link;
    drop(sender);
    sleep(Duration::from_secs(1)).await;
    server.say(Query::default()).await;
    assert_eq!(receiver.recv().await.unwrap(), Query::default().into());
    drop(server);
    let reason = receiver.recv().await.unwrap_err();
    assert!(matches!(reason, LinkError::PeerGone), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_frame_too_long_for_any_peer_is_left_out_and_the_link_goes_on() {
    let (link, mut server) = established_agent().await;
    link.sender.send(facts(FRAME_BYTES_MAX)).await.unwrap();
    link.sender.send(facts(2)).await.unwrap();
    assert_eq!(server.hear().await, Some(facts(2)));
}

#[tokio::test(start_paused = true)]
async fn receiving_can_be_given_up_and_taken_up_without_a_loss() {
    let (mut link, mut server) = established_agent().await;
    let mut expected: VecDeque<u64> = (0..200).collect();
    let talk = tokio::spawn(async move {
        for n in 0..200 {
            server.say(Query { query_id: Some(n), ..Default::default() }).await;
            sleep(Duration::from_millis(n % 3)).await;
        }
        server
    });
    while let Some(next) = expected.front() {
        if let Ok(frame) = timeout(Duration::from_millis(1), link.receiver.recv()).await {
            assert_eq!(frame.unwrap(), Query { query_id: Some(*next), ..Default::default() }.into());
            expected.pop_front();
        }
    }
    talk.await.unwrap();
}

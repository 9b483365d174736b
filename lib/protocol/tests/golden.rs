//! Every message, with every field set, against the bytes that are kept in `golden/`.
//!
//! The samples name every field without `..Default::default()`: a new field does not compile until it is given a value here.

use prost::Message;
use protocol::frame::{FRAME_BYTES_MAX, FrameDecoder};
use protocol::handshake::PROTOCOL_VERSION;
use protocol::{Frame, Role};

use protocol::message::*;
use protocol::session::{Received, Session, SessionError, Timing};
use std::fs;
use std::path::PathBuf;

const RUN: [u8; 16] = [1, 0x9a, 0xa7, 0xd1, 0xe2, 0x7b, 0x70, 1, 0x82, 3, 4, 5, 6, 7, 8, 9];
const BOOT: [u8; 16] = [0xb0; 16];
const DATABASE: [u8; 16] = [0xdb; 16];

fn run_id() -> Option<Vec<u8>> {
    Some(RUN.to_vec())
}

fn run_position() -> RunPosition {
    RunPosition { run_id: run_id(), seq: Some(3) }
}

fn position() -> Position {
    Position { database_id: Some(DATABASE.to_vec()), commit: Some(123_456), ancestors: Vec::new() }
}

fn pair(name: &str, value: &str) -> Pair {
    Pair { name: name.into(), value: value.into() }
}

fn run_spec() -> RunSpec {
    RunSpec {
        job_id: Some(1042),
        attempt: Some(2),
        job_name: "nightly".into(),
        queue: "default".into(),
        agent: "host1".into(),
        submitted_by: "anna".into(),
        command: vec![b"/bin/echo".to_vec(), b"\xff\xfe".to_vec()],
        script: Some(b"#!/bin/sh\nexit 7\n".to_vec()),
        env: vec![pair("LANG", "C.UTF-8"), pair("EMPTY", "")],
        params: vec![pair("day", "2026-11-22")],
        cwd: Some("/srv".into()),
        user: Some("batch".into()),
        timeout_ms: Some(3_600_000),
        grace_ms: Some(10_000),
        idempotency_key: "key-1".into(),
        previous_outcome: "Unknown".into(),
        scheduled_at_ms: Some(1_795_312_673_000),
        umask: None,
        nice: None,
        limits: Vec::new(),
        output_limit: None,
        leftovers: None,
        capture: Vec::new(),
        needs: None,
    }
}

fn run_spec_attributes() -> RunSpec {
    let limit = |resource: &str, soft, hard| Limit { resource: resource.into(), soft, hard };
    RunSpec {
        umask: Some(0o27),
        nice: Some(-5),
        limits: vec![limit("nofile", Some(1024), Some(4096)), limit("core", None, None)],
        ..run_spec()
    }
}

/// What came with the control of running jobs, beside `run_spec`.
fn run_spec_control() -> RunSpec {
    let policy = Some(OutputPolicyKind::Truncate as i32);
    RunSpec {
        output_limit: Some(OutputLimit { bytes_max: Some(10 << 20), policy }),
        leftovers: Some(LeftoversKind::Ignore as i32),
        capture: vec!["report/*.pdf".into(), "/var/tmp/sum".into()],
        ..run_spec()
    }
}

/// What came with the word which version a spec needs.
fn run_spec_needs() -> RunSpec {
    RunSpec { needs: Some(2), ..run_spec() }
}

fn agent_state(caught_up: bool) -> AgentState {
    AgentState { refusing: "drained".into(), caught_up, untellable: Vec::new() }
}

fn fact(body: FactBody) -> Vec<u8> {
    Fact { at_ms: Some(1_795_312_673_123), body: Some(body) }.encode_to_vec()
}

fn ended() -> Ended {
    Ended {
        kind: Some(EndKind::Signaled as i32),
        exit_code: Some(7),
        signal: Some(15),
        core: true,
        witness: Some(WitnessKind::Monitor as i32),
        killed_by: Some("anna".into()),
        timed_out_after_ms: Some(3_600_000),
        reason: "why".into(),
        cpu_ms: Some(1_234),
        max_rss_kib: Some(5_678),
        canceled: true,
        user_ms: None,
        system_ms: None,
        memory_peak_kib: None,
        read_bytes: None,
        written_bytes: None,
        oom_kills: None,
        context_switches: None,
        processes_peak: None,
        no_room: false,
    }
}

/// What came with the word that a host had no room.
fn ended_no_room() -> Ended {
    Ended { no_room: true, ..ended() }
}

/// What came with the accounting, beside `ended`.
fn ended_accounting() -> Ended {
    Ended {
        user_ms: Some(1_000),
        system_ms: Some(234),
        memory_peak_kib: Some(9_012),
        read_bytes: Some(4_096),
        written_bytes: Some(8_192),
        oom_kills: Some(1),
        context_switches: Some(77),
        processes_peak: Some(5),
        ..ended()
    }
}

fn captured() -> Captured {
    Captured { name: "report/sum.pdf".into(), bytes: Some(12_345), sha256: vec![0x5a; 32] }
}

/// Facts that came with the control of running jobs.
fn control_facts() -> [(&'static str, FactBody); 5] {
    let boottime_ms = Some(9_876_543_210);
    [
        ("fact_ended_accounting", FactBody::Ended(ended_accounting())),
        ("fact_ended_no_room", FactBody::Ended(ended_no_room())),
        ("fact_suspended", FactBody::Suspended(Suspended { by: "anna".into(), boottime_ms })),
        ("fact_resumed", FactBody::Resumed(Resumed { by: "ben".into(), boottime_ms })),
        ("fact_captured", FactBody::Captured(captured())),
    ]
}

fn started() -> Started {
    Started {
        pid: Some(4321),
        start_ticks: Some(987_654_321),
        pidfd_inode: Some(55_555),
        boot_id: Some(BOOT.to_vec()),
        cgroup: Some("/lastword/run".into()),
        boottime_ms: Some(9_876_543_210),
        job_processor_pid: Some(4320),
    }
}

fn run_fact() -> RunFact {
    RunFact { run_id: run_id(), seq: Some(3), fact: fact(FactBody::Ended(ended())) }
}

fn agent_hello() -> AgentHello {
    AgentHello {
        agent_id: Some(vec![0xa1; 16]),
        incarnation: Some(12),
        boot_id: Some(BOOT.to_vec()),
        epoch: Some(5),
        software: "0.1.0".into(),
        platform: "host1.example Linux 6.1.0 x86_64".into(),
        inventory: vec![InventoryItem { run_id: run_id(), last_seq: Some(3) }],
        more: true,
        last_acked: Some(position()),
        refusing: "the disk is full".into(),
    }
}

fn server_hello() -> ServerHello {
    ServerHello {
        epoch: Some(5),
        incarnation: Some(vec![0x1c; 16]),
        position: Some(position()),
        known: vec![run_position()],
        missing: vec![RUN.to_vec()],
        software: "0.1.0".into(),
    }
}

fn query(body: QueryBody) -> Query {
    Query { query_id: Some(77), run_id: run_id(), body: Some(body) }
}

fn answer(body: AnswerBody) -> Answer {
    Answer { query_id: Some(77), body: Some(body) }
}

fn stream_open() -> StreamOpen {
    StreamOpen {
        stream_id: Some(9),
        run_id: run_id(),
        stream: Some(StreamKind::Stdout as i32),
        offset: Some(4096),
        bytes_max: Some(1_000_000),
        follow: true,
        granted: Some(65_536),
        gaps: false,
        trace: None,
        tail: None,
        file: None,
    }
}

fn stream_open_trace() -> StreamOpen {
    let trace = Some(TraceKind::NetworkProcessor as i32);
    StreamOpen { stream: None, trace, tail: Some(4096), ..stream_open() }
}

fn stream_piece() -> StreamPiece {
    StreamPiece {
        stream_id: Some(9),
        offset: Some(4096),
        data: b"line\n".to_vec(),
        size: Some(4101),
        complete: true,
        gap_from: None,
        gap_to: None,
    }
}

fn stream_end() -> StreamEnd {
    StreamEnd { stream_id: Some(9), complete: true, failed: Some("why".into()), gone: false }
}

/// Messages that travel in frames.
fn frames() -> Vec<(&'static str, Frame)> {
    let output =
        OutputRange { stream: Some(StreamKind::Stderr as i32), offset: Some(4096), bytes_max: Some(65_536) };
    let data = OutputData { offset: Some(4096), data: b"line\n".to_vec(), size: Some(4101), complete: true };
    let file = FileRange { name: "report/sum.pdf".into(), offset: Some(4096), bytes_max: Some(65_536) };
    let ledger = Ledger {
        place: "live".into(),
        locked: true,
        records: vec![run_fact()],
        acked_seq: Some(2),
        spec: None,
    };
    let ledger_2 = Ledger { spec: Some(run_spec().encode_to_vec()), ..ledger.clone() };
    let position_2 = Position { ancestors: vec![BOOT.to_vec(), DATABASE.to_vec()], ..position() };
    let auth_hello = AuthHello {
        version_max: Some(2),
        version_min: Some(1),
        role: Some(RoleKind::Server as i32),
        name: "node-a".into(),
        nonce: (0..32).collect(),
    };
    let refused = Refused {
        run_id: run_id(),
        kind: Some(RefusalKind::NoRoom as i32),
        reason: "the disk is full".into(),
    };
    vec![
        ("auth_hello", auth_hello.into()),
        ("auth_proof", AuthProof { tag: (32..64).collect() }.into()),
        ("agent_hello", agent_hello().into()),
        ("server_hello", server_hello().into()),
        ("start", Start { epoch: Some(5), run_id: run_id(), spec: Some(Box::new(run_spec())) }.into()),
        ("kill", Kill { epoch: Some(5), run_id: run_id(), grace_ms: Some(2_000), by: "anna".into() }.into()),
        ("suspend", Suspend { epoch: Some(5), run_id: run_id(), by: "anna".into() }.into()),
        ("resume", Resume { epoch: Some(5), run_id: run_id(), by: "anna".into() }.into()),
        ("facts", Facts { facts: vec![run_fact(), run_fact()] }.into()),
        ("acks_notice", Acks { acks: Vec::new(), position: None, notice: "look".into() }.into()),
        (
            "acks",
            Acks { acks: vec![run_position()], position: Some(position()), notice: String::new() }.into(),
        ),
        ("refused", refused.into()),
        ("no_record", NoRecord { run_id: run_id() }.into()),
        ("agent_state", agent_state(false).into()),
        ("agent_state_2", agent_state(true).into()),
        ("agent_state_3", AgentState { untellable: vec![RUN.to_vec()], ..agent_state(false) }.into()),
        (
            "acks_2",
            Acks { acks: vec![run_position()], position: Some(position_2), notice: String::new() }.into(),
        ),
        ("query_output", query(QueryBody::Output(output)).into()),
        ("query_ledger", query(QueryBody::Ledger(LedgerQuery {})).into()),
        ("query_file", query(QueryBody::File(file)).into()),
        ("query_files_stored", query(QueryBody::FilesStored(FilesStored { files: Some(3) })).into()),
        ("answer_output", answer(AnswerBody::Output(data)).into()),
        ("answer_ledger", answer(AnswerBody::Ledger(ledger)).into()),
        ("answer_ledger_2", answer(AnswerBody::Ledger(ledger_2)).into()),
        ("answer_failed", answer(AnswerBody::Failed("no record".into())).into()),
        ("answer_noted", answer(AnswerBody::Noted(Noted { complete: true })).into()),
        ("stream_open", stream_open().into()),
        ("stream_open_trace", stream_open_trace().into()),
        ("stream_open_gaps", StreamOpen { gaps: true, ..stream_open() }.into()),
        (
            "stream_open_file",
            StreamOpen { stream: None, file: Some("report/sum.pdf".into()), ..stream_open() }.into(),
        ),
        ("stream_grant", StreamGrant { stream_id: Some(9), granted: Some(131_072) }.into()),
        ("stream_cancel", StreamCancel { stream_id: Some(9) }.into()),
        ("stream_piece", stream_piece().into()),
        (
            "stream_piece_gap",
            StreamPiece { gap_from: Some(1024), gap_to: Some(4096), ..stream_piece() }.into(),
        ),
        ("stream_end", stream_end().into()),
        ("stream_end_gone", StreamEnd { complete: false, gone: true, ..stream_end() }.into()),
        ("stream_receipt", StreamReceipt { received: Some(70_000) }.into()),
        ("ping", Ping { number: Some(300) }.into()),
        ("pong", Pong { number: Some(300) }.into()),
        ("goodbye", Goodbye { reason: "the server stops".into(), stopping: true }.into()),
        ("unsupported", Unsupported { kind: Some(999) }.into()),
    ]
}

/// Messages that stand on disk or on a run's control socket.
fn bare() -> Vec<(&'static str, Vec<u8>)> {
    let stop = Stop { grace_ms: Some(2_000), by: "anna".into() };
    let pause = PauseOrder { by: "anna".into() };
    let control = |body| Control { body: Some(body) }.encode_to_vec();
    let mut bare = vec![
        ("run_spec_control", run_spec_control().encode_to_vec()),
        ("control_suspend", control(ControlBody::Suspend(pause.clone()))),
        ("control_resume", control(ControlBody::Resume(pause))),
        ("run_spec", run_spec().encode_to_vec()),
        ("run_spec_attributes", run_spec_attributes().encode_to_vec()),
        ("run_spec_needs", run_spec_needs().encode_to_vec()),
        ("fact_accepted", fact(FactBody::Accepted(Accepted { boot_id: Some(BOOT.to_vec()) }))),
        ("fact_started", fact(FactBody::Started(started()))),
        ("fact_ended", fact(FactBody::Ended(ended()))),
        ("fact_note", fact(FactBody::Note(Note { text: "leftovers were killed".into() }))),
        ("control_stop", control(ControlBody::Stop(stop))),
    ];
    bare.extend(control_facts().map(|(name, body)| (name, fact(body))));
    bare
}

fn frame_bytes(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    frames().into_iter().map(|(name, frame)| (name, frame_bytes(&frame))).chain(bare()).collect()
}

fn folder(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("golden/v{version}"))
}

/// In the folder of the version that brought its kind; what is no frame was there from the beginning.
fn path_of(name: &str) -> PathBuf {
    let frame = frames().into_iter().find(|(its, _)| *its == name);
    folder(frame.map_or(1, |(_, frame)| frame.since())).join(name).with_extension("hex")
}

/// Sixteen bytes to a line.
fn to_hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ") + "\n";
    bytes.chunks(16).map(line).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal bytes")).collect()
}

fn golden(name: &str) -> Vec<u8> {
    let path = path_of(name);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}; see golden/README.md", path.display()));
    from_hex(&text)
}

#[test]
fn every_message_is_written_as_its_first_version_wrote_it() {
    for (name, bytes) in samples() {
        assert_eq!(
            to_hex(&bytes),
            to_hex(&golden(name)),
            "{name}: the bytes on the wire and on disk changed"
        );
    }
}

#[test]
fn every_frame_of_every_version_is_read() {
    for (name, frame) in frames() {
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        decoder.feed(&golden(name));
        assert_eq!(decoder.take(), Ok(Some(frame)), "{name}");
        assert_eq!(decoder.pending_bytes(), 0, "{name}");
    }
}

#[test]
fn everything_that_an_older_self_left_on_disk_is_read() {
    assert_eq!(RunSpec::read(&golden("run_spec")), Ok(run_spec()));
    assert_eq!(RunSpec::read(&golden("run_spec_attributes")), Ok(run_spec_attributes()));
    let body = |name: &str| Fact::read(&golden(name)).expect(name).body.expect(name);
    assert_eq!(body("fact_accepted"), FactBody::Accepted(Accepted { boot_id: Some(BOOT.to_vec()) }));
    assert_eq!(body("fact_started"), FactBody::Started(started()));
    assert_eq!(body("fact_ended"), FactBody::Ended(ended()));
    assert_eq!(body("fact_note"), FactBody::Note(Note { text: "leftovers were killed".into() }));
    for name in ["control_stop", "control_suspend", "control_resume"] {
        let control = Control::decode(&golden(name)[..]).expect(name);
        assert_eq!(control.encode_to_vec(), golden(name));
    }
    assert_eq!(RunSpec::read(&golden("run_spec_control")), Ok(run_spec_control()));
    assert_eq!(RunSpec::read(&golden("run_spec_needs")), Ok(run_spec_needs()));
    for (name, expected) in control_facts() {
        assert_eq!(body(name), expected);
    }
}

/// What a session of that role makes of each golden frame, by the version that both chose.
fn received(role: Role, version: u32) -> Vec<(u32, &'static str, Result<Received, SessionError>)> {
    let judge = |(name, frame): (&'static str, Frame)| {
        let mut session = Session::new(role, version, Timing::default(), 0);
        establish(&mut session, role);
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        decoder.feed(&golden(name));
        let read = decoder.take().expect(name).expect(name);
        (frame.since(), name, session.on_frame(1, &read))
    };
    frames().into_iter().map(judge).collect()
}

/// Both introduced themselves, in the bytes of version 1.
fn establish(session: &mut Session, role: Role) {
    let hellos = [Frame::from(AgentHello { more: false, ..agent_hello() }), server_hello().into()];
    for (frame, speaker) in hellos.into_iter().zip([Role::Agent, Role::Server]) {
        let said =
            if speaker == role { session.on_send(0, &frame) } else { session.on_frame(0, &frame).map(drop) };
        said.expect("the introduction is that of version 1");
    }
}

#[test]
fn with_a_peer_of_version_1_all_frames_of_version_1_mean_what_they_meant_and_no_other_means_anything() {
    for role in [Role::Agent, Role::Server] {
        let (before, now) = (received(role, 1), received(role, PROTOCOL_VERSION));
        for ((since, name, old), (_, _, new)) in before.into_iter().zip(now) {
            match since {
                1 => assert_eq!(old, new, "{role} {name}"),
                _ => assert!(matches!(old, Ok(Received::Unsupported(_))), "{role} {name}: {old:?}"),
            }
        }
    }
}

#[test]
fn to_a_peer_of_version_1_nothing_is_sent_that_it_does_not_know() {
    for (name, frame) in frames().into_iter().filter(|(_, frame)| frame.since() > 1) {
        for role in [Role::Agent, Role::Server] {
            let mut session = Session::new(role, 1, Timing::default(), 0);
            establish(&mut session, role);
            assert!(matches!(session.on_send(1, &frame), Err(SessionError::TooNew { .. })), "{role} {name}");
        }
    }
}

#[test]
fn fields_of_a_newer_version_are_ignored_in_every_message() {
    let newer = [0xfa, 0x3e, 3, b'n', b'e', b'w']; // field 1007, three bytes
    for (name, frame) in frames() {
        let mut bytes = golden(name);
        bytes.extend(newer);
        let rest = bytes.len() as u32 - 4;
        bytes[..4].copy_from_slice(&rest.to_be_bytes());
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        decoder.feed(&bytes);
        assert_eq!(decoder.take(), Ok(Some(frame)), "{name}");
    }
    let spec = [&golden("run_spec")[..], &newer].concat();
    assert_eq!(RunSpec::read(&spec), Ok(run_spec()));
}

#[test]
fn a_kind_of_fact_of_a_newer_version_is_kept_and_passed_on() {
    let mut newer = Fact { at_ms: Some(1), body: None }.encode_to_vec();
    newer.extend([0xfa, 0x3e, 3, b'n', b'e', b'w']);
    let fact = Fact::read(&newer).expect("readable");
    assert_eq!(fact.body, None);
    assert!(fact.at_ms.is_some());
}

#[test]
fn no_golden_file_is_without_its_sample() {
    let paths: Vec<_> = samples().into_iter().map(|(name, _)| path_of(name)).collect();
    for version in 1..=PROTOCOL_VERSION {
        for entry in fs::read_dir(folder(version)).expect("a folder for every version") {
            let path = entry.expect("readable").path();
            assert!(paths.contains(&path), "{}", path.display());
        }
    }
}

#[test]
#[ignore = "writes into the source tree; only for messages that are new"]
fn write_missing_golden_files() {
    for (name, bytes) in samples() {
        let path = path_of(name);
        if !path.exists() {
            fs::write(&path, to_hex(&bytes)).expect("the source tree can be written");
        }
    }
}

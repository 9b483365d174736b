use super::*;

type Machine = Handshake<Vec<u8>>;

const SECRET: [u8; 32] = [1; 32];
const OLD_SECRET: [u8; 32] = [2; 32];

fn local(role: Role, dialled: bool) -> Local {
    let (name, nonce) = match role {
        Role::Agent => ("host1", [0x0a; 32]),
        Role::Server => ("node-a", [0x05; 32]),
    };
    Local {
        role,
        dialled,
        name: name.into(),
        expected_peer: None,
        versions: Versions::OURS,
        nonce,
        decoy: [9; 32],
        exporter: [7; 32],
        prove_with: 0,
    }
}

/// Runs both machines against each other: what the dialler concludes and what the acceptor concludes.
fn meet(
    dialler: Local,
    dialler_secrets: &[[u8; 32]],
    acceptor: Local,
    acceptor_secrets: &[[u8; 32]],
) -> (Result<Step, HandshakeError>, Result<Step, HandshakeError>) {
    let secrets = |all: &[[u8; 32]]| all.iter().map(|s| s.to_vec()).collect::<Vec<_>>();
    let (mut dialler, mut acceptor) = (Machine::new(dialler), Machine::new(acceptor));
    let (from_dialler, from_acceptor) = (dialler.hello(), acceptor.hello());
    let waits = acceptor.on_frame(&from_dialler.into(), |_| secrets(acceptor_secrets));
    let proof = match dialler.on_frame(&from_acceptor.into(), |_| secrets(dialler_secrets)) {
        Ok(Step::Prove(proof)) => proof,
        other => return (other, waits),
    };
    if waits != Ok(Step::Wait) {
        return (Err(dialler.on_closed()), waits);
    }
    let concluded = acceptor.on_frame(&proof.into(), |_| unreachable!("asked twice"));
    let Ok(Step::Proved { reply: Some(reply), .. }) = &concluded else {
        return (Err(dialler.on_closed()), concluded);
    };
    (dialler.on_frame(&reply.clone().into(), |_| unreachable!("asked twice")), concluded)
}

fn is_proved(step: &Result<Step, HandshakeError>, name: &str) -> bool {
    matches!(step, Ok(Step::Proved { peer, version: PROTOCOL_VERSION, .. }) if peer == name)
}

#[test]
fn both_sides_prove_themselves_whoever_dials() {
    let (dialler, acceptor) =
        meet(local(Role::Agent, true), &[SECRET], local(Role::Server, false), &[SECRET]);
    assert!(is_proved(&dialler, "node-a") && is_proved(&acceptor, "host1"));
    let (dialler, acceptor) =
        meet(local(Role::Server, true), &[SECRET], local(Role::Agent, false), &[SECRET]);
    assert!(is_proved(&dialler, "host1") && is_proved(&acceptor, "node-a"));
}

/// The same, as version 1 was: it spoke that one only.
fn speaking_1(local: Local) -> Local {
    Local { versions: Versions { min: 1, max: 1 }, ..local }
}

#[test]
fn this_version_and_the_one_before_choose_the_older_whoever_dials_and_whoever_is_older() {
    let version_of = |step: Result<Step, HandshakeError>| match step {
        Ok(Step::Proved { version, .. }) => version,
        other => panic!("{other:?}"),
    };
    for role in [Role::Agent, Role::Server] {
        let (older, ours) = (speaking_1(local(role, true)), local(role.other(), false));
        let (dialler, acceptor) = meet(older, &[SECRET], ours, &[SECRET]);
        assert_eq!((version_of(dialler), version_of(acceptor)), (1, 1), "the {role} is older and dials");
        let (ours, older) = (local(role.other(), true), speaking_1(local(role, false)));
        let (dialler, acceptor) = meet(ours, &[SECRET], older, &[SECRET]);
        assert_eq!((version_of(dialler), version_of(acceptor)), (1, 1), "the {role} is older and is dialled");
    }
}

#[test]
fn the_tags_are_those_of_the_document() {
    let hex = |tag: &[u8]| tag.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (mut agent, mut server) = (
        Machine::new(speaking_1(local(Role::Agent, true))),
        Machine::new(speaking_1(local(Role::Server, false))),
    );
    server.on_frame(&agent.hello().into(), |_| vec![SECRET.to_vec()]).unwrap();
    let Ok(Step::Prove(first)) = agent.on_frame(&server.hello().into(), |_| vec![SECRET.to_vec()]) else {
        panic!()
    };
    assert_eq!(hex(&first.tag), "d3d4414be8e516102896a2014328b80c68b4a26b2d128e1fe3ee04cc81ee627d");
    let Ok(Step::Proved { reply: Some(second), .. }) = server.on_frame(&first.into(), |_| vec![]) else {
        panic!()
    };
    assert_eq!(hex(&second.tag), "81eea92572be3bcce59c6a2d9c56ef242a63f210ab8ae26292164438da0ebdc8");
}

#[test]
fn a_wrong_secret_is_refused_by_whoever_checks() {
    let (dialler, acceptor) =
        meet(local(Role::Agent, true), &[[3; 32]], local(Role::Server, false), &[SECRET]);
    assert_eq!(acceptor, Err(HandshakeError::WrongSecret { name: "host1".into() }));
    assert_eq!(dialler, Err(HandshakeError::Refused { name: "node-a".into() }));
}

#[test]
fn an_impostor_that_accepts_cannot_prove_itself_to_the_dialler() {
    let mut dialler = Machine::new(local(Role::Server, true));
    let hello = Machine::new(local(Role::Agent, false)).hello();
    assert!(matches!(dialler.on_frame(&hello.into(), |_| vec![SECRET.to_vec()]), Ok(Step::Prove(_))));
    let forged = AuthProof { tag: vec![0; TAG_BYTES] };
    assert_eq!(
        dialler.on_frame(&forged.into(), |_| vec![]),
        Err(HandshakeError::WrongSecret { name: "host1".into() })
    );
}

#[test]
fn a_name_that_is_not_known_looks_like_a_wrong_secret_from_outside() {
    let (dialler, acceptor) = meet(local(Role::Agent, true), &[SECRET], local(Role::Server, false), &[]);
    assert_eq!(acceptor, Err(HandshakeError::UnknownPeer { name: "host1".into() }));
    assert_eq!(dialler, Err(HandshakeError::Refused { name: "node-a".into() }));
    // The dialler that does not know whom it reached still sends a proof, which fits nothing.
    let (dialler, acceptor) = meet(local(Role::Agent, true), &[], local(Role::Server, false), &[SECRET]);
    assert_eq!(acceptor, Err(HandshakeError::WrongSecret { name: "host1".into() }));
    assert_eq!(dialler, Err(HandshakeError::UnknownPeer { name: "node-a".into() }));
}

#[test]
fn amid_a_rotation_the_second_secret_is_as_good() {
    let (dialler, acceptor) =
        meet(local(Role::Agent, true), &[OLD_SECRET], local(Role::Server, false), &[SECRET, OLD_SECRET]);
    assert!(is_proved(&dialler, "node-a") && is_proved(&acceptor, "host1"));
    // A dialler that is ahead of its peer comes in with the second attempt.
    let first = local(Role::Server, true);
    let second = Local { prove_with: 1, ..first.clone() };
    let (_, acceptor) = meet(first, &[SECRET, OLD_SECRET], local(Role::Agent, false), &[OLD_SECRET]);
    assert!(matches!(acceptor, Err(HandshakeError::WrongSecret { .. })));
    let (dialler, acceptor) = meet(second, &[SECRET, OLD_SECRET], local(Role::Agent, false), &[OLD_SECRET]);
    assert!(is_proved(&dialler, "host1") && is_proved(&acceptor, "node-a"));
}

#[test]
fn a_proof_relayed_over_another_tls_connection_is_worth_nothing() {
    let relayed = Local { exporter: [8; 32], ..local(Role::Server, false) };
    let (_, acceptor) = meet(local(Role::Agent, true), &[SECRET], relayed, &[SECRET]);
    assert_eq!(acceptor, Err(HandshakeError::WrongSecret { name: "host1".into() }));
}

#[test]
fn a_replayed_proof_is_worth_nothing() {
    let record = |nonce: [u8; 32]| {
        let mut agent = Machine::new(Local { nonce: [0x0a; 32], ..local(Role::Agent, true) });
        let server = Machine::new(Local { nonce, ..local(Role::Server, false) });
        match agent.on_frame(&server.hello().into(), |_| vec![SECRET.to_vec()]) {
            Ok(Step::Prove(proof)) => (agent.hello(), proof),
            other => panic!("{other:?}"),
        }
    };
    let (hello, proof) = record([1; 32]);
    let mut later = Machine::new(Local { nonce: [2; 32], ..local(Role::Server, false) });
    assert_eq!(later.on_frame(&hello.into(), |_| vec![SECRET.to_vec()]), Ok(Step::Wait));
    assert!(matches!(later.on_frame(&proof.into(), |_| vec![]), Err(HandshakeError::WrongSecret { .. })));
}

#[test]
fn reflected_words_are_refused() {
    let mut dialler = Machine::new(local(Role::Server, true));
    let mirrored = AuthHello { role: Some(Role::Agent.kind() as i32), ..dialler.hello() };
    assert!(matches!(
        dialler.on_frame(&mirrored.into(), |_| vec![SECRET.to_vec()]),
        Err(HandshakeError::Reflected { what: "nonce", .. })
    ));

    let mut dialler = Machine::new(local(Role::Server, true));
    let hello = Machine::new(local(Role::Agent, false)).hello();
    let Ok(Step::Prove(ours)) = dialler.on_frame(&hello.into(), |_| vec![SECRET.to_vec()]) else { panic!() };
    assert!(matches!(
        dialler.on_frame(&ours.into(), |_| vec![]),
        Err(HandshakeError::Reflected { what: "proof", .. })
    ));
}

#[test]
fn two_of_a_kind_do_not_talk() {
    let peer = Local { nonce: [3; 32], ..local(Role::Agent, false) };
    let (dialler, acceptor) = meet(local(Role::Agent, true), &[SECRET], peer, &[SECRET]);
    assert!(matches!(dialler, Err(HandshakeError::SameRole { role: Role::Agent, .. })));
    assert!(matches!(acceptor, Err(HandshakeError::SameRole { role: Role::Agent, .. })));
}

#[test]
fn the_highest_version_of_both_is_spoken_and_a_gap_is_named() {
    let speaks = |min, max| Versions { min, max };
    assert_eq!(speaks(1, 3).chosen_with(speaks(2, 5)), Some(3));
    assert_eq!(speaks(1, 1).chosen_with(speaks(1, 2)), Some(1));
    assert_eq!(speaks(1, 1).chosen_with(speaks(2, 3)), None);

    let newer = Local { versions: speaks(2, 3), ..local(Role::Server, false) };
    let (dialler, _) = meet(speaking_1(local(Role::Agent, true)), &[SECRET], newer, &[SECRET]);
    let text = dialler.unwrap_err().to_string();
    assert!(text.contains("2 to 3") && text.contains("1 to 1"), "{text}");
}

#[test]
fn another_name_than_the_dialled_one_is_refused() {
    let dials = Local { expected_peer: Some("host2".into()), ..local(Role::Server, true) };
    let (dialler, _) = meet(dials, &[SECRET], local(Role::Agent, false), &[SECRET]);
    assert_eq!(dialler, Err(HandshakeError::WrongName { name: "host1".into(), expected: "host2".into() }));
}

#[test]
fn words_that_cannot_be_are_refused() {
    let good = Machine::new(local(Role::Agent, true)).hello();
    let refused = |hello: AuthHello| {
        Machine::new(local(Role::Server, false))
            .on_frame(&hello.into(), |_| vec![SECRET.to_vec()])
            .unwrap_err()
    };
    assert_eq!(refused(AuthHello { role: None, ..good.clone() }), HandshakeError::BadField { field: "role" });
    assert_eq!(
        refused(AuthHello { version_max: Some(0), ..good.clone() }),
        HandshakeError::BadField { field: "version_max" }
    );
    assert_eq!(
        refused(AuthHello { name: String::new(), ..good.clone() }),
        HandshakeError::BadField { field: "name" }
    );
    assert_eq!(
        refused(AuthHello { name: "a\nb".into(), ..good.clone() }),
        HandshakeError::BadField { field: "name" }
    );
    assert!(matches!(
        refused(AuthHello { nonce: vec![1; 31], ..good }),
        HandshakeError::BadNonce { bytes: 31, .. }
    ));
    let early =
        Machine::new(local(Role::Server, false)).on_frame(&Frame::Goodbye(Default::default()), |_| vec![]);
    assert_eq!(early, Err(HandshakeError::OutOfTurn { got: "Goodbye", expected: "AuthHello" }));
}

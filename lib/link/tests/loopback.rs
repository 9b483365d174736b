//! Links over TCP on loopback, and everything that is not a peer in good order.

use link::{Endpoint, IpRange, Link, LinkError, Options, Role, Secret, Secrets, keep_dialled, listen};
use protocol::Frame;
use protocol::frame::{FRAME_BYTES_MAX_BEFORE_AUTH, FrameError};
use protocol::handshake::{HandshakeError, PROTOCOL_VERSION};
use protocol::message::{AgentHello, AuthHello, Facts, Goodbye, RoleKind, ServerHello};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, rustls, server};

const DEADLINE: Duration = Duration::from_secs(20);
const NEW: u8 = 1;
const OLD: u8 = 2;

/// By name, the first bytes of the secrets that are valid.
#[derive(Default)]
struct Book(Mutex<HashMap<String, Vec<u8>>>);

impl Secrets for Book {
    fn of_peer(&self, name: &str) -> Vec<Secret> {
        let book = self.0.lock().expect("no test panics with the lock");
        let valid = book.get(name).cloned().unwrap_or_default();
        valid.into_iter().map(|byte| Secret::from_bytes(vec![byte; 32]).expect("32 bytes")).collect()
    }
}

fn book(peer: &str, secrets: &[u8]) -> Arc<Book> {
    Arc::new(Book(Mutex::new(HashMap::from([(peer.to_owned(), secrets.to_vec())]))))
}

fn endpoint(role: Role, peer: &str, secrets: &[u8], options: Options) -> Arc<Endpoint> {
    let name = if role == Role::Agent { "host1" } else { "node-a" };
    Endpoint::new(role, name.into(), book(peer, secrets), options).expect("TLS can be set up")
}

fn agent(secrets: &[u8]) -> Arc<Endpoint> {
    endpoint(Role::Agent, "node-a", secrets, Options::default())
}

fn server(secrets: &[u8]) -> Arc<Endpoint> {
    endpoint(Role::Server, "host1", secrets, Options::default())
}

/// Listens; gives the address and what comes of it.
async fn open(endpoint: Arc<Endpoint>) -> (SocketAddr, mpsc::Receiver<Link>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (links_in, links) = mpsc::channel(16);
    tokio::spawn(listen(endpoint, listener, links_in));
    (address, links)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("within the deadline")
}

async fn dial(endpoint: &Endpoint, address: SocketAddr) -> Result<Link, LinkError> {
    within(endpoint.dial("127.0.0.1", address.port(), None)).await
}

/// One accepted and one dialled connection: what each side makes of it.
async fn meet(
    dialler: &Endpoint,
    acceptor: Arc<Endpoint>,
) -> (Result<Link, LinkError>, Result<Link, LinkError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let accepting = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("accept");
        acceptor.accept(tcp).await
    });
    let dialled = dial(dialler, address).await;
    (dialled, within(accepting).await.expect("no panic"))
}

fn handshake_error(result: Result<Link, LinkError>) -> HandshakeError {
    match result {
        Err(LinkError::Handshake(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// They introduce themselves, and a fact goes over.
async fn converse(mut agent: Link, mut server: Link) {
    agent.sender.send(AgentHello::default().into()).await.expect("open");
    assert_eq!(server.receiver.recv().await.expect("open"), AgentHello::default().into());
    server.sender.send(ServerHello::default().into()).await.expect("open");
    assert_eq!(agent.receiver.recv().await.expect("open"), ServerHello::default().into());
    agent.sender.send(Facts::default().into()).await.expect("open");
    assert_eq!(server.receiver.recv().await.expect("open"), Facts::default().into());
    server.sender.close(Some(Goodbye { reason: "done".into(), stopping: false }));
    let reason = agent.receiver.recv().await.expect_err("the server said goodbye");
    assert!(matches!(reason, LinkError::Goodbye { stopping: false, .. }), "{reason}");
}

#[tokio::test]
async fn either_side_dials() {
    let (address, mut links) = open(server(&[NEW])).await;
    let ours = dial(&agent(&[NEW]), address).await.unwrap();
    let theirs = within(links.recv()).await.unwrap();
    assert_eq!(
        (ours.peer.name.as_str(), ours.peer.role, ours.peer.version),
        ("node-a", Role::Server, PROTOCOL_VERSION)
    );
    assert_eq!((theirs.peer.name.as_str(), theirs.peer.role), ("host1", Role::Agent));
    assert!(ours.peer.dialled_by_us && !theirs.peer.dialled_by_us);
    assert_eq!(ours.peer.address, address);
    within(converse(ours, theirs)).await;

    let (address, mut links) = open(agent(&[NEW])).await;
    let ours = within(server(&[NEW]).dial("localhost", address.port(), Some("host1"))).await.unwrap();
    let theirs = within(links.recv()).await.unwrap();
    within(converse(theirs, ours)).await;
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_name_look_the_same_from_outside() {
    let (ours, theirs) = meet(&agent(&[NEW]), server(&[OLD])).await;
    let refused = handshake_error(ours);
    assert_eq!(refused, HandshakeError::Refused { name: "node-a".into() });
    assert_eq!(handshake_error(theirs), HandshakeError::WrongSecret { name: "host1".into() });

    let nobody = endpoint(Role::Server, "host2", &[NEW], Options::default());
    let (ours, theirs) = meet(&agent(&[NEW]), nobody).await;
    assert_eq!(handshake_error(ours), refused);
    assert_eq!(handshake_error(theirs), HandshakeError::UnknownPeer { name: "host1".into() });

    let stranger = endpoint(Role::Agent, "node-b", &[NEW], Options::default());
    let (ours, theirs) = meet(&stranger, server(&[NEW])).await;
    assert_eq!(handshake_error(ours), HandshakeError::UnknownPeer { name: "node-a".into() });
    assert_eq!(handshake_error(theirs), HandshakeError::WrongSecret { name: "host1".into() });
}

#[tokio::test]
async fn amid_a_rotation_either_side_may_be_ahead_whoever_dials() {
    for (dialler, acceptor) in
        [(&[NEW, OLD][..], &[OLD][..]), (&[OLD], &[NEW, OLD]), (&[NEW, OLD], &[OLD, NEW])]
    {
        let (address, mut links) = open(server(acceptor)).await;
        let ours = dial(&agent(dialler), address).await.unwrap();
        within(converse(ours, links.recv().await.unwrap())).await;
        let (address, mut links) = open(agent(acceptor)).await;
        let ours = dial(&server(dialler), address).await.unwrap();
        within(converse(links.recv().await.unwrap(), ours)).await;
    }
}

#[tokio::test]
async fn another_peer_than_the_dialled_one_is_refused() {
    let (address, _links) = open(agent(&[NEW])).await;
    let result = within(server(&[NEW]).dial("127.0.0.1", address.port(), Some("host7"))).await;
    let wrong = HandshakeError::WrongName { name: "host1".into(), expected: "host7".into() };
    assert_eq!(handshake_error(result), wrong);
}

#[tokio::test]
async fn an_agent_that_dials_an_agent_is_told_so() {
    let (address, _links) = open(agent(&[NEW])).await;
    let error = handshake_error(dial(&agent(&[NEW]), address).await);
    assert!(matches!(&error, HandshakeError::SameRole { role: Role::Agent, .. }), "{error}");
}

#[tokio::test]
async fn garbage_closes_its_own_connection_and_nothing_else() {
    let (address, mut links) = open(server(&[NEW])).await;
    let zeros = [0; 4096];
    let client_hello_with_a_lie = b"\x16\x03\x01\xff\xff\x01\x00\xff\xff";
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &zeros, b"\x16\x03\x01", client_hello_with_a_lie, b""] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let _refused = tcp.write_all(garbage).await;
        let _refused = tcp.shutdown().await;
        let mut answer = Vec::new();
        let _reset = within(tcp.read_to_end(&mut answer)).await;
        assert!(answer.len() < 100, "nothing is told to a stranger but TLS's alert");
    }
    let ours = dial(&agent(&[NEW]), address).await.unwrap();
    within(converse(ours, links.recv().await.unwrap())).await;
}

#[tokio::test]
async fn a_correct_peer_gets_in_amid_a_flood_from_the_same_address() {
    let (address, mut links) = open(server(&[NEW])).await;
    let flood = tokio::spawn(async move {
        loop {
            if let Ok(mut tcp) = TcpStream::connect(address).await {
                let _refused = tcp.write_all(b"garbage garbage garbage").await;
                let _refused = tcp.read_u8().await;
            }
        }
    });
    let (links_in, mut dialled) = mpsc::channel(1);
    tokio::spawn(keep_dialled(agent(&[NEW]), address.to_string(), None, links_in));
    let ours = within(dialled.recv()).await.unwrap();
    within(converse(ours, links.recv().await.unwrap())).await;
    flood.abort();
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_keep_a_connection_open() {
    let options = Options { handshake_timeout: Duration::from_millis(300), ..Options::default() };
    let (address, _links) = open(endpoint(Role::Server, "host1", &[NEW], options)).await;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = tcp.split();
    let slow = async {
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = slow => {}
        _closed = within(read.read_to_end(&mut answer)) => {}
    }
}

#[tokio::test]
async fn silent_guests_make_room_for_those_who_speak() {
    let options = Options { unauthenticated_max: 3, handshake_timeout: DEADLINE * 10, ..Options::default() };
    let (address, mut links) = open(endpoint(Role::Server, "host1", &[NEW], options)).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let ours = dial(&agent(&[NEW]), address).await.unwrap();
    within(converse(ours, links.recv().await.unwrap())).await;
    let closed = within(silent[0].read_u8()).await;
    assert!(closed.is_err(), "the oldest was closed");
}

#[tokio::test]
async fn addresses_that_are_not_on_the_list_stay_out_and_are_not_dialled() {
    let allow = vec!["192.0.2.0/24".parse::<IpRange>().unwrap()];
    let options = Options { allow, ..Options::default() };
    let closed = endpoint(Role::Server, "host1", &[NEW], options.clone());
    let (ours, theirs) = meet(&agent(&[NEW]), closed).await;
    assert!(ours.is_err() && matches!(theirs, Err(LinkError::NotAllowed { .. })));
    let careful = endpoint(Role::Agent, "node-a", &[NEW], options);
    assert!(matches!(
        dial(&careful, "127.0.0.1:9".parse().unwrap()).await,
        Err(LinkError::NotAllowed { .. })
    ));
}

#[tokio::test]
async fn a_name_without_an_address_is_an_error_that_names_it() {
    let error = within(agent(&[NEW]).dial("no-such-host.invalid", 1, None)).await.unwrap_err();
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}

/// TLS without a proof, as a stranger or somebody in the middle has it.
async fn tls_to(address: SocketAddr) -> client::TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.expect("connect");
    let connector = TlsConnector::from(Arc::new(stranger::client_config()));
    let name = rustls::pki_types::ServerName::try_from("anybody.invalid").expect("a name");
    connector.connect(name, tcp).await.expect("TLS with anybody")
}

async fn tls_from(tcp: TcpStream) -> server::TlsStream<TcpStream> {
    let acceptor = TlsAcceptor::from(Arc::new(stranger::server_config()));
    acceptor.accept(tcp).await.expect("TLS with anybody")
}

#[tokio::test]
async fn somebody_in_the_middle_who_passes_everything_on_gets_nowhere() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let middle = listener.local_addr().unwrap();
    let real = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let real_address = real.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let (mut victim, mut onward) = (tls_from(tcp).await, tls_to(real_address).await);
        let _over = copy_bidirectional(&mut victim, &mut onward).await;
    });
    let accepting = tokio::spawn(async move {
        let (tcp, _) = real.accept().await.unwrap();
        server(&[NEW]).accept(tcp).await
    });
    let ours = dial(&agent(&[NEW]), middle).await;
    assert_eq!(handshake_error(ours), HandshakeError::Refused { name: "node-a".into() });
    let theirs = within(accepting).await.unwrap();
    assert_eq!(handshake_error(theirs), HandshakeError::WrongSecret { name: "host1".into() });
}

async fn say(stream: &mut client::TlsStream<TcpStream>, frame: impl Into<Frame>) {
    let mut bytes = Vec::new();
    frame.into().encode(&mut bytes);
    stream.write_all(&bytes).await.expect("still open");
    stream.flush().await.expect("still open");
}

fn hello() -> AuthHello {
    let role = Some(RoleKind::Agent as i32);
    AuthHello { version_max: Some(1), version_min: Some(1), role, name: "host1".into(), nonce: vec![5; 32] }
}

/// What a server makes of what a stranger says over good TLS.
async fn refusal_of(talk: impl AsyncFnOnce(&mut client::TlsStream<TcpStream>)) -> LinkError {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let accepting = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("accept");
        server(&[NEW]).accept(tcp).await
    });
    let mut stream = within(tls_to(address)).await;
    within(talk(&mut stream)).await;
    within(accepting).await.expect("no panic").expect_err("a stranger")
}

#[tokio::test]
async fn strangers_over_good_tls_are_told_apart_in_the_trace() {
    let oversize = refusal_of(async |stream| {
        let length = FRAME_BYTES_MAX_BEFORE_AUTH as u32 + 1;
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    });
    assert!(matches!(oversize.await, LinkError::Frame(FrameError::TooLong { .. })));

    let unknown_kind = refusal_of(async |stream| say(stream, Frame::Unknown { kind: 999 }).await);
    assert!(matches!(unknown_kind.await, LinkError::Handshake(HandshakeError::OutOfTurn { .. })));

    let newer = AuthHello { version_max: Some(9), version_min: Some(8), ..hello() };
    let version = refusal_of(async |stream| say(stream, newer).await).await;
    assert!(version.to_string().contains("8 to 9"), "{version}");

    let short_nonce = AuthHello { nonce: vec![1; 8], ..hello() };
    let nonce = refusal_of(async |stream| say(stream, short_nonce).await);
    assert!(matches!(nonce.await, LinkError::Handshake(HandshakeError::BadNonce { bytes: 8, .. })));

    let forged = refusal_of(async |stream| {
        say(stream, hello()).await;
        say(stream, protocol::message::AuthProof { tag: vec![0; 32] }).await;
    });
    assert!(matches!(forged.await, LinkError::Handshake(HandshakeError::WrongSecret { .. })));

    let fact_first = refusal_of(async |stream| say(stream, Facts::default()).await);
    assert!(matches!(fact_first.await, LinkError::Handshake(HandshakeError::OutOfTurn { got: "Facts", .. })));
}

#[tokio::test]
async fn the_servers_own_words_sent_back_prove_nothing() {
    let error = refusal_of(async |stream| {
        let mut bytes = vec![0; 4096];
        let n = stream.read(&mut bytes).await.unwrap();
        let mut decoder = protocol::frame::FrameDecoder::new(FRAME_BYTES_MAX_BEFORE_AUTH);
        decoder.feed(&bytes[..n]);
        let Some(Frame::AuthHello(theirs)) = decoder.take().unwrap() else { panic!("a hello comes first") };
        say(stream, AuthHello { nonce: theirs.nonce, ..hello() }).await;
    });
    assert!(matches!(error.await, LinkError::Handshake(HandshakeError::Reflected { what: "nonce", .. })));
}

#[tokio::test]
async fn who_is_kept_dialled_comes_back_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (links_in, mut dialled) = mpsc::channel(1);
    tokio::spawn(keep_dialled(server(&[NEW]), address.to_string(), Some("host1".into()), links_in));
    let agent = agent(&[NEW]);
    for round in 0..4 {
        let (tcp, _) = within(listener.accept()).await.unwrap();
        if round % 2 == 0 {
            drop(tcp); // and it tries again
            continue;
        }
        let theirs = within(agent.accept(tcp)).await.unwrap();
        let ours = within(dialled.recv()).await.unwrap();
        assert_eq!(ours.peer.name, "host1");
        drop(theirs);
        within(ours.sender.closed()).await;
    }
    drop(dialled);
}

/// TLS with any certificate: what everybody in the middle can do.
mod stranger {
    use super::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use super::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
    use super::rustls::{
        ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
        crypto::aws_lc_rs::default_provider, version::TLS13,
    };
    use std::sync::Arc;

    #[derive(Debug)]
    struct Anything;

    impl ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    }

    pub(crate) fn client_config() -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything))
            .with_no_client_auth()
    }

    pub(crate) fn server_config() -> ServerConfig {
        let made = rcgen::generate_simple_self_signed(["middle.invalid".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("its own key")
    }
}

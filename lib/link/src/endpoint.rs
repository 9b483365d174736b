//! Dialling and accepting: from a name or a TCP connection to a link.

use crate::auth::{Proven, Seen, prove};
use crate::{IpRange, Link, LinkError, Peer, Secrets, tls, version};
use protocol::Role;
use protocol::handshake::{
    EXPORTER_BYTES, EXPORTER_LABEL, HandshakeError, Local, NAME_BYTES_MAX, NONCE_BYTES,
};
use protocol::session::{HEARTBEAT_MS, SILENCE_MS_MAX, Timing};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// The kernel asks an idle peer after this long, and this often, whether it is there; our own heartbeats come first.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);
/// The kernel takes no more than this beyond what it can send now: what waits, waits in our lanes, where its order can still change.
const UNSENT_BYTES_MAX: u32 = 32 << 10;

/// What can be set.
#[derive(Clone, Debug)]
pub struct Options {
    /// For the name to be looked up, and for each address to answer.
    pub connect_timeout: Duration,
    /// For TLS and proofs together, however slowly the peer speaks.
    pub handshake_timeout: Duration,
    /// Who may connect and be connected to; empty: everybody.
    pub allow: Vec<IpRange>,
    /// Connections that may be at their proofs at the same time; beyond that the oldest one is closed.
    pub unauthenticated_max: usize,
    /// A ping is sent when nothing was sent for this long.
    pub heartbeat: Duration,
    /// The link is closed when nothing came, or nothing could be written, for this long.
    pub silence_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            allow: Vec::new(),
            unauthenticated_max: 256,
            heartbeat: Duration::from_millis(HEARTBEAT_MS),
            silence_max: Duration::from_millis(SILENCE_MS_MAX),
        }
    }
}

/// An endpoint cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// TLS cannot be set up.
    #[error("cannot prepare TLS: {what}")]
    Tls {
        /// What failed.
        what: String,
    },
    /// No peer would take this name.
    #[error(
        "the name {name:?} cannot be used: 1 to {NAME_BYTES_MAX} bytes without control characters are needed"
    )]
    Name {
        /// The name.
        name: String,
    },
}

/// One side of all its links: its name, its certificate, the secrets it shares.
pub struct Endpoint {
    pub(crate) options: Options,
    allow: RwLock<Vec<IpRange>>,
    role: Role,
    name: String,
    secrets: Arc<dyn Secrets>,
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

/// How we came to a connection.
enum Way<'a> {
    Dialled { expected_peer: Option<&'a str>, prove_with: usize },
    Accepted,
}

impl Endpoint {
    /// Makes a certificate of its own in memory. `name`: the agent's, or the server node's.
    pub fn new(
        role: Role,
        name: String,
        secrets: Arc<dyn Secrets>,
        options: Options,
    ) -> Result<Arc<Endpoint>, EndpointError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(EndpointError::Name { name });
        }
        let (connector, acceptor) = tls::configure()?;
        let allow = RwLock::new(options.allow.clone());
        Ok(Arc::new(Endpoint { options, allow, role, name, secrets, connector, acceptor }))
    }

    /// Another list of who may connect and be connected to; empty: everybody. Links in use stay.
    pub fn set_allow(&self, allow: Vec<IpRange>) {
        *self.allow.write().unwrap_or_else(PoisonError::into_inner) = allow;
    }

    /// Looks the name up now and tries every address. With `expected_peer`, only the peer of that name will do.
    pub async fn dial(&self, host: &str, port: u16, expected_peer: Option<&str>) -> Result<Link, LinkError> {
        let mut farthest: Option<LinkError> = None;
        for address in self.look_up(host, port).await?.into_iter().take(ADDRESSES_MAX) {
            match self.dial_address(address, expected_peer).await {
                Ok(link) => return Ok(link),
                Err(error) if farthest.as_ref().is_some_and(|f| f.progress() >= error.progress()) => {}
                Err(error) => farthest = Some(error),
            }
        }
        Err(farthest.unwrap_or_else(|| {
            let source = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            LinkError::Lookup { host: host.to_owned(), source: Arc::new(source) }
        }))
    }

    /// Makes a link of a connection that came in, if its peer proves itself.
    pub async fn accept(&self, tcp: TcpStream) -> Result<Link, LinkError> {
        let address = tcp.peer_addr().map_err(|source| io_error("ask the address of", source))?;
        self.check_allowed(address.ip())?;
        let mut seen = Seen::default();
        let link = self.make_link(tcp, address, Way::Accepted, &mut seen).await;
        self.count_failure(link, &seen, address)
    }

    /// A proof that failed is the secrets' owner's to know.
    fn count_failure(
        &self,
        link: Result<Link, LinkError>,
        seen: &Seen,
        address: SocketAddr,
    ) -> Result<Link, LinkError> {
        if let Err(LinkError::Handshake(reason)) = &link {
            self.secrets.on_failure(seen.name.as_deref(), address, reason);
        }
        link
    }

    async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, LinkError> {
        let looked_up = timeout(self.options.connect_timeout, lookup_host((host, port))).await;
        match looked_up.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(addresses) => Ok(addresses.collect()),
            Err(source) => Err(LinkError::Lookup { host: host.to_owned(), source: Arc::new(source) }),
        }
    }

    /// Amid a rotation the peer may know only an older secret than our newest: it then hangs up, and the next one is tried on
    /// a new connection.
    async fn dial_address(
        &self,
        address: SocketAddr,
        expected_peer: Option<&str>,
    ) -> Result<Link, LinkError> {
        self.check_allowed(address.ip())?;
        let (mut prove_with, mut seen) = (0, Seen { secrets: 0, name: expected_peer.map(str::to_owned) });
        loop {
            let connected = timeout(self.options.connect_timeout, TcpStream::connect(address)).await;
            let tcp = connected
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|source| LinkError::Connect { address, source: Arc::new(source) })?;
            let way = Way::Dialled { expected_peer, prove_with };
            match self.make_link(tcp, address, way, &mut seen).await {
                Err(LinkError::Handshake(HandshakeError::Refused { .. }))
                    if prove_with + 1 < seen.secrets =>
                {
                    prove_with += 1;
                }
                result => return self.count_failure(result, &seen, address),
            }
        }
    }

    async fn make_link(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        way: Way<'_>,
        seen: &mut Seen,
    ) -> Result<Link, LinkError> {
        self.tune(&tcp).map_err(|source| io_error("set up", source))?;
        let after = self.options.handshake_timeout;
        let established = timeout(after, async {
            let (mut stream, exporter) = self.start_tls(tcp, &way).await?;
            let local = self.local(&way, exporter)?;
            let proven = prove(&mut stream, local, &*self.secrets, seen).await?;
            Ok((stream, proven))
        });
        let (stream, Proven { name, version, decoder }) =
            established.await.unwrap_or(Err(LinkError::HandshakeTimeout { after }))?;
        let dialled_by_us = matches!(way, Way::Dialled { .. });
        let peer = Peer { name, role: self.role.other(), address, version, dialled_by_us };
        Ok(Link::start(stream, peer, self.timing(), decoder))
    }

    async fn start_tls(
        &self,
        tcp: TcpStream,
        way: &Way<'_>,
    ) -> Result<(TlsStream<TcpStream>, [u8; EXPORTER_BYTES]), LinkError> {
        let failed = |source| LinkError::Tls { source: Arc::new(source) };
        let no_exporter = |error: rustls::Error| failed(io::Error::other(error));
        match way {
            Way::Dialled { .. } => {
                let name = ServerName::try_from(tls::SERVER_NAME)
                    .map_err(|e| failed(io::Error::other(e.to_string())))?;
                let stream = self.connector.connect(name, tcp).await.map_err(failed)?;
                let exporter =
                    stream.get_ref().1.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None);
                Ok((stream.into(), exporter.map_err(no_exporter)?))
            }
            Way::Accepted => {
                let stream = self.acceptor.accept(tcp).await.map_err(failed)?;
                let exporter =
                    stream.get_ref().1.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None);
                Ok((stream.into(), exporter.map_err(no_exporter)?))
            }
        }
    }

    fn local(&self, way: &Way<'_>, exporter: [u8; EXPORTER_BYTES]) -> Result<Local, LinkError> {
        let (mut nonce, mut decoy) = ([0; NONCE_BYTES], [0; 32]);
        for random in [&mut nonce, &mut decoy] {
            getrandom::fill(random)
                .map_err(|e| io_error("get random bytes for", io::Error::other(e.to_string())))?;
        }
        let (dialled, expected_peer, prove_with) = match way {
            Way::Dialled { expected_peer, prove_with } => {
                (true, expected_peer.map(str::to_owned), *prove_with)
            }
            Way::Accepted => (false, None, 0),
        };
        let (role, name, versions) = (self.role, self.name.clone(), version::ours());
        Ok(Local { role, dialled, name, expected_peer, versions, nonce, decoy, exporter, prove_with })
    }

    pub(crate) fn check_allowed(&self, address: IpAddr) -> Result<(), LinkError> {
        let allow = self.allow.read().unwrap_or_else(PoisonError::into_inner);
        match allow.is_empty() || allow.iter().any(|range| range.contains(address)) {
            true => Ok(()),
            false => Err(LinkError::NotAllowed { address }),
        }
    }

    fn timing(&self) -> Timing {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Timing { heartbeat_ms: ms(self.options.heartbeat), silence_ms_max: ms(self.options.silence_max) }
    }

    fn tune(&self, tcp: &TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(tcp);
        socket.set_tcp_keepalive(&KEEPALIVE)?;
        socket.set_tcp_user_timeout(Some(self.options.silence_max))?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
    }
}

fn io_error(what: &'static str, source: io::Error) -> LinkError {
    LinkError::Io { what, source: Arc::new(source) }
}

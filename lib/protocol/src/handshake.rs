//! The proof of the shared secret, bound to the TLS connection it is given on.
//!
//! ```text
//! dialler (TLS client)                          acceptor (TLS server)
//!   AuthHello ─────────────────▶ ◀───────────────── AuthHello      at once, both ways
//!   AuthProof ─────────────────▶ checks; silent close if wrong
//!   checks; silent close if wrong ◀──────────────── AuthProof      with the secret that matched
//! ```
//!
//! A tag is HMAC-SHA256 over the prover's part, who dialled, both names, both nonces, the versions and the TLS exporter of
//! this very connection (RFC 9266). So it is worth nothing on another connection (replay, relay by somebody in the middle) and
//! nothing in the other direction (reflection).
//!
//! Failure paths: every one is a [`HandshakeError`], whose text is for our trace only. The peer is told nothing: a name that is
//! not known looks to it exactly like a wrong secret, for we answer it with a proof by a key that nobody has.

use crate::message::{AuthHello, AuthProof};
use crate::{Frame, Role};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// The highest protocol version of this program.
pub const PROTOCOL_VERSION: u32 = 2;
/// The lowest that it still speaks.
pub const PROTOCOL_VERSION_MIN: u32 = 1;
/// Length of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Length of a tag.
pub const TAG_BYTES: usize = 32;
/// Length of what is taken from the TLS exporter.
pub const EXPORTER_BYTES: usize = 32;
/// The label of the TLS exporter, with an empty context (RFC 9266).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// A name has at least one byte and at most this many.
pub const NAME_BYTES_MAX: usize = 255;

const LABEL: &[u8] = b"lastword-auth-v1";

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The lowest.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

impl Versions {
    /// Those of this program.
    pub const OURS: Versions = Versions { min: PROTOCOL_VERSION_MIN, max: PROTOCOL_VERSION };

    /// The highest version that both speak.
    fn chosen_with(self, other: Versions) -> Option<u32> {
        let chosen = self.max.min(other.max);
        (chosen >= self.min && chosen >= other.min).then_some(chosen)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// What one side brings to the proof.
#[derive(Clone)]
pub struct Local {
    /// Our part.
    pub role: Role,
    /// Whether we dialled (and so are the TLS client and prove first).
    pub dialled: bool,
    /// Our name.
    pub name: String,
    /// Whom we dialled, if it must be somebody certain.
    pub expected_peer: Option<String>,
    /// The versions that we speak.
    pub versions: Versions,
    /// Random, new for every connection.
    pub nonce: [u8; NONCE_BYTES],
    /// Random, new for every connection: the key for a proof to a peer that is not known.
    pub decoy: [u8; 32],
    /// From the TLS exporter of this connection.
    pub exporter: [u8; EXPORTER_BYTES],
    /// Which of the valid secrets a dialler proves with: 0, the newest. Amid a rotation the peer may lack that one; then the dialler
    /// tries the next on a new connection.
    pub prove_with: usize,
}

/// What to do after a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing; wait for the next frame.
    Wait,
    /// Send our proof, then wait for the peer's.
    Prove(AuthProof),
    /// The peer proved itself. The session begins after `reply` was sent, if there is one.
    Proved {
        /// The name that it proved.
        peer: String,
        /// The version that both speak.
        version: u32,
        /// Our own proof, on the side that proves second.
        reply: Option<AuthProof>,
    },
}

/// Why there is no trust; the text is the line for the trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Another frame than the one whose turn it was.
    #[error("the peer sent a frame {got} where {expected} was due")]
    OutOfTurn {
        /// What came.
        got: &'static str,
        /// What was due.
        expected: &'static str,
    },
    /// A field that must be known is missing or impossible.
    #[error("the peer's AuthHello has no valid field \"{field}\"")]
    BadField {
        /// Which.
        field: &'static str,
    },
    /// An agent talks to an agent, or a server to a server.
    #[error("the peer {name:?} is {role} like us: the address is not that of {}", role.other())]
    SameRole {
        /// Its name.
        name: String,
        /// The part that both play.
        role: Role,
    },
    /// No version that both speak.
    #[error("the peer {name:?} speaks protocol versions {theirs}, we speak {ours}: upgrade the older one")]
    Version {
        /// Its name.
        name: String,
        /// Ours.
        ours: Versions,
        /// Its.
        theirs: Versions,
    },
    /// A nonce of the wrong length.
    #[error("the peer {name:?} sent a nonce of {bytes} bytes, {NONCE_BYTES} are due")]
    BadNonce {
        /// Its name.
        name: String,
        /// The length.
        bytes: usize,
    },
    /// Our own words came back.
    #[error("the peer {name:?} sent our own {what} back to us: a reflection, nobody who knows the secret")]
    Reflected {
        /// Its name.
        name: String,
        /// Which of our words.
        what: &'static str,
    },
    /// Somebody else than the one that was dialled.
    #[error("{expected:?} was dialled and {name:?} answered: check the address or the name")]
    WrongName {
        /// Who answered.
        name: String,
        /// Who was dialled.
        expected: String,
    },
    /// Nobody of that name is known here.
    #[error("the peer calls itself {name:?}, which is not known here")]
    UnknownPeer {
        /// The name.
        name: String,
    },
    /// Its tag is not that of any valid secret.
    #[error(
        "the peer {name:?} does not know the shared secret (or somebody stands in the middle): compare the secret files of both sides"
    )]
    WrongSecret {
        /// Its name.
        name: String,
    },
    /// The peer closed instead of its first word.
    #[error(
        "the peer closed the connection before its first word: it does not speak our protocol, or refuses our address for now"
    )]
    ClosedSilently,
    /// The peer closed instead of proving itself.
    #[error(
        "the peer {name:?} closed the connection instead of proving itself: its trace says why (a wrong secret, or our name is not known there)"
    )]
    Refused {
        /// Its name.
        name: String,
    },
}

/// The machine of one side. `S`: a secret, as bytes.
pub struct Handshake<S> {
    local: Local,
    state: State<S>,
}

enum State<S> {
    AwaitHello,
    AwaitProof { peer: Hello, version: u32, secrets: Vec<S>, our_tag: Option<[u8; TAG_BYTES]> },
    Over,
}

/// A checked [`AuthHello`].
#[derive(Clone)]
struct Hello {
    name: String,
    versions: Versions,
    nonce: [u8; NONCE_BYTES],
}

impl<S: AsRef<[u8]>> Handshake<S> {
    /// Begins; [`Handshake::hello`] is to be sent at once.
    pub fn new(local: Local) -> Handshake<S> {
        Handshake { local, state: State::AwaitHello }
    }

    /// Our first word.
    pub fn hello(&self) -> AuthHello {
        AuthHello {
            version_max: Some(self.local.versions.max),
            version_min: Some(self.local.versions.min),
            role: Some(self.local.role.kind() as i32),
            name: self.local.name.clone(),
            nonce: self.local.nonce.to_vec(),
        }
    }

    /// A frame came. `secrets_of` gives the valid secrets for a name, newest first; it is asked at most once.
    pub fn on_frame(
        &mut self,
        frame: &Frame,
        secrets_of: impl FnOnce(&str) -> Vec<S>,
    ) -> Result<Step, HandshakeError> {
        match (std::mem::replace(&mut self.state, State::Over), frame) {
            (State::AwaitHello, Frame::AuthHello(hello)) => self.on_hello(hello, secrets_of),
            (State::AwaitProof { peer, version, secrets, our_tag }, Frame::AuthProof(proof)) => {
                self.on_proof(&peer, version, &secrets, our_tag, proof)
            }
            (State::AwaitHello, other) => {
                Err(HandshakeError::OutOfTurn { got: other.name(), expected: "AuthHello" })
            }
            (State::AwaitProof { .. }, other) => {
                Err(HandshakeError::OutOfTurn { got: other.name(), expected: "AuthProof" })
            }
            (State::Over, other) => {
                Err(HandshakeError::OutOfTurn { got: other.name(), expected: "nothing more" })
            }
        }
    }

    /// The peer closed the connection: what that means here.
    pub fn on_closed(&self) -> HandshakeError {
        match &self.state {
            State::AwaitHello | State::Over => HandshakeError::ClosedSilently,
            State::AwaitProof { peer, secrets, .. } if secrets.is_empty() => {
                HandshakeError::UnknownPeer { name: peer.name.clone() }
            }
            State::AwaitProof { peer, .. } => HandshakeError::Refused { name: peer.name.clone() },
        }
    }

    fn on_hello(
        &mut self,
        hello: &AuthHello,
        secrets_of: impl FnOnce(&str) -> Vec<S>,
    ) -> Result<Step, HandshakeError> {
        let peer = self.checked(hello)?;
        let Some(version) = self.local.versions.chosen_with(peer.versions) else {
            return Err(HandshakeError::Version {
                name: peer.name,
                ours: self.local.versions,
                theirs: peer.versions,
            });
        };
        if self.local.expected_peer.as_ref().is_some_and(|expected| *expected != peer.name) {
            let expected = self.local.expected_peer.clone().unwrap_or_default();
            return Err(HandshakeError::WrongName { name: peer.name, expected });
        }
        let secrets = secrets_of(&peer.name);
        if !self.local.dialled {
            self.state = State::AwaitProof { peer, version, secrets, our_tag: None };
            return Ok(Step::Wait);
        }
        let chosen = secrets
            .get(self.local.prove_with)
            .or(secrets.last())
            .map_or(&self.local.decoy[..], AsRef::as_ref);
        let tag = self.tag(chosen, self.local.role, &peer, version);
        self.state = State::AwaitProof { peer, version, secrets, our_tag: Some(tag) };
        Ok(Step::Prove(AuthProof { tag: tag.to_vec() }))
    }

    fn checked(&self, hello: &AuthHello) -> Result<Hello, HandshakeError> {
        let bad = |field| HandshakeError::BadField { field };
        let name = hello.name.clone();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(bad("name"));
        }
        let role = Role::from_field(hello.role).ok_or(bad("role"))?;
        if role == self.local.role {
            return Err(HandshakeError::SameRole { name, role });
        }
        let min = hello.version_min.ok_or(bad("version_min"))?;
        let max = hello.version_max.filter(|max| *max >= min).ok_or(bad("version_max"))?;
        let Ok(nonce) = <[u8; NONCE_BYTES]>::try_from(hello.nonce.as_slice()) else {
            return Err(HandshakeError::BadNonce { name, bytes: hello.nonce.len() });
        };
        if nonce == self.local.nonce {
            return Err(HandshakeError::Reflected { name, what: "nonce" });
        }
        Ok(Hello { name, versions: Versions { min, max }, nonce })
    }

    fn on_proof(
        &self,
        peer: &Hello,
        version: u32,
        secrets: &[S],
        our_tag: Option<[u8; TAG_BYTES]>,
        proof: &AuthProof,
    ) -> Result<Step, HandshakeError> {
        if our_tag.is_some_and(|ours| ours[..] == proof.tag[..]) {
            return Err(HandshakeError::Reflected { name: peer.name.clone(), what: "proof" });
        }
        let their_role = self.local.role.other();
        let matches = |secret: &[u8]| self.tag(secret, their_role, peer, version).ct_eq(proof.tag.as_slice());
        // Every valid secret is tried, and for a peer that is not known one that nobody has: equal work, equal silence.
        let mut matched = None;
        for secret in secrets {
            if bool::from(matches(secret.as_ref())) {
                matched = Some(secret);
            }
        }
        if secrets.is_empty() {
            let _never: Choice = matches(&self.local.decoy);
            return Err(HandshakeError::UnknownPeer { name: peer.name.clone() });
        }
        let Some(secret) = matched else {
            return Err(HandshakeError::WrongSecret { name: peer.name.clone() });
        };
        let reply = (!self.local.dialled)
            .then(|| AuthProof { tag: self.tag(secret.as_ref(), self.local.role, peer, version).to_vec() });
        Ok(Step::Proved { peer: peer.name.clone(), version, reply })
    }

    /// The tag of `prover`'s side. `docs/protocol.md` has the layout of the input byte by byte.
    fn tag(&self, secret: &[u8], prover: Role, peer: &Hello, version: u32) -> [u8; TAG_BYTES] {
        let us =
            Hello { name: self.local.name.clone(), versions: self.local.versions, nonce: self.local.nonce };
        let (agent, server) = match self.local.role {
            Role::Agent => (&us, peer),
            Role::Server => (peer, &us),
        };
        let prover_dialled = (prover == self.local.role) == self.local.dialled;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        mac.update(LABEL);
        mac.update(&[prover.kind() as u8, u8::from(prover_dialled)]);
        for side in [agent, server] {
            // Names have at most NAME_BYTES_MAX bytes: ours by its configuration, the peer's by `checked`.
            mac.update(&(side.name.len() as u16).to_be_bytes());
            mac.update(side.name.as_bytes());
        }
        mac.update(&agent.nonce);
        mac.update(&server.nonce);
        for number in
            [version, agent.versions.min, agent.versions.max, server.versions.min, server.versions.max]
        {
            mac.update(&number.to_be_bytes());
        }
        mac.update(&self.local.exporter);
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;

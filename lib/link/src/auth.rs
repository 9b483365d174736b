//! Drives the proofs over a fresh TLS connection.

use crate::{LinkError, Secret, Secrets};
use protocol::Frame;
use protocol::frame::{FRAME_BYTES_MAX, FRAME_BYTES_MAX_BEFORE_AUTH, FrameDecoder};
use protocol::handshake::{Handshake, Local, Step};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Who proved itself, and what came behind its proof already.
pub(crate) struct Proven {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) decoder: FrameDecoder,
}

/// What was learnt of a peer before it proved itself.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How many secrets are valid with it.
    pub(crate) secrets: usize,
    /// What it calls itself, or who was dialled.
    pub(crate) name: Option<String>,
}

/// Proves both sides to each other. `seen` is filled in once the peer has said its name.
pub(crate) async fn prove<IO>(
    stream: &mut IO,
    local: Local,
    secrets: &dyn Secrets,
    seen: &mut Seen,
) -> Result<Proven, LinkError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut machine = Handshake::<Secret>::new(local);
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX_BEFORE_AUTH);
    say(stream, &machine, machine.hello().into()).await?;
    loop {
        let frame = next_frame(stream, &mut decoder, &machine).await?;
        let step = machine.on_frame(&frame, |name| {
            let valid = secrets.of_peer(name);
            (seen.secrets, seen.name) = (valid.len(), Some(name.to_owned()));
            valid
        })?;
        match step {
            Step::Wait => {}
            Step::Prove(proof) => say(stream, &machine, proof.into()).await?,
            Step::Proved { peer, version, reply } => {
                if let Some(reply) = reply {
                    say(stream, &machine, reply.into()).await?;
                }
                decoder.set_bytes_max(FRAME_BYTES_MAX);
                return Ok(Proven { name: peer, version, decoder });
            }
        }
    }
}

async fn say<IO: AsyncWrite + Unpin>(
    stream: &mut IO,
    machine: &Handshake<Secret>,
    frame: Frame,
) -> Result<(), LinkError> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    let written = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    written.await.map_err(|error| over("write to", machine, error))
}

async fn next_frame<IO: AsyncRead + Unpin>(
    stream: &mut IO,
    decoder: &mut FrameDecoder,
    machine: &Handshake<Secret>,
) -> Result<Frame, LinkError> {
    let mut bytes = [0; 1024];
    loop {
        if let Some(frame) = decoder.take()? {
            return Ok(frame);
        }
        match stream.read(&mut bytes).await {
            Ok(0) => return Err(machine.on_closed().into()),
            Ok(n) => decoder.feed(&bytes[..n]),
            Err(error) => return Err(over("read from", machine, error)),
        }
    }
}

/// A peer that refuses us closes; depending on what was on its way that is seen in several ways.
fn over(what: &'static str, machine: &Handshake<Secret>, error: io::Error) -> LinkError {
    match is_hang_up(&error) {
        true => machine.on_closed().into(),
        false => LinkError::Io { what, source: Arc::new(error) },
    }
}

/// Whether an error means just that the other side is gone.
pub(crate) fn is_hang_up(error: &io::Error) -> bool {
    [
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::BrokenPipe,
    ]
    .contains(&error.kind())
}

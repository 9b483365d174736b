//! The run's control socket: what the network-processor asks of a running job. One message, one answer, one connection.

use os::seqpacket::{self, Received};
use prost::Message;
use protocol::message::{Control, ControlBody};
use rustix::event::{PollFd, PollFlags};
use spool::{CONTROL_SOCKET, RunDir};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How long a connected asker may take, milliseconds: it writes at once.
const ASK_MS_MAX: i64 = 200;

/// The listening socket.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: OwnedFd,
}

impl ControlSocket {
    /// Binds it in the run's directory.
    pub(crate) fn bind(dir: &RunDir) -> io::Result<ControlSocket> {
        Ok(ControlSocket { listener: seqpacket::listen(dir.path(), CONTROL_SOCKET, 8)? })
    }

    /// Takes the next request, if one waits. What is not understood is answered here.
    pub(crate) fn next(&self) -> io::Result<Option<Asked>> {
        let Some(asker) = seqpacket::accept(&self.listener)? else { return Ok(None) };
        let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: ASK_MS_MAX * 1_000_000 };
        let _ = rustix::event::poll(&mut [PollFd::new(&asker, PollFlags::IN)], Some(&wait));
        let Ok(Received::Message(bytes, _)) = seqpacket::receive(&asker) else { return Ok(None) };
        let request = Control::decode(bytes.as_slice()).ok().and_then(|control| control.body);
        match request {
            Some(what) => Ok(Some(Asked { what, asker })),
            None => {
                let _ = seqpacket::send(&asker, b"not understood", None);
                Ok(None)
            }
        }
    }

    /// What to poll.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// A request, and who waits for the answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) what: ControlBody,
    asker: OwnedFd,
}

impl Asked {
    /// `true`: it is done. The asker asks again if it did not hear.
    pub(crate) fn answer(&self, done: bool) {
        let _ = seqpacket::send(&self.asker, if done { b"ok" } else { b"not now" }, None);
    }
}

//! Unix sockets with whole messages and descriptors: the monitor's socket, a run's control socket, the wake-up socket.
//!
//! A socket's path may be at most 107 bytes, a data root may be deeper: sockets are bound and reached through
//! `/proc/self/fd/N/name`, where N is the directory's descriptor.

use crate::disk;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

/// The longest message, bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// There is always room for this much: nearly all messages are shorter.
const SMALL_BYTES: usize = 1024;

/// Binds a listening socket at `dir/name`, replacing what is there (the caller holds the lock of that directory). Non-blocking.
pub fn listen(dir: &Path, name: &str, backlog: i32) -> io::Result<OwnedFd> {
    let socket = bind(dir, name, SocketType::SEQPACKET)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Binds a datagram socket at `dir/name`, replacing what is there. Non-blocking.
pub fn bind_datagram(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    bind(dir, name, SocketType::DGRAM)
}

fn bind(dir: &Path, name: &str, kind: SocketType) -> io::Result<OwnedFd> {
    let dir_fd = disk::open_dir(dir)?;
    let socket = socket(kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match rustix::fs::unlinkat(&dir_fd, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    // The name inherits the socket's mode; nobody but the owner connects unless he gives it away.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    rustix::net::bind(&socket, &address(&dir_fd, name)?)?;
    Ok(socket)
}

/// Two connected sockets, blocking: one to keep, one for a child.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Takes a waiting connection. `None`: nobody waits. The new descriptor is non-blocking.
pub fn accept(listener: impl AsFd) -> io::Result<Option<OwnedFd>> {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Connects to the socket at `dir/name` at once or not at all: a listener that is stopped and whose backlog is full is an error. The
/// descriptor is blocking.
pub fn connect(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    let dir_fd = disk::open_dir(dir)?;
    let socket = socket(SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::connect(&socket, &address(&dir_fd, name)?)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

/// Sends one datagram to `dir/name` and does not wait: a hint may be lost.
pub fn hint(dir: &Path, name: &str, message: &[u8]) -> io::Result<()> {
    let dir_fd = disk::open_dir(dir)?;
    let socket = socket(SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::sendto(
        &socket,
        message,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        &address(&dir_fd, name)?,
    )?;
    Ok(())
}

fn socket(kind: SocketType, flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?)
}

fn address(dir: &OwnedFd, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?)
}

/// Sends one message, with a descriptor if given. Waits unless the socket is non-blocking.
pub fn send(socket: impl AsFd, message: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = passed.into_iter().collect();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)
    })?;
    if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Waits until there is something to receive; `false`: the time was over first.
pub fn wait_readable(socket: impl AsFd, timeout: std::time::Duration) -> io::Result<bool> {
    let timeout = rustix::time::Timespec {
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let mut fds = [rustix::event::PollFd::new(&socket, rustix::event::PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))? > 0)
}

/// What [`receive`] found.
#[derive(Debug)]
pub enum Received {
    /// A message, and the descriptor that came with it.
    Message(Vec<u8>, Option<OwnedFd>),
    /// Nothing yet (non-blocking sockets only).
    Nothing,
    /// The other side closed.
    Closed,
}

/// Receives one message. A message longer than [`MESSAGE_BYTES_MAX`] is an error, and so is one longer than 1 KiB that comes while nothing
/// waits: ask only when the socket is readable.
pub fn receive(socket: impl AsFd) -> io::Result<Received> {
    let waiting = rustix::io::ioctl_fionread(&socket).unwrap_or(0);
    let length = usize::try_from(waiting).unwrap_or(usize::MAX).clamp(SMALL_BYTES, MESSAGE_BYTES_MAX);
    let mut bytes = vec![0u8; length];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let result = rustix::net::recvmsg(
        &socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    );
    let message = match result {
        Ok(message) => message,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
        Err(Errno::CONNRESET) => return Ok(Received::Closed),
        Err(e) => return Err(e.into()),
    };
    let mut passed = None;
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = ancillary {
            passed = passed.or(fds.next());
        }
    }
    if message.bytes == 0 && passed.is_none() {
        return Ok(Received::Closed);
    }
    if message.flags.contains(rustix::net::ReturnFlags::TRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message is longer than {length} bytes"),
        ));
    }
    bytes.truncate(message.bytes);
    bytes.shrink_to_fit();
    Ok(Received::Message(bytes, passed))
}

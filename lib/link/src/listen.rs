//! Accepts connections for ever and lets only those through that proved themselves.

use crate::admission::Admission;
use crate::{Endpoint, Link, LinkError};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

/// After a failed accept (no descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts for ever; ends only when nobody takes `links` any more. Each failure is one line of trace; an address that fails
/// too often is closed at once for a while, and said so once. When too many are at their proofs, the oldest is
/// closed: a peer in good order needs milliseconds.
pub async fn listen(endpoint: Arc<Endpoint>, listener: TcpListener, links: mpsc::Sender<Link>) {
    let door = Arc::new(Door { endpoint, links, admission: Mutex::default(), opened: Instant::now() });
    let mut guests = Guests::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.links.closed() => return,
        };
        match accepted {
            Ok((tcp, address)) if door.is_allowed(address) && door.admits(address) => {
                guests.admit(&door, tcp, address)
            }
            Ok((_closed_at_once, _)) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection: raise the limit of open files if it is that");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Door {
    endpoint: Arc<Endpoint>,
    links: mpsc::Sender<Link>,
    admission: Mutex<Admission>,
    opened: Instant,
}

impl Door {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the list of allowed addresses has it. One that it lacks costs a line a minute, and nothing else.
    fn is_allowed(&self, address: SocketAddr) -> bool {
        let Err(reason) = self.endpoint.check_allowed(address.ip()) else { return true };
        if self.admission().on_not_allowed(self.now_ms(), address.ip()) {
            tracing::warn!(%address, "a connection was refused: {reason}");
        }
        false
    }

    fn admits(&self, address: SocketAddr) -> bool {
        self.admission().admits(self.now_ms(), address.ip())
    }

    fn on_failure(&self, address: SocketAddr, reason: &LinkError) {
        let verdict = self.admission().on_failure(self.now_ms(), address.ip());
        if verdict.tell {
            tracing::warn!(%address, "a connection was refused: {reason}");
        }
        if let Some(pause_ms) = verdict.pause_ms {
            let address = address.ip();
            tracing::warn!(%address, pause_ms, "too many failures from this address: it is closed out for a while");
        }
    }

    async fn receive(self: Arc<Self>, tcp: TcpStream, address: SocketAddr) -> Option<Link> {
        match self.endpoint.accept(tcp).await {
            Ok(link) => Some(link),
            Err(reason) => {
                self.on_failure(address, &reason);
                None
            }
        }
    }
}

/// Those who are at their proofs, oldest first.
#[derive(Default)]
struct Guests {
    tasks: JoinSet<()>,
    order: VecDeque<(AbortHandle, SocketAddr)>,
}

impl Guests {
    fn admit(&mut self, door: &Arc<Door>, tcp: TcpStream, address: SocketAddr) {
        while self.tasks.try_join_next().is_some() {}
        self.order.retain(|(task, _)| !task.is_finished());
        while self.order.len() >= door.endpoint.options.unauthenticated_max.max(1) {
            let Some((oldest, address)) = self.order.pop_front() else { break };
            oldest.abort();
            door.on_failure(address, &LinkError::Crowded);
        }
        let guest = door.clone();
        let task = self.tasks.spawn(async move {
            if let Some(link) = guest.clone().receive(tcp, address).await {
                // In a task of its own: who proved itself is no guest any more and is not closed for being slow to be taken.
                tokio::spawn(async move { guest.links.send(link).await });
            }
        });
        self.order.push_back((task, address));
    }
}

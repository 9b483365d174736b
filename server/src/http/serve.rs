//! Connections: how many, how long a head may take, and how it ends.
//!
//! | what a peer does                          | what follows                                                   |
//! |-------------------------------------------|----------------------------------------------------------------|
//! | sends garbage                             | 400 and the end of that connection                             |
//! | takes longer than [`HEAD_MAX`] for a head, or idles | the end of that connection                           |
//! | sends a body too slowly                   | 408 after `guard::REQUEST_MAX`                                 |
//! | does not read its answers                 | the end of that connection, [`Limits::write_max`] after the last byte it took |
//! | vanishes while its answer is awaited or followed | the end of that connection within two minutes    |
//! | opens more than [`Limits::connections`]   | further ones wait unanswered until one ends                    |
//! | is there when the server stops            | its request is finished within [`DRAIN_MAX`]                   |

use super::{AppState, Http, routes};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use socket2::{SockRef, TcpKeepalive};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_io_timeout::TimeoutStream;

/// Connections at the same time, however many files may be open.
const CONNECTIONS_MAX: usize = 2_048;
/// Of the files that may be open, one in so many may be a connection: the database, the agents and the traces need some too.
const OPEN_FILES_SHARE: u64 = 4;
/// For a peer to take the next part of an answer.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// For a request's head, and for the pause between two requests.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// A head's size.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// For what is under way when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// After the system refused a connection (no more descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two clean-ups of the figures' buffers.
const UPKEEP_PAUSE: Duration = Duration::from_secs(10);

/// The kernel asks an idle peer after this long, and this often, whether it is there: a follower of a quiet job sends nothing by itself.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);
/// What was sent and is not acknowledged after this long was sent to a host that is gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

/// What all peers together, and each of them, may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// So long a write may wait for its peer without taking a byte.
    pub write_max: Duration,
}

impl Limits {
    /// For a process that may have so many files open.
    pub fn of_open_files(open_files: u64) -> Limits {
        let share = usize::try_from(open_files / OPEN_FILES_SHARE).unwrap_or(usize::MAX);
        Limits { connections: share.clamp(1, CONNECTIONS_MAX), write_max: WRITE_MAX }
    }
}

/// Serves until `shutdown` is ready, then finishes what is under way: long polls are answered at once, the rest has some seconds.
pub async fn serve(
    app: AppState,
    listener: TcpListener,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let metrics = recorder();
    let upkeep = tokio::spawn(upkeep(metrics.clone()));
    let followers = Arc::new(Semaphore::new((limits.connections / 2).max(1)));
    let router =
        routes::router(Http { app, metrics, stopping, followers, bundles: Arc::new(Semaphore::new(1)) });
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let place = tokio::select! {
            place = room.clone().acquire_owned() => place?,
            () = &mut shutdown => break,
        };
        let (stream, address) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut shutdown => break,
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_max));
        let router = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(address));
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
        });
    }
    drop(listener);
    stop.send_replace(true);
    if tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!("some HTTP requests were cut off by the stop");
    }
    upkeep.abort();
    Ok(())
}

/// The other end of the connection that a request came by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if let Err(error) = tune(&stream) {
                    tracing::debug!(%error, "an HTTP connection keeps the system's settings");
                }
                return (stream, address);
            }
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// An answer is written in one piece anyway; without `nodelay` it might wait for the peer's acknowledgement.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

/// The figures of this process; `None` if something else collects them already.
fn recorder() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).is_ok().then_some(handle)
        })
        .clone()
}

async fn upkeep(metrics: Option<PrometheusHandle>) {
    while let Some(metrics) = &metrics {
        metrics.run_upkeep();
        tokio::time::sleep(UPKEEP_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_watches_over_each_connection_whose_peer_is_quiet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_follower, (stream, _)) = tokio::join!(TcpStream::connect(address), accept(&listener));
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
    }

    #[test]
    fn connections_leave_most_of_the_open_files_to_others() {
        let connections = |open_files| Limits::of_open_files(open_files).connections;
        assert_eq!(
            [0, 256, 1_024, 8_192, 1 << 20, u64::MAX].map(connections),
            [1, 64, 256, 2_048, 2_048, 2_048]
        );
    }
}

//! Connections: how many, how long a head may take, and how it ends.
//!
//! | what a peer does                          | what follows                                                   |
//! |-------------------------------------------|----------------------------------------------------------------|
//! | sends garbage                             | 400 and the end of that connection                             |
//! | takes longer than [`HEAD_MAX`] for a head, or idles | the end of that connection                           |
//! | sends a body too slowly                   | 408 after `guard::REQUEST_MAX`                                 |
//! | does not read its answers                 | the end of that connection, [`Limits::write_max`] after the last byte it took |
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
use std::future::Future;
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
    let router = routes::router(Http { app, metrics, stopping, followers });
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
                // An answer is written in one piece anyway; without this it might wait for the peer's acknowledgement.
                let _ = stream.set_nodelay(true);
                return (stream, address);
            }
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
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

    #[test]
    fn connections_leave_most_of_the_open_files_to_others() {
        let connections = |open_files| Limits::of_open_files(open_files).connections;
        assert_eq!(
            [0, 256, 1_024, 8_192, 1 << 20, u64::MAX].map(connections),
            [1, 64, 256, 2_048, 2_048, 2_048]
        );
    }
}

//! Listening and serving.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use carbon_core::{Classify, Fault, Retry};
use carbon_runtime::{Shutdown, failpoint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

/// How long a client may take to send the head of a request, and a connection may be idle.
const HEADERS: Duration = Duration::from_secs(30);

/// How long nothing is accepted after a failure to accept.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// How long requests under way may take once the shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// Why a service does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "port {port} of {host} is in use by another program; stop it, or set {variable} to another port (0 takes a free one)"
    )]
    PortInUse { host: String, port: u16, variable: String },
    #[error("cannot listen on {host}:{port}: {source}")]
    Bind { host: String, port: u16, source: std::io::Error },
}

impl Classify for ServeError {
    fn fault(&self) -> Fault {
        Fault::User
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }
}

/// Takes a port; `variable` is the setting that an error names.
pub async fn bind(host: &str, port: u16, variable: &str) -> Result<TcpListener, ServeError> {
    TcpListener::bind((host, port)).await.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => ServeError::PortInUse { host: host.to_owned(), port, variable: variable.to_owned() },
        _ => ServeError::Bind { host: host.to_owned(), port, source },
    })
}

/// Shows that a server's loop runs: it beats at least once a second.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// Beats so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The longest time between two beats.
const BEAT: Duration = Duration::from_secs(1);

/// Serves until the shutdown; then answers what is under way, for at most 10 s.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown, heartbeat: Heartbeat) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let connections = GracefulShutdown::new();
    loop {
        heartbeat.beat();
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(BEAT) => continue,
            accepted = listener.accept() => accepted,
        };
        if let Err(error) = failpoint("http::accept").await {
            tracing::error!(%error, "connection was not accepted");
            continue;
        }
        let connection = match accepted {
            Ok((connection, _)) => connection,
            // A peer that left at once, or too many open files: neither ends the service.
            Err(error) => {
                tracing::warn!(%error, "connection was not accepted");
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        // Answers are small and whole: waiting for more to send only delays them.
        let _ = connection.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let serving = connections.watch(http.serve_connection(TokioIo::new(connection), service));
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, connections.shutdown()).await.is_err() {
        tracing::warn!(drain_s = DRAIN.as_secs(), "requests were still under way at the end of the drain");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_says_what_to_set() {
        let taken = bind("127.0.0.1", 0, "ML_QUERY_PORT").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind("127.0.0.1", port, "ML_QUERY_PORT").await.unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("ML_QUERY_PORT"), "{error}");
        assert!(matches!(bind("no host", 1, "X").await, Err(ServeError::Bind { .. })));
    }

    #[tokio::test]
    async fn a_shutdown_ends_the_server() {
        let (listener, shutdown) = (bind("127.0.0.1", 0, "X").await.unwrap(), Shutdown::new());
        let serving = tokio::spawn(serve(listener, Router::new(), shutdown.clone(), Heartbeat::default()));
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_and_half_a_request_is_not_waited_for_long() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (listener, shutdown) = (bind("127.0.0.1", 0, "X").await.unwrap(), Shutdown::new());
        let address = listener.local_addr().unwrap();
        let stop = shutdown.clone();
        let slow = axum::routing::get(move || async move {
            // The shutdown comes while this is under way.
            stop.cancel();
            stop.cancelled().await;
            "answered"
        });
        let serving = tokio::spawn(serve(listener, Router::new().route("/", slow), shutdown, Heartbeat::default()));
        let mut half = tokio::net::TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HT").await.unwrap();
        let mut whole = tokio::net::TcpStream::connect(address).await.unwrap();
        whole.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        whole.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("answered"), "{answer}");
        tokio::time::timeout(DRAIN + Duration::from_secs(5), serving).await.unwrap().unwrap();
    }
}

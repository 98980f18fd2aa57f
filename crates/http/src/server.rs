//! The HTTP/1 server: binds a port, serves connections, and drains them at shutdown.

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

/// Maximum time for the head of a request; also the idle timeout of a connection.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Maximum time for open requests after the shutdown begins.
const DRAIN: Duration = Duration::from_secs(10);

/// Why a service cannot listen on its port.
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

/// Binds a port. `variable` is the setting of the port, which an error names.
pub async fn bind(host: &str, port: u16, variable: &str) -> Result<TcpListener, ServeError> {
    TcpListener::bind((host, port)).await.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => ServeError::PortInUse { host: host.to_owned(), port, variable: variable.to_owned() },
        _ => ServeError::Bind { host: host.to_owned(), port, source },
    })
}

/// Counts the iterations of a server's accept loop, at least one per second, so that a hang is noticed.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// Returns the number of iterations so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Maximum time between two beats.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Serves connections until the shutdown. Then waits up to 10 s for open requests.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown, heartbeat: Heartbeat) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_TIMEOUT);
    let connections = GracefulShutdown::new();
    loop {
        heartbeat.beat();
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(BEAT_INTERVAL) => continue,
            accepted = listener.accept() => accepted,
        };
        if let Err(error) = failpoint("http::accept").await {
            tracing::error!(%error, "accept failed");
            continue;
        }
        let connection = match accepted {
            Ok((connection, _)) => connection,
            // The peer closed the connection, or the process has too many open files. The service goes on.
            Err(error) => {
                tracing::warn!(%error, "accept failed; retrying");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        // Each answer is one small write. Nagle's algorithm would only delay it.
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
        tracing::warn!(drain_s = DRAIN.as_secs(), "drain timed out; open requests were dropped");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_about_a_port_in_use_names_the_setting() {
        let bound = bind("127.0.0.1", 0, "ML_QUERY_PORT").await.unwrap();
        let port = bound.local_addr().unwrap().port();
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
    async fn at_shutdown_an_open_request_is_answered_and_a_partial_request_times_out() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (listener, shutdown) = (bind("127.0.0.1", 0, "X").await.unwrap(), Shutdown::new());
        let address = listener.local_addr().unwrap();
        let stop = shutdown.clone();
        let slow = axum::routing::get(move || async move {
            // The shutdown begins while this handler runs.
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

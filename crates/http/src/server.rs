//! Listening and serving.

use std::io::ErrorKind;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use carbon_core::{Classify, Fault, Retry};
use carbon_runtime::Shutdown;
use tokio::net::TcpListener;

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
    #[error("the server ended: {0}")]
    Ended(std::io::Error),
}

impl Classify for ServeError {
    fn fault(&self) -> Fault {
        match self {
            ServeError::PortInUse { .. } | ServeError::Bind { .. } => Fault::User,
            ServeError::Ended(_) => Fault::External,
        }
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

/// Serves until the shutdown; then answers what is under way, for at most 10 s.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) -> Result<(), ServeError> {
    let listener = listener.tap_io(|connection| {
        // Answers are small and whole: waiting for more to send only delays them.
        let _ = connection.set_nodelay(true);
    });
    let stop = shutdown.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
    tokio::select! {
        ended = async { serving.await } => ended.map_err(ServeError::Ended),
        () = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        } => {
            tracing::warn!(drain_s = DRAIN.as_secs(), "requests were still under way at the end of the drain");
            Ok(())
        }
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
        let serving = tokio::spawn(serve(listener, Router::new(), shutdown.clone()));
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap().unwrap();
    }
}

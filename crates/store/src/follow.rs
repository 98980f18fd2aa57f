//! Notifications of commits by other processes: one connection per process listens for all namespaces of a database.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::broadcast;

/// The channel of `NOTIFY`. The payload is the name of the schema.
pub(crate) const CHANNEL: &str = "carbon_ml_commits";

/// How long to wait after a failed connection before the next attempt.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// The notifications of a database.
#[derive(Clone, Debug)]
pub(crate) struct Commits {
    options: Arc<PgConnectOptions>,
    /// The sender of the listening task, which the first subscriber starts.
    schemas: Arc<OnceLock<broadcast::Sender<String>>>,
}

impl Commits {
    pub fn new(options: Arc<PgConnectOptions>) -> Self {
        Self { options, schemas: Arc::default() }
    }

    pub fn subscribe(&self) -> broadcast::Receiver<String> {
        let schemas = self.schemas.get_or_init(|| {
            let schemas = broadcast::channel(64).0;
            tokio::spawn(listen((*self.options).clone(), schemas.clone()));
            schemas
        });
        schemas.subscribe()
    }
}

/// Forwards notifications until there is no subscriber left.
async fn listen(options: PgConnectOptions, schemas: broadcast::Sender<String>) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    while schemas.receiver_count() > 0 {
        let listened = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            loop {
                let schema = listener.recv().await?.payload().to_owned();
                let _ = schemas.send(schema);
            }
        };
        let Err::<std::convert::Infallible, sqlx::Error>(error) = listened.await;
        tracing::warn!(%error, "listening for commits on Postgres failed; retrying in 1 s");
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

impl crate::Namespace {
    /// Notifications of commits to this namespace; `None` if only this process commits to it.
    pub fn commits(&self) -> Option<CommitsOf> {
        match self {
            crate::Namespace::Sqlite { .. } => None,
            crate::Namespace::Postgres(schema) => {
                Some(CommitsOf { schema: schema.schema.clone(), schemas: schema.postgres.commits.subscribe() })
            }
        }
    }
}

/// Notifications of commits to one namespace.
pub struct CommitsOf {
    schema: String,
    schemas: broadcast::Receiver<String>,
}

impl CommitsOf {
    /// Waits for the next commit, at most `timeout`: a notification is lost when the connection fails.
    pub async fn next(&mut self, timeout: Duration) {
        let next = async {
            loop {
                match self.schemas.recv().await {
                    Ok(schema) if schema != self.schema => {}
                    // The notifications that were skipped may have been of this namespace.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let _ = tokio::time::timeout(timeout, next).await;
    }
}

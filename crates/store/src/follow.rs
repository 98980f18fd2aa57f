//! Who waits for commits of another process: one connection listens for all namespaces of a database.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::broadcast;

/// Where commits are told, by the name of the schema.
pub(crate) const CHANNEL: &str = "carbon_ml_commits";

/// How long after a broken connection the next one is tried.
const AGAIN: Duration = Duration::from_secs(1);

/// The commits of a database, as they are told.
#[derive(Clone, Debug)]
pub(crate) struct Commits {
    options: Arc<PgConnectOptions>,
    /// Listened to from the first who asks on.
    told: Arc<OnceLock<broadcast::Sender<String>>>,
}

impl Commits {
    pub fn new(options: Arc<PgConnectOptions>) -> Self {
        Self { options, told: Arc::default() }
    }

    pub fn subscribe(&self) -> broadcast::Receiver<String> {
        let told = self.told.get_or_init(|| {
            let told = broadcast::channel(64).0;
            tokio::spawn(listen((*self.options).clone(), told.clone()));
            told
        });
        told.subscribe()
    }
}

/// Until nobody is there to be told.
async fn listen(options: PgConnectOptions, told: broadcast::Sender<String>) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    while told.receiver_count() > 0 {
        let listened = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            loop {
                let schema = listener.recv().await?.payload().to_owned();
                let _ = told.send(schema);
            }
        };
        let Err::<std::convert::Infallible, sqlx::Error>(error) = listened.await;
        tracing::warn!(%error, "commits of the store cannot be listened for; trying again");
        tokio::time::sleep(AGAIN).await;
    }
}

impl crate::Namespace {
    /// What is told of each commit; `None` where only this process can make one.
    pub fn commits(&self) -> Option<CommitsOf> {
        match self {
            crate::Namespace::Sqlite { .. } => None,
            crate::Namespace::Postgres(schema) => {
                Some(CommitsOf { schema: schema.schema.clone(), told: schema.postgres.commits.subscribe() })
            }
        }
    }
}

/// The commits of one namespace.
pub struct CommitsOf {
    schema: String,
    told: broadcast::Receiver<String>,
}

impl CommitsOf {
    /// Waits for the next commit, or for this time: a connection may be lost.
    pub async fn next(&mut self, at_most: Duration) {
        let next = async {
            loop {
                match self.told.recv().await {
                    Ok(schema) if schema != self.schema => {}
                    // What was missed may have been of this one.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let _ = tokio::time::timeout(at_most, next).await;
    }
}

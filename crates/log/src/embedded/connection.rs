//! The writer task's connection. It is closed after every failure, and opened again for the next request. The reason:
//! when the disk is full, SQLite rolls the transaction back by itself. sqlx does not notice, and could not begin
//! another transaction on the connection.

use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::health::Access;
use super::state::LogState;
use crate::error::LogError;

/// Owns the connection that writes to the log file.
pub(super) struct WriterConnection {
    options: SqliteConnectOptions,
    /// `None` after a failure.
    connection: Option<SqliteConnection>,
    /// An idle connection that stays open: SQLite deletes the WAL file when the last connection is closed.
    anchor: Option<SqliteConnection>,
    state: Arc<LogState>,
}

impl WriterConnection {
    /// `options` serve to open the same file again, so they must not create a file.
    pub async fn new(
        options: SqliteConnectOptions,
        connection: SqliteConnection,
        state: Arc<LogState>,
    ) -> Result<Self, LogError> {
        let anchor = Some(options.connect().await?);
        state.health.check_files()?;
        Ok(Self { options, connection: Some(connection), anchor, state })
    }

    /// The connection for one transaction. Fails if nothing may be written. The outcome of the transaction must be
    /// passed to [`Self::finish`].
    pub async fn open(&mut self) -> Result<&mut SqliteConnection, LogError> {
        self.state.health.check_writable()?;
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let reopened = self.reopen().await;
                self.state.health.record_outcome(Access::Write, reopened)?
            }
        };
        let connection = self.connection.insert(connection);
        limit_pages(connection).await?;
        Ok(connection)
    }

    async fn reopen(&self) -> Result<SqliteConnection, LogError> {
        fail::fail_point!("log::reopen", |_| Err(LogError::Unavailable("injected".into())));
        let mut connection = self.options.connect().await?;
        self.state.health.check_files()?;
        // A failed commit may be in the file nevertheless.
        self.state.reload(&mut connection).await?;
        tracing::info!("log file reopened after a failed write");
        Ok(connection)
    }

    /// Records the outcome of a transaction. Closes the connection if it failed.
    pub async fn finish<T>(&mut self, outcome: Result<T, LogError>) -> Result<T, LogError> {
        let outcome = self.state.health.record_outcome(Access::Write, outcome);
        if outcome.is_err() {
            close(self.connection.take()).await;
        }
        outcome
    }

    /// Closes both connections.
    pub async fn close(&mut self) {
        close(self.connection.take()).await;
        close(self.anchor.take()).await;
    }
}

/// Failpoint `log::max_page_count`: limits the file to a number of pages, as a full disk does.
async fn limit_pages(connection: &mut SqliteConnection) -> Result<(), LogError> {
    fn limit() -> Option<String> {
        fail::fail_point!("log::max_page_count", |pages| pages);
        None
    }
    if let Some(pages) = limit() {
        let pragma = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::raw_sql(pragma).execute(connection).await?;
    }
    Ok(())
}

async fn close(connection: Option<SqliteConnection>) {
    if let Some(connection) = connection
        && let Err(error) = connection.close().await
    {
        tracing::warn!(%error, "closing a connection to the log file failed");
    }
}

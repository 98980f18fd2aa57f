//! The writer's connection. It is closed after every failure and opened again for the next request: SQLite rolls a
//! transaction back by itself when the disk is full, sqlx does not notice, and no later transaction would begin.

use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::health::Access;
use super::state::State;
use crate::error::LogError;

pub(super) struct WriterConnection {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    /// Stays open and idle, so that no other one is ever the last: SQLite deletes the write-ahead log with that one.
    anchor: Option<SqliteConnection>,
    state: Arc<State>,
}

impl WriterConnection {
    /// `options` must not create a file: they serve to open the same one again.
    pub async fn new(
        options: SqliteConnectOptions,
        connection: SqliteConnection,
        state: Arc<State>,
    ) -> Result<Self, LogError> {
        let anchor = Some(options.connect().await?);
        state.health.files()?;
        Ok(Self { options, connection: Some(connection), anchor, state })
    }

    /// The connection for one transaction, or why nothing may be written. [`Self::done`] takes the outcome.
    pub async fn open(&mut self) -> Result<&mut SqliteConnection, LogError> {
        self.state.health.writable()?;
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let reopened = self.reopen().await;
                self.state.health.note(Access::Write, reopened)?
            }
        };
        let connection = self.connection.insert(connection);
        limit_pages(connection).await?;
        Ok(connection)
    }

    async fn reopen(&self) -> Result<SqliteConnection, LogError> {
        fail::fail_point!("log::reopen", |_| Err(LogError::Unavailable("injected".into())));
        let mut connection = self.options.connect().await?;
        self.state.health.files()?;
        // A commit that failed may be in the file all the same.
        self.state.reload(&mut connection).await?;
        tracing::info!("log file was opened again after a failed write");
        Ok(connection)
    }

    /// After the transaction.
    pub async fn done<T>(&mut self, outcome: Result<T, LogError>) -> Result<T, LogError> {
        let outcome = self.state.health.note(Access::Write, outcome);
        if outcome.is_err() {
            close(self.connection.take()).await;
        }
        outcome
    }

    pub async fn close(&mut self) {
        close(self.connection.take()).await;
        close(self.anchor.take()).await;
    }
}

/// A test may leave the file no room to grow: `log::max_page_count` with a number of pages.
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
        tracing::warn!(%error, "connection to the log file was not closed cleanly");
    }
}

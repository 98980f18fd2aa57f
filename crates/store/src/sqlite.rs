//! A namespace as a SQLite file, with one writer and a few readers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Executor, Sqlite, Transaction};

use carbon_core::Positions;

use crate::checkpoint::{self, Checkpoint, CheckpointError};
use crate::error::StoreError;
use crate::sql::{Connection, Dialect};

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A loss of power: for the log itself.
    Full,
    /// A crash of the process; after a loss of power the file is consistent but may lack the last
    /// commits, which are folded again. For everything derived.
    Derived,
}

/// SQLite's own.
pub const PAGE_BYTES: u32 = 4096;

/// One generation's tables and checkpoint in a file.
#[derive(Clone, Debug)]
pub struct SqliteNamespace {
    path: PathBuf,
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteNamespace {
    /// Opens or creates the file at `path` and applies `ddl` (statements that may run again:
    /// `CREATE … IF NOT EXISTS`). `layout` is refused if the file was made with another one.
    pub async fn open(path: &Path, durability: Durability, layout: i64, ddl: &str) -> Result<Self, StoreError> {
        Self::open_paged(path, durability, layout, ddl, PAGE_BYTES).await
    }

    /// With pages of another size, for tables that are written here and there: a commit writes whole pages.
    pub async fn open_paged(
        path: &Path,
        durability: Durability,
        layout: i64,
        ddl: &str,
        page_bytes: u32,
    ) -> Result<Self, StoreError> {
        let shown = || path.display().to_string();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| StoreError::Io { path: shown(), source })?;
        }
        let synchronous = match durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Derived => SqliteSynchronous::Normal,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .page_size(page_bytes)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .busy_timeout(Duration::from_secs(10))
            .pragma("temp_store", "memory")
            // Pages that a fold comes back to stay in memory: 32 MiB a connection at the most.
            .pragma("cache_size", "-32768")
            // 16 MiB of log before pages are copied to the file: the same page is written once for many batches.
            .pragma("wal_autocheckpoint", (16 * 1024 * 1024 / page_bytes.max(1)).to_string())
            .statement_cache_capacity(64);
        let opened = |source| StoreError::Open { path: shown(), source };
        let pool = |max| SqlitePoolOptions::new().max_connections(max).acquire_timeout(Duration::from_secs(30));
        let writer = pool(1).connect_with(options.clone()).await.map_err(opened)?;
        let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&writer).await.map_err(opened)?;
        if found != 0 && found != layout {
            writer.close().await;
            return Err(StoreError::Layout { path: shown(), found, expected: layout });
        }
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        for part in [checkpoint::DDL, ddl] {
            tx.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(part.to_owned()))).await?;
        }
        tx.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {layout}")))).await?;
        tx.commit().await?;
        let readers = pool(4).connect_lazy_with(options.pragma("query_only", "on"));
        Ok(Self { path: path.to_owned(), writer, readers })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connections for reads, each of which sees the last commit.
    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Starts the one write transaction; a second caller waits. Dropped without
    /// [`Tables::commit`], nothing of it stays.
    pub async fn begin(&self) -> Result<SqliteTables, StoreError> {
        Ok(SqliteTables { tx: self.writer.begin_with("BEGIN IMMEDIATE").await? })
    }

    /// Throws all rows and the checkpoint away, in one transaction. The tables stay.
    pub async fn clear(&self) -> Result<(), StoreError> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let names: Vec<String> =
            sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
                .fetch_all(&mut *tx)
                .await?;
        for name in names {
            let delete = format!("DELETE FROM \"{name}\"");
            tx.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(delete))).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Closes all connections; the file can then be removed.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// The checkpoint as of the last commit.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let mut connection = self.readers.acquire().await?;
        checkpoint::read(&mut Connection::Sqlite(&mut connection)).await
    }
}

/// The tables of a file inside one write transaction.
pub struct SqliteTables {
    pub(crate) tx: Transaction<'static, Sqlite>,
}

impl SqliteTables {
    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// Moves the checkpoint from `from` to `upto` by compare-and-swap, in this transaction.
    /// Only the partitions of `upto` are compared and moved.
    pub async fn advance(&mut self, log: &str, from: &Positions, upto: &Positions) -> Result<(), CheckpointError> {
        checkpoint::advance(&mut Connection::Sqlite(&mut self.tx), Dialect::Sqlite, log, from, upto).await
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

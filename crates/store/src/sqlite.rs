//! A namespace as a SQLite file, with one writer and a few readers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Executor};

use carbon_core::Positions;

use crate::checkpoint::{self, Checkpoint, CheckpointError, Move};
use crate::error::StoreError;
use crate::fill;
use crate::identity::OpenFile;
use crate::lanes::{Lane, Lanes};
use crate::row::Row;
use crate::sql::{Connection, Dialect, QueryBuilder};
use crate::wal::Wal;

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A loss of power: for the log itself.
    Full,
    /// A crash of the process; after a loss of power the file is consistent but may lack the last
    /// commits, which are folded again. For everything derived.
    Derived,
}

/// One generation's tables and checkpoint in a file.
#[derive(Clone, Debug)]
pub struct SqliteNamespace {
    path: PathBuf,
    file: OpenFile,
    writer: Lanes,
    lanes: Lanes,
    readers: SqlitePool,
}

impl SqliteNamespace {
    /// Opens or creates the file at `path` and applies `ddl` (statements that may run again:
    /// `CREATE … IF NOT EXISTS`). `layout` is refused if the file was made with another one.
    pub async fn open(path: &Path, durability: Durability, layout: i64, ddl: &str) -> Result<Self, StoreError> {
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
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .busy_timeout(Duration::from_secs(10))
            .pragma("temp_store", "memory")
            // Pages that are come back to stay in memory: 16 MiB a connection at the most. More costs a writer more than it
            // gains: SQLite looks through all of them after a commit that has balanced a tree.
            .pragma("cache_size", "-16384")
            // Pages are moved to the file beside the writer (`wal.rs`); in the middle of a commit only when 64 MiB wait.
            .pragma("wal_autocheckpoint", "16384")
            // Statements differ by how many rows they write.
            .statement_cache_capacity(256);
        let opened = |source| StoreError::Open { path: shown(), source };
        let mut first = options.connect().await.map_err(opened)?;
        let prepared = prepare(&mut first, &shown(), layout, ddl).await;
        let file = match prepared.and_then(|()| OpenFile::of(path)) {
            Ok(file) => file,
            Err(error) => {
                // Waited for: the caller may delete the file and make it anew.
                if let Err(error) = first.close().await {
                    tracing::debug!(%error, "a connection was not closed cleanly");
                }
                return Err(error);
            }
        };
        // A connection that is opened later must not make an empty file where this one was deleted.
        let options = options.create_if_missing(false);
        let readers = options.clone().pragma("query_only", "on");
        let lanes = Lanes::readers(readers.clone(), file.clone(), 4);
        let writer = Lanes::writer(options, file.clone(), first, Wal::new(lanes.clone()));
        let checked = file.clone();
        let pool = SqlitePoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(30));
        let pool = pool.after_connect(move |_, _| {
            let checked = checked.check().map_err(sqlx::Error::from);
            Box::pin(std::future::ready(checked))
        });
        Ok(Self { path: path.to_owned(), file, writer, lanes, readers: pool.connect_lazy_with(readers) })
    }

    /// [`StoreError::Gone`] if the file was deleted or replaced since it was opened. One `stat`, no SQL.
    pub fn check(&self) -> Result<(), StoreError> {
        self.file.check()
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
        let mut lane = self.writer.take().await?;
        lane.run("BEGIN IMMEDIATE").await?;
        Ok(SqliteTables { lane, moved: None })
    }

    /// As [`Self::begin`], for a batch: the checkpoint must stand at `from`, and is at `upto` after the commit
    /// (compare-and-swap). Only the partitions of `upto` are compared and moved.
    pub async fn begin_at(
        &self,
        log: &str,
        from: &Positions,
        upto: &Positions,
    ) -> Result<SqliteTables, CheckpointError> {
        Ok(self.begin_reading(log, from, upto, Vec::new()).await?.0)
    }

    /// And the rows of what is read first.
    pub(crate) async fn begin_reading(
        &self,
        log: &str,
        from: &Positions,
        upto: &Positions,
        reads: Vec<QueryBuilder>,
    ) -> Result<(SqliteTables, Vec<Row>), CheckpointError> {
        let mut lane = self.writer.take().await.map_err(StoreError::from)?;
        let (found, rows) = checkpoint::begin(&mut lane.connection, reads).await?;
        Ok((SqliteTables { moved: Some(Move::of(found, log, from, upto)?), lane }, rows))
    }

    /// For single statements, where a pool's own care costs as much as they do.
    pub(crate) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Deletes all rows and the checkpoint and marks the namespace as unfilled, in one transaction. The tables stay.
    pub async fn clear(&self) -> Result<(), StoreError> {
        let mut tables = self.begin().await?;
        let names: Vec<String> =
            sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
                .fetch_all(tables.connection())
                .await?;
        for name in names {
            let delete = format!("DELETE FROM \"{name}\"");
            tables.connection().execute(sqlx::raw_sql(sqlx::AssertSqlSafe(delete))).await?;
        }
        sqlx::query(fill::MARK).execute(tables.connection()).await?;
        tables.commit().await
    }

    /// Closes all connections; the file can then be removed.
    pub async fn close(&self) {
        self.readers.close().await;
        self.lanes.close().await;
        self.writer.close().await;
    }

    /// The checkpoint as of the last commit.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let mut lane = self.lanes.take().await?;
        let checkpoint = checkpoint::read(&mut Connection::Sqlite(&mut lane.connection)).await?;
        lane.give_back();
        Ok(checkpoint)
    }
}

/// Removes a file that nobody has open, with what SQLite keeps beside it.
pub(crate) async fn remove(path: &Path) -> Result<(), StoreError> {
    // The database first: without it SQLite ignores a write-ahead log, and the database may need its log.
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match tokio::fs::remove_file(&name).await {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Io { path: Path::new(&name).display().to_string(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the tables; a file that is new is marked as unfilled.
async fn prepare(connection: &mut SqliteConnection, path: &str, layout: i64, ddl: &str) -> Result<(), StoreError> {
    let opened = |source| StoreError::Open { path: path.to_owned(), source };
    // The version is read under the lock: of two who open a new file, one makes it.
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(opened)?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *tx).await.map_err(opened)?;
    if found != 0 && found != layout {
        return Err(StoreError::Layout { path: path.to_owned(), found, expected: layout });
    }
    for part in [checkpoint::DDL, fill::DDL, ddl] {
        tx.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(part.to_owned()))).await?;
    }
    if found == 0 {
        tx.execute(fill::MARK).await?;
    }
    tx.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {layout}")))).await?;
    Ok(tx.commit().await?)
}

/// The tables of a file inside one write transaction.
pub struct SqliteTables {
    pub(crate) lane: Lane,
    /// Of the checkpoint.
    pub(crate) moved: Option<Move>,
}

impl SqliteTables {
    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.lane.connection
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        let last = self.moved.map_or_else(Vec::new, |moved| moved.statements(Dialect::Sqlite));
        Ok(self.lane.commit(last).await?)
    }
}

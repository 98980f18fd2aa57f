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
use crate::file_pool::{FileConnection, FilePool};
use crate::fill;
use crate::identity::OpenFile;
use crate::row::Row;
use crate::sql::{Connection, Dialect, QueryBuilder};
use crate::table;
use crate::wal::Wal;

/// Which failures a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Loss of power. For data that cannot be derived again.
    Full,
    /// A crash of the process. After a loss of power the file is consistent but may lack the last commits, which are
    /// folded again. For everything derived.
    Derived,
}

/// How long a statement, or an opener, waits for a lock of another connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between two attempts to open a file that another connection has locked.
const OPEN_RETRY: Duration = Duration::from_millis(10);

/// One generation's tables and checkpoint in a file.
#[derive(Clone, Debug)]
pub struct SqliteNamespace {
    path: PathBuf,
    file: OpenFile,
    writer: FilePool,
    pool: FilePool,
    readers: SqlitePool,
}

impl SqliteNamespace {
    /// Opens or creates the file at `path` and runs `ddl`: statements that can run again, such as `CREATE … IF NOT
    /// EXISTS`. Fails with [`StoreError::Layout`] if the file was created with another version than `layout`.
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
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("temp_store", "memory")
            // At most 16 MiB of pages per connection. A larger cache costs a writer more than it gains: SQLite scans
            // the whole cache after a commit that has balanced a tree.
            .pragma("cache_size", "-16384")
            // `wal.rs` checkpoints the WAL beside the writer. A commit does it only when the WAL has grown to 64 MiB.
            .pragma("wal_autocheckpoint", "16384")
            // The texts of statements differ by how many rows they write.
            .statement_cache_capacity(256);
        let opened = |source| StoreError::Open { path: shown(), source };
        let mut first = connect(&options).await.map_err(opened)?;
        let prepared = prepare(&mut first, &shown(), layout, ddl).await;
        let file = match prepared.and_then(|()| OpenFile::of(path)) {
            Ok(file) => file,
            Err(error) => {
                // Awaited: the caller may delete the file and create it again.
                if let Err(error) = first.close().await {
                    tracing::debug!(%error, "a connection was not closed cleanly");
                }
                return Err(error);
            }
        };
        // A connection that is opened later must not create an empty file where this one was deleted.
        let options = options.create_if_missing(false);
        let readers = options.clone().pragma("query_only", "on");
        let pool = FilePool::readers(readers.clone(), file.clone(), 4);
        let writer = FilePool::writer(options, file.clone(), first, Wal::new(pool.clone()));
        let checked = file.clone();
        let of_sqlx = SqlitePoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(30));
        let of_sqlx = of_sqlx.after_connect(move |_, _| {
            let checked = checked.check().map_err(sqlx::Error::from);
            Box::pin(std::future::ready(checked))
        });
        Ok(Self { path: path.to_owned(), file, writer, pool, readers: of_sqlx.connect_lazy_with(readers) })
    }

    /// [`StoreError::Gone`] if the file was deleted or replaced since it was opened. Costs one `stat` and no SQL.
    pub fn check(&self) -> Result<(), StoreError> {
        self.file.check()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connections for reads. Each statement sees the last commit.
    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Starts the write transaction. There is one at a time: a second caller waits. Dropped without
    /// [`SqliteTables::commit`], it is rolled back.
    pub async fn begin(&self) -> Result<SqliteTables, StoreError> {
        let mut connection = self.writer.take().await?;
        connection.run("BEGIN IMMEDIATE").await?;
        Ok(SqliteTables { connection, checkpoint: None })
    }

    /// Starts the write transaction of a batch. The checkpoint must equal `from`, and equals `upto` after the commit
    /// (compare-and-swap). Only the partitions of `upto` are compared and moved.
    pub async fn begin_at(
        &self,
        log: &str,
        from: &Positions,
        upto: &Positions,
    ) -> Result<SqliteTables, CheckpointError> {
        Ok(self.begin_reading(log, from, upto, Vec::new()).await?.0)
    }

    /// As [`Self::begin_at`]; also returns the rows of `reads`, which share a turn with the `BEGIN`.
    pub(crate) async fn begin_reading(
        &self,
        log: &str,
        from: &Positions,
        upto: &Positions,
        reads: Vec<QueryBuilder>,
    ) -> Result<(SqliteTables, Vec<Row>), CheckpointError> {
        let mut connection = self.writer.take().await.map_err(StoreError::from)?;
        let (found, rows) = checkpoint::begin(&mut connection.connection, reads).await?;
        let checkpoint = Some(Move::of(found, log, from, upto)?);
        Ok((SqliteTables { connection, checkpoint }, rows))
    }

    /// Readers without the pings of sqlx's pool, which cost as much as a small statement.
    pub(crate) fn pool(&self) -> &FilePool {
        &self.pool
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

    /// Closes all connections. The file can be removed afterwards.
    pub async fn close(&self) {
        self.readers.close().await;
        self.pool.close().await;
        self.writer.close().await;
    }

    /// The checkpoint as of the last commit.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let mut connection = self.pool.take().await?;
        let checkpoint = checkpoint::read(&mut Connection::Sqlite(&mut connection.connection)).await?;
        connection.give_back();
        Ok(checkpoint)
    }
}

/// Removes a file that no connection has open, with its write-ahead log and shared memory.
pub(crate) async fn remove(path: &Path) -> Result<(), StoreError> {
    // The database first: SQLite ignores a write-ahead log without a database, but a database may need its log.
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

/// Connects, and switches a new file to WAL mode. SQLite does not apply the busy timeout to that switch, so an opener that
/// meets another one tries again.
async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let deadline = tokio::time::Instant::now() + BUSY_TIMEOUT;
    loop {
        match options.connect().await {
            Err(error) if is_busy(&error) && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(OPEN_RETRY).await;
            }
            result => return result,
        }
    }
}

/// True for `SQLITE_BUSY` and its extended codes, whose low byte is 5.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == 5)
}

/// Creates the tables, and marks a new file as unfilled.
async fn prepare(connection: &mut SqliteConnection, path: &str, layout: i64, ddl: &str) -> Result<(), StoreError> {
    let opened = |source| StoreError::Open { path: path.to_owned(), source };
    // The version is read under the lock: of two processes that open a new file, one creates the tables.
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(opened)?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *tx).await.map_err(opened)?;
    if found != 0 && found != layout {
        return Err(StoreError::Layout { path: path.to_owned(), found, expected: layout });
    }
    let own = table::ddl(checkpoint::TABLES.iter().chain([&fill::TABLE]), Dialect::Sqlite);
    for part in [own, ddl.to_owned()] {
        tx.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(part))).await?;
    }
    if found == 0 {
        tx.execute(fill::MARK).await?;
    }
    tx.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {layout}")))).await?;
    Ok(tx.commit().await?)
}

/// The tables of a file inside one write transaction. Dropped, the transaction is rolled back.
pub struct SqliteTables {
    pub(crate) connection: FileConnection,
    /// The move of the checkpoint that commits with the transaction.
    pub(crate) checkpoint: Option<Move>,
}

impl SqliteTables {
    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection.connection
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        let last = self.checkpoint.map_or_else(Vec::new, |checkpoint| checkpoint.statements(Dialect::Sqlite));
        Ok(self.connection.commit(last).await?)
    }
}

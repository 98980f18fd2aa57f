//! A pool of connections to one SQLite file. sqlx's own pool pings a connection when it is taken and when it is
//! returned, which for a file adds two thread wake-ups to each statement.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::identity::OpenFile;
use crate::sql::{Connection, Dialect, QueryBuilder};
use crate::wal::{self, Wal};

/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// A pool of connections to a file. Clones share it.
#[derive(Clone, Debug)]
pub struct FilePool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: SqliteConnectOptions,
    file: OpenFile,
    count: u32,
    permits: Arc<Semaphore>,
    free: Mutex<Vec<SqliteConnection>>,
    /// Set in the pool of the writer.
    wal: Option<Wal>,
}

/// A connection that was taken from the pool. A connection that is dropped without [`FileConnection::give_back`] is
/// closed, which rolls its transaction back.
pub struct FileConnection {
    pub connection: SqliteConnection,
    pool: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl FilePool {
    /// A pool of at most `count` readers. A connection is opened when none is free.
    pub(crate) fn readers(options: SqliteConnectOptions, file: OpenFile, count: u32) -> Self {
        Self::new(options, file, count, Vec::new(), None)
    }

    /// A pool of the one writer, which is already open.
    pub(crate) fn writer(options: SqliteConnectOptions, file: OpenFile, open: SqliteConnection, wal: Wal) -> Self {
        Self::new(options, file, 1, vec![open], Some(wal))
    }

    fn new(
        options: SqliteConnectOptions,
        file: OpenFile,
        count: u32,
        open: Vec<SqliteConnection>,
        wal: Option<Wal>,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(count as usize));
        Self(Arc::new(Inner { options, file, count, permits, free: Mutex::new(open), wal }))
    }

    /// Takes a connection. Waits for a free one at most 30 s.
    pub(crate) async fn take(&self) -> Result<FileConnection, sqlx::Error> {
        let permit = tokio::time::timeout(ACQUIRE_TIMEOUT, self.0.permits.clone().acquire_owned());
        let permit = permit.await.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let free = self.0.free().pop();
        let connection = match free {
            Some(connection) => connection,
            None => self.0.connect().await?,
        };
        Ok(FileConnection { connection, pool: self.0.clone(), _permit: permit })
    }

    /// Waits until all connections are returned, and closes them.
    pub(crate) async fn close(&self) {
        let all = self.0.permits.acquire_many(self.0.count).await;
        self.0.permits.close();
        drop(all);
        let free = std::mem::take(&mut *self.0.free());
        for connection in free {
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "a connection was not closed cleanly");
            }
        }
    }
}

impl Inner {
    /// Opens another connection to the same file; fails if the path names another file by now.
    async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.file.check()?;
        let connection = self.options.connect().await?;
        self.file.check()?;
        Ok(connection)
    }

    fn free(&self) -> MutexGuard<'_, Vec<SqliteConnection>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileConnection {
    /// Returns the connection to the pool. No transaction may be open on it.
    pub(crate) fn give_back(self) {
        let Self { connection, pool, _permit } = self;
        pool.free().push(connection);
    }

    /// Runs the `last` statements and `COMMIT` as one text, and returns the connection to the pool.
    pub(crate) async fn commit(mut self, last: Vec<QueryBuilder>) -> Result<(), sqlx::Error> {
        let mut all = QueryBuilder::new(Dialect::Sqlite, "");
        last.into_iter().for_each(|statement| all.append(statement));
        all.append(QueryBuilder::new(Dialect::Sqlite, "COMMIT"));
        all.build().execute(Connection::Sqlite(&mut self.connection)).await?;
        let pool = self.pool.clone();
        let checkpointed = match &pool.wal {
            Some(wal) if wal.takes_rest() => self.run(wal::CHECKPOINT).await,
            _ => Ok(()),
        };
        match checkpointed {
            Ok(()) => self.give_back(),
            // The batch is committed; a connection on which a statement failed is closed.
            Err(error) => tracing::debug!(%error, "WAL checkpoint after a commit failed"),
        }
        pool.wal.iter().for_each(Wal::committed);
        Ok(())
    }

    /// Runs a statement without values.
    pub(crate) async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(sql).execute(&mut self.connection).await.map(drop)
    }
}

//! Connections to a SQLite file, each taken by one at a time. sqlx's pool asks a connection whether it lives when it is taken
//! and again when it comes back: with a file that is two more turns of its thread around each statement.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::identity::OpenFile;
use crate::sql::{Connection, Dialect, QueryBuilder};
use crate::wal::{self, Wal};

/// How long a free one is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Lanes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: SqliteConnectOptions,
    file: OpenFile,
    count: u32,
    turns: Arc<Semaphore>,
    free: Mutex<Vec<SqliteConnection>>,
    /// Of those that write.
    wal: Option<Wal>,
}

/// A connection that was taken. Dropped without [`Lane::give_back`] it is closed, and with it goes what it had begun.
pub struct Lane {
    pub connection: SqliteConnection,
    inner: Arc<Inner>,
    _turn: OwnedSemaphorePermit,
}

impl Lanes {
    /// So many at the most, each opened when none is free.
    pub(crate) fn readers(options: SqliteConnectOptions, file: OpenFile, count: u32) -> Self {
        Self::new(options, file, count, Vec::new(), None)
    }

    /// The one that writes, which is open.
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
        let turns = Arc::new(Semaphore::new(count as usize));
        Self(Arc::new(Inner { options, file, count, turns, free: Mutex::new(open), wal }))
    }

    pub(crate) async fn take(&self) -> Result<Lane, sqlx::Error> {
        let turn = tokio::time::timeout(PATIENCE, self.0.turns.clone().acquire_owned());
        let turn = turn.await.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let free = self.0.free().pop();
        let connection = match free {
            Some(connection) => connection,
            None => self.0.connect().await?,
        };
        Ok(Lane { connection, inner: self.0.clone(), _turn: turn })
    }

    /// Waits for those that are taken, and closes all.
    pub(crate) async fn close(&self) {
        let all = self.0.turns.acquire_many(self.0.count).await;
        self.0.turns.close();
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
    /// Another connection to the file that is open; fails where the path names another one.
    async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.file.check()?;
        let connection = self.options.connect().await?;
        self.file.check()?;
        Ok(connection)
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// For the next who takes one; nothing is open on it.
    pub(crate) fn give_back(self) {
        let Self { connection, inner, _turn } = self;
        inner.free().push(connection);
    }

    /// Ends the transaction that was begun on it, after what is still to be written in it: all in one turn.
    pub(crate) async fn commit(mut self, last: Vec<QueryBuilder>) -> Result<(), sqlx::Error> {
        let mut all = QueryBuilder::new(Dialect::Sqlite, "");
        last.into_iter().for_each(|statement| all.append(statement));
        all.append(QueryBuilder::new(Dialect::Sqlite, "COMMIT"));
        all.build().execute(Connection::Sqlite(&mut self.connection)).await?;
        let inner = self.inner.clone();
        let moved = match &inner.wal {
            Some(wal) if wal.takes_rest() => self.run(wal::MOVE).await,
            _ => Ok(()),
        };
        match moved {
            Ok(()) => self.give_back(),
            // The batch is committed; a connection on which a statement failed is closed.
            Err(error) => tracing::debug!(%error, "WAL checkpoint after a commit failed"),
        }
        inner.wal.iter().for_each(Wal::committed);
        Ok(())
    }

    /// A statement without values.
    pub(crate) async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(sql).execute(&mut self.connection).await.map(drop)
    }
}

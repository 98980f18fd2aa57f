//! The namespace of a relational read model, in either store.

use std::path::PathBuf;

use carbon_core::Positions;
use sqlx::Transaction;

use crate::checkpoint::{self, Checkpoint, CheckpointError, Move};
use crate::commit::{CommitHook, Hook};
use crate::error::StoreError;
use crate::file_pool::FileConnection;
use crate::postgres::{Postgres, PostgresNamespace};
use crate::row::Row;
use crate::sql::{Connection, Dialect, Query, QueryBuilder, Readers};
use crate::sqlite::{self, Durability, SqliteNamespace, SqliteTables};
use crate::table::{self, Table};
use crate::write::Tables;

/// Where the rows of a namespace are stored.
#[derive(Clone, Debug)]
pub enum Site {
    File(PathBuf),
    /// A schema of a database. Its name is derived from the name of the generation, given here.
    Schema(Postgres, String),
}

/// The tables of a read model's namespaces, and its commit hook.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// [`Namespace::open`] fails if the namespace was created with another version.
    pub version: i64,
    pub tables: &'static [Table],
    pub(crate) hook: fn() -> Hook,
}

impl Layout {
    /// A layout without a commit hook.
    pub fn new(version: i64, tables: &'static [Table]) -> Self {
        Self { version, tables, hook: Hook::new::<()> }
    }

    /// Sets the commit hook. [`Namespace::hook`] returns its value.
    #[must_use]
    pub fn with_hook<H: CommitHook>(self) -> Self {
        Self { hook: Hook::new::<H>, ..self }
    }
}

/// One generation's tables and checkpoint. Clones share connections and the commit hook.
#[derive(Clone, Debug)]
pub enum Namespace {
    Sqlite { file: SqliteNamespace, readers: Readers, hook: Hook },
    Postgres(PostgresNamespace),
}

impl Namespace {
    /// Opens the namespace, and creates it and its tables where they are missing.
    pub async fn open(site: &Site, layout: &Layout) -> Result<Self, StoreError> {
        match site {
            Site::File(path) => {
                let ddl = table::ddl(layout.tables, Dialect::Sqlite);
                let file = SqliteNamespace::open(path, Durability::Derived, layout.version, &ddl).await?;
                let readers = Readers::Sqlite(file.pool().clone());
                Ok(Self::Sqlite { file, readers, hook: (layout.hook)() })
            }
            Site::Schema(postgres, name) => Ok(Self::Postgres(PostgresNamespace::open(postgres, name, layout).await?)),
        }
    }

    /// Deletes the file at a site with its write-ahead log, or the schema after its writer's transaction. A site where
    /// nothing is stored is no error. A caller that has the namespace open closes it first.
    pub async fn drop_site(site: &Site) -> Result<(), StoreError> {
        match site {
            Site::File(path) => sqlite::remove(path).await,
            Site::Schema(postgres, name) => postgres.drop_schema(name).await,
        }
    }

    /// On Postgres the name of the generation, as it was given to [`Site::Schema`]; on SQLite the path of the file.
    pub fn name(&self) -> String {
        match self {
            Namespace::Sqlite { file, .. } => file.path().display().to_string(),
            Namespace::Postgres(schema) => schema.name.clone(),
        }
    }

    /// [`StoreError::Gone`] if the file was deleted or replaced since it was opened. Costs one `stat` and no SQL.
    pub fn check(&self) -> Result<(), StoreError> {
        match self {
            Namespace::Sqlite { file, .. } => file.check(),
            Namespace::Postgres(_) => Ok(()),
        }
    }

    pub fn dialect(&self) -> Dialect {
        match self {
            Namespace::Sqlite { .. } => Dialect::Sqlite,
            Namespace::Postgres(_) => Dialect::Postgres,
        }
    }

    /// True if other processes commit to this namespace too. Their commits do not call the hook of this process.
    pub fn is_shared(&self) -> bool {
        match self {
            Namespace::Sqlite { .. } => false,
            Namespace::Postgres(_) => true,
        }
    }

    /// Connections for reads. Each statement sees the last commit.
    pub fn readers(&self) -> &Readers {
        match self {
            Namespace::Sqlite { readers, .. } => readers,
            Namespace::Postgres(schema) => &schema.readers,
        }
    }

    /// Starts a read transaction: all its reads see the same commit.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot(match self {
            Namespace::Sqlite { file, .. } => {
                let mut connection = file.pool().take().await?;
                connection.run("BEGIN").await?;
                Tx::Sqlite(connection)
            }
            Namespace::Postgres(schema) => Tx::Postgres(schema.snapshot().await?),
        }))
    }

    /// Starts the write transaction. There is one at a time: a second caller waits, also in another process. Dropped
    /// without [`Tables::commit`], it is rolled back.
    pub async fn begin(&self) -> Result<Tables<'_>, StoreError> {
        let tx = match self {
            Namespace::Sqlite { file, .. } => Tx::Sqlite(file.begin().await?.connection),
            Namespace::Postgres(schema) => Tx::Postgres(schema.begin().await?),
        };
        Ok(Tables { tx, checkpoint: None, first_rows: None, namespace: self })
    }

    /// Starts the write transaction of a batch. The checkpoint must equal `from`, and equals `upto` after the commit
    /// (compare-and-swap); only the partitions of `upto` are compared and moved. `reads` are the statements that the
    /// fold reads first: on SQLite they share a turn with the `BEGIN`. [`Tables::take_first_rows`] returns their rows.
    pub async fn begin_at(
        &self,
        log: &str,
        from: &Positions,
        upto: &Positions,
        reads: Vec<QueryBuilder>,
    ) -> Result<Tables<'_>, CheckpointError> {
        match self {
            Namespace::Sqlite { file, .. } => {
                let asked = !reads.is_empty();
                let (tables, rows) = file.begin_reading(log, from, upto, reads).await?;
                let SqliteTables { connection, checkpoint } = tables;
                let first_rows = asked.then_some(rows);
                Ok(Tables { tx: Tx::Sqlite(connection), checkpoint, first_rows, namespace: self })
            }
            Namespace::Postgres(schema) => {
                let mut tx = schema.begin().await?;
                let found = checkpoint::read(Connection::Postgres(&mut tx)).await?;
                let checkpoint = Some(Move::of(found, log, from, upto)?);
                let mut tables = Tables { tx: Tx::Postgres(tx), checkpoint, first_rows: None, namespace: self };
                if !reads.is_empty() {
                    tables.first_rows = Some(tables.run(reads).await.map_err(StoreError::from)?);
                }
                Ok(tables)
            }
        }
    }

    /// The commit hook's value; `None` if the layout has a hook of another type.
    pub fn hook<H: CommitHook>(&self) -> Option<&H> {
        self.commit_hook().get()
    }

    pub(crate) fn commit_hook(&self) -> &Hook {
        match self {
            Namespace::Sqlite { hook, .. } => hook,
            Namespace::Postgres(schema) => &schema.hook,
        }
    }

    /// The checkpoint as of the last commit.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        checkpoint::read(self.readers()).await
    }

    /// Deletes all rows and the checkpoint and marks the namespace as unfilled, in one transaction. The tables stay.
    pub async fn clear(&self) -> Result<(), StoreError> {
        match self {
            Namespace::Sqlite { file, .. } => file.clear().await?,
            Namespace::Postgres(schema) => schema.clear().await?,
        }
        self.commit_hook().cleared();
        Ok(())
    }

    /// Calls `row` for each row that a statement returns.
    pub async fn each(
        &self,
        query: Query,
        row: impl FnMut(&Row) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        query.each(self.readers().into(), row).await
    }

    /// Closes all connections. A file can be removed afterwards.
    pub async fn close(&self) {
        match self {
            Namespace::Sqlite { file, .. } => file.close().await,
            Namespace::Postgres(schema) => schema.close().await,
        }
    }
}

/// A transaction in either store.
pub(crate) enum Tx {
    Sqlite(FileConnection),
    Postgres(Transaction<'static, sqlx::Postgres>),
}

impl Tx {
    pub fn connection(&mut self) -> Connection<'_> {
        match self {
            Tx::Sqlite(connection) => Connection::Sqlite(&mut connection.connection),
            Tx::Postgres(tx) => Connection::Postgres(tx),
        }
    }

    /// Runs the `last` statements and commits.
    pub async fn commit(self, last: Vec<QueryBuilder>) -> Result<(), StoreError> {
        match self {
            Tx::Sqlite(connection) => connection.commit(last).await?,
            Tx::Postgres(mut tx) => {
                for mut statement in last {
                    statement.build().execute(Connection::Postgres(&mut tx)).await?;
                }
                tx.commit().await?;
            }
        }
        Ok(())
    }
}

/// A read transaction: a consistent view of the rows as of one commit.
pub struct Snapshot(Tx);

impl Snapshot {
    pub fn dialect(&self) -> Dialect {
        match self.0 {
            Tx::Sqlite(_) => Dialect::Sqlite,
            Tx::Postgres(_) => Dialect::Postgres,
        }
    }

    pub fn connection(&mut self) -> Connection<'_> {
        self.0.connection()
    }

    /// Calls `row` for each row that a statement returns.
    pub async fn each(
        &mut self,
        query: Query,
        row: impl FnMut(&Row) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        query.each(self.connection().into(), row).await
    }

    /// The checkpoint of the rows that the snapshot sees.
    pub async fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        checkpoint::read(self.connection()).await
    }

    /// Ends the transaction and returns its connection to the pool. Dropped instead, the connection to a file is
    /// closed.
    pub async fn end(self) -> Result<(), StoreError> {
        self.0.commit(Vec::new()).await
    }
}

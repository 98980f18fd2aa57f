//! The namespace of a relational read model, in either store.

use std::path::PathBuf;

use carbon_core::{Position, Positions};
use sqlx::Transaction;

use crate::checkpoint::{self, Checkpoint, CheckpointError, Move};
use crate::error::StoreError;
use crate::landed::Landed;
use crate::lanes::Lane;
use crate::postgres::{Postgres, PostgresNamespace};
use crate::row::Row;
use crate::sql::{Connection, Dialect, Query, QueryBuilder, Readers};
use crate::sqlite::{self, Durability, SqliteNamespace, SqliteTables};

/// Where a namespace lies.
#[derive(Clone, Debug)]
pub enum Site {
    File(PathBuf),
    /// A schema of a database; its name is made from that of the generation.
    Schema(Postgres, String),
}

/// What a namespace holds.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Refused if the namespace was made with another one.
    pub version: i64,
    /// Statements that may run again (`CREATE … IF NOT EXISTS`), in the words of SQLite.
    pub ddl: &'static str,
}

/// One generation's tables and checkpoint.
#[derive(Clone, Debug)]
pub enum Namespace {
    Sqlite { file: SqliteNamespace, readers: Readers, landed: Landed },
    Postgres(PostgresNamespace),
}

impl Namespace {
    /// Opens or makes it, and its tables.
    pub async fn open(site: &Site, layout: &Layout) -> Result<Self, StoreError> {
        match site {
            Site::File(path) => {
                let Layout { version, ddl } = *layout;
                let file = SqliteNamespace::open(path, Durability::Derived, version, ddl).await?;
                let readers = Readers::Sqlite(file.lanes().clone());
                Ok(Self::Sqlite { file, readers, landed: Landed::default() })
            }
            Site::Schema(postgres, name) => Ok(Self::Postgres(PostgresNamespace::open(postgres, name, layout).await?)),
        }
    }

    /// Deletes what lies at a site: a file with its write-ahead log, or a schema, after its writer's transaction. Nothing
    /// there is not an error. Whoever has the namespace open closes it first.
    pub async fn drop_site(site: &Site) -> Result<(), StoreError> {
        match site {
            Site::File(path) => sqlite::remove(path).await,
            Site::Schema(postgres, name) => postgres.drop_schema(name).await,
        }
    }

    /// The generation's name on Postgres, as it was given to [`Site::Schema`]; the path of a file.
    pub fn name(&self) -> String {
        match self {
            Namespace::Sqlite { file, .. } => file.path().display().to_string(),
            Namespace::Postgres(schema) => schema.name.clone(),
        }
    }

    /// [`StoreError::Gone`] if the file was deleted or replaced since it was opened. One `stat`, no SQL.
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

    /// Connections for reads, each of which sees the last commit.
    pub fn readers(&self) -> &Readers {
        match self {
            Namespace::Sqlite { readers, .. } => readers,
            Namespace::Postgres(schema) => &schema.readers,
        }
    }

    /// Several reads of one moment.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot(match self {
            Namespace::Sqlite { file, .. } => {
                let mut lane = file.lanes().take().await?;
                lane.run("BEGIN").await?;
                Tx::Sqlite(lane)
            }
            Namespace::Postgres(schema) => Tx::Postgres(schema.snapshot().await?),
        }))
    }

    /// Starts the one write transaction; a second caller waits, in another process too. Dropped without
    /// [`Tables::commit`], nothing of it stays.
    pub async fn begin(&self) -> Result<Tables<'_>, StoreError> {
        Ok(match self {
            Namespace::Sqlite { file, .. } => self.tables(Tx::Sqlite(file.begin().await?.lane)),
            Namespace::Postgres(schema) => self.tables(Tx::Postgres(schema.begin().await?)),
        })
    }

    /// As [`Self::begin`], for a batch: the checkpoint must stand at `from`, and is at `upto` after the commit
    /// (compare-and-swap). Only the partitions of `upto` are compared and moved. What the batch reads first comes with it
    /// ([`Tables::first_read`]).
    pub async fn begin_at(
        &self,
        log: &str,
        from: &Positions,
        upto: &Positions,
        reads: Vec<QueryBuilder>,
    ) -> Result<Tables<'_>, CheckpointError> {
        Ok(match self {
            Namespace::Sqlite { file, .. } => {
                let (SqliteTables { lane, moved }, rows) = file.begin_reading(log, from, upto, reads).await?;
                Tables { moved, first: Some(rows), ..self.tables(Tx::Sqlite(lane)) }
            }
            Namespace::Postgres(schema) => {
                let mut tx = schema.begin().await?;
                let found = checkpoint::read(Connection::Postgres(&mut tx)).await?;
                let moved = Move::of(found, log, from, upto)?;
                let mut tables = Tables { moved: Some(moved), ..self.tables(Tx::Postgres(tx)) };
                tables.first = Some(tables.run(reads).await.map_err(StoreError::from)?);
                tables
            }
        })
    }

    fn tables(&self, tx: Tx) -> Tables<'_> {
        let (first, last, remarks) = (None, Vec::new(), Vec::new());
        Tables { tx, moved: None, first, last, namespace: self, remarks, revokes: false }
    }

    fn landed(&self) -> &Landed {
        match self {
            Namespace::Sqlite { landed, .. } => landed,
            Namespace::Postgres(schema) => &schema.landed,
        }
    }

    /// Whether the commit of a record had something to remark ([`Tables::remark`]); `None` where it is not known here,
    /// since another process made it, or an earlier one.
    pub fn remarked(&self, position: &Position) -> Option<bool> {
        self.landed().remarked(position)
    }

    /// A number that is another after a commit that may have taken away what was permitted before ([`Tables::revoke`]);
    /// `None` where other processes commit too.
    pub fn era(&self) -> Option<u64> {
        match self {
            Namespace::Sqlite { landed, .. } => Some(landed.era()),
            Namespace::Postgres(_) => None,
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
        self.landed().forget();
        Ok(())
    }

    /// Hands over every row that a statement answers, one by one.
    pub async fn each(
        &self,
        query: Query,
        row: impl FnMut(&Row) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        query.each(self.readers().into(), row).await
    }

    /// Closes all connections; a file can then be removed.
    pub async fn close(&self) {
        match self {
            Namespace::Sqlite { file, .. } => file.close().await,
            Namespace::Postgres(schema) => schema.close().await,
        }
    }
}

pub(crate) enum Tx {
    Sqlite(Lane),
    Postgres(Transaction<'static, sqlx::Postgres>),
}

impl Tx {
    fn connection(&mut self) -> Connection<'_> {
        match self {
            Tx::Sqlite(lane) => Connection::Sqlite(&mut lane.connection),
            Tx::Postgres(tx) => Connection::Postgres(tx),
        }
    }

    /// After what is still to be written in it.
    async fn commit(self, last: Vec<QueryBuilder>) -> Result<(), StoreError> {
        match self {
            Tx::Sqlite(lane) => lane.commit(last).await?,
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

/// Reads of one moment.
pub struct Snapshot(Tx);

impl Snapshot {
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

    /// Its connection is free for others again; dropped instead, that of a file is closed.
    pub async fn end(self) -> Result<(), StoreError> {
        self.0.commit(Vec::new()).await
    }
}

/// The tables of a namespace inside one write transaction: all that a fold may touch (law 3).
pub struct Tables<'t> {
    tx: Tx,
    /// Of the checkpoint.
    moved: Option<Move>,
    /// What was read with the begin.
    first: Option<Vec<Row>>,
    /// What is still to be written.
    pub(crate) last: Vec<QueryBuilder>,
    namespace: &'t Namespace,
    remarks: Vec<Position>,
    revokes: bool,
}

impl Tables<'_> {
    pub fn dialect(&self) -> Dialect {
        self.namespace.dialect()
    }

    pub fn connection(&mut self) -> Connection<'_> {
        self.tx.connection()
    }

    /// The rows of what the batch reads first; `None` where nothing was said of it, and the second time.
    pub fn first_read(&mut self) -> Option<Vec<Row>> {
        self.first.take()
    }

    /// That there is something to say of a record, for [`Namespace::remarked`].
    pub fn remark(&mut self, position: &Position) {
        self.remarks.push(position.clone());
    }

    /// That what was permitted before may not be any more, for [`Namespace::era`].
    pub fn revoke(&mut self) {
        self.revokes = true;
    }

    pub async fn commit(mut self) -> Result<(), StoreError> {
        let mut last = std::mem::take(&mut self.last);
        last.extend(self.moved.iter().flat_map(|moved| moved.statements(self.namespace.dialect())));
        if let Namespace::Postgres(schema) = self.namespace {
            schema.notify(&mut self.tx.connection()).await?;
        }
        self.tx.commit(last).await?;
        let landed = self.namespace.landed();
        if self.revokes {
            landed.revoke();
        }
        if let Some(Move { from, upto, .. }) = &self.moved {
            landed.add(from, upto, &self.remarks);
        }
        Ok(())
    }
}

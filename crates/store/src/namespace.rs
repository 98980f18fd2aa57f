//! The namespace of a relational read model, in either store.

use std::path::PathBuf;

use carbon_core::{Position, Positions};
use sqlx::Transaction;

use crate::checkpoint::{self, Checkpoint, CheckpointError};
use crate::error::StoreError;
use crate::landed::{Landed, Landing};
use crate::lanes::Lane;
use crate::postgres::{Postgres, PostgresNamespace};
use crate::row::Row;
use crate::sql::{Connection, Dialect, Query, Readers};
use crate::sqlite::{Durability, SqliteNamespace};

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
    /// Of a file: smaller where rows are written here and there, since a commit writes whole pages.
    pub page_bytes: u32,
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
                let Layout { version, ddl, page_bytes } = *layout;
                let opened = SqliteNamespace::open_paged(path, Durability::Derived, version, ddl, page_bytes);
                let file = opened.await?;
                let readers = Readers::Sqlite(file.lanes().clone());
                Ok(Self::Sqlite { file, readers, landed: Landed::default() })
            }
            Site::Schema(postgres, name) => Ok(Self::Postgres(PostgresNamespace::open(postgres, name, layout).await?)),
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
            Namespace::Sqlite { file, .. } => self.tables(Tx::Sqlite(file.begin().await?.lane), None),
            Namespace::Postgres(schema) => self.tables(Tx::Postgres(schema.begin().await?), Some(schema)),
        })
    }

    fn tables<'t>(&'t self, tx: Tx, schema: Option<&'t PostgresNamespace>) -> Tables<'t> {
        Tables { tx, schema, landed: self.landed(), landing: Landing::default() }
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

    /// The checkpoint as of the last commit.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        checkpoint::read(self.readers()).await
    }

    /// Throws all rows and the checkpoint away, in one transaction. The tables stay.
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
        query.each(self.readers(), row).await
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

    async fn commit(self) -> Result<(), StoreError> {
        match self {
            Tx::Sqlite(lane) => lane.commit().await?,
            Tx::Postgres(tx) => tx.commit().await?,
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

    /// Its connection is free for others again; dropped instead, that of a file is closed.
    pub async fn end(self) -> Result<(), StoreError> {
        self.0.commit().await
    }
}

/// The tables of a namespace inside one write transaction: all that a fold may touch (law 3).
pub struct Tables<'t> {
    tx: Tx,
    schema: Option<&'t PostgresNamespace>,
    landed: &'t Landed,
    landing: Landing,
}

impl Tables<'_> {
    pub fn dialect(&self) -> Dialect {
        match self.tx {
            Tx::Sqlite(_) => Dialect::Sqlite,
            Tx::Postgres(_) => Dialect::Postgres,
        }
    }

    pub fn connection(&mut self) -> Connection<'_> {
        self.tx.connection()
    }

    /// Moves the checkpoint from `from` to `upto` by compare-and-swap, in this transaction.
    /// Only the partitions of `upto` are compared and moved.
    pub async fn advance(&mut self, log: &str, from: &Positions, upto: &Positions) -> Result<(), CheckpointError> {
        let dialect = self.dialect();
        checkpoint::advance(&mut self.connection(), dialect, log, from, upto).await?;
        self.landing.from.merge(from);
        self.landing.upto.merge(upto);
        Ok(())
    }

    /// That there is something to say of a record, for [`Namespace::remarked`].
    pub fn remark(&mut self, position: &Position) {
        self.landing.remarks.push(position.clone());
    }

    pub async fn commit(mut self) -> Result<(), StoreError> {
        if let Some(schema) = self.schema {
            schema.notify(&mut self.tx.connection()).await?;
        }
        self.tx.commit().await?;
        self.landed.add(&self.landing);
        Ok(())
    }
}

//! The fill marker: a table that holds one row in a new or cleared namespace, until the namespace is filled. A
//! namespace of an older program has no row and counts as filled.

use crate::error::StoreError;
use crate::namespace::Namespace;
use crate::sql::query;
use crate::sqlite::SqliteNamespace;
use crate::table::{Column, Table};

pub(crate) const TABLE: Table = Table::new("fill", &[Column::int("id").check("id = 1")], &["id"]);

/// Marks a namespace as unfilled.
pub(crate) const MARK: &str = "INSERT INTO fill (id) VALUES (1) ON CONFLICT (id) DO NOTHING";

const COUNT: &str = "SELECT count(*) FROM fill";
const REMOVE: &str = "DELETE FROM fill";

impl SqliteNamespace {
    /// False from the creation of the namespace, and from [`Self::clear`], until [`Self::set_filled`].
    pub async fn is_filled(&self) -> Result<bool, StoreError> {
        let mut connection = self.pool().take().await?;
        let marks: i64 = sqlx::query_scalar(COUNT).fetch_one(&mut connection.connection).await?;
        connection.give_back();
        Ok(marks == 0)
    }

    /// Removes the fill marker, in a transaction of its own.
    pub async fn set_filled(&self) -> Result<(), StoreError> {
        let mut tables = self.begin().await?;
        sqlx::query(REMOVE).execute(tables.connection()).await?;
        tables.commit().await
    }
}

impl Namespace {
    /// False from the creation of the namespace, and from [`Self::clear`], until [`Self::set_filled`].
    pub async fn is_filled(&self) -> Result<bool, StoreError> {
        match self {
            Namespace::Sqlite { file, .. } => file.is_filled().await,
            Namespace::Postgres(schema) => Ok(query(COUNT).scalar_one::<i64>(&schema.readers).await? == 0),
        }
    }

    /// Removes the fill marker, in a transaction of its own. On Postgres, listeners are notified as of any commit.
    pub async fn set_filled(&self) -> Result<(), StoreError> {
        let mut tables = self.begin().await?;
        query(REMOVE).execute(tables.connection()).await?;
        tables.commit().await
    }
}

//! The fill marker: a new or cleared namespace holds one row until it is filled. Namespaces of older programs have no row and
//! count as filled.

use crate::error::StoreError;
use crate::namespace::Namespace;
use crate::sql::query;
use crate::sqlite::SqliteNamespace;

pub(crate) const DDL: &str = "CREATE TABLE IF NOT EXISTS fill (id INTEGER PRIMARY KEY CHECK (id = 1));";

/// Marks a namespace as unfilled.
pub(crate) const MARK: &str = "INSERT INTO fill (id) VALUES (1) ON CONFLICT (id) DO NOTHING";

const COUNT: &str = "SELECT count(*) FROM fill";
const REMOVE: &str = "DELETE FROM fill";

impl SqliteNamespace {
    /// False from the creation of the namespace, and from [`Self::clear`], until [`Self::set_filled`].
    pub async fn is_filled(&self) -> Result<bool, StoreError> {
        let mut lane = self.lanes().take().await?;
        let marks: i64 = sqlx::query_scalar(COUNT).fetch_one(&mut lane.connection).await?;
        lane.give_back();
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

    /// Removes the fill marker, in a transaction of its own. On Postgres it is notified as a commit.
    pub async fn set_filled(&self) -> Result<(), StoreError> {
        let mut tables = self.begin().await?;
        query(REMOVE).execute(tables.connection()).await?;
        tables.commit().await
    }
}

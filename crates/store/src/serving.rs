//! The generation that a read model is served from, for processes that share a Postgres: one row per read model and
//! fold version.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::checkpoint;
use crate::error::StoreError;
use crate::namespace::Namespace;
use crate::postgres::{Postgres, PostgresNamespace, lock};
use crate::sql::Connection;

/// The schema of the table. The names of namespaces' schemas are longer.
const SCHEMA: &str = "carbon_ml";

const DDL: &str = "
CREATE SCHEMA IF NOT EXISTS carbon_ml;
CREATE TABLE IF NOT EXISTS carbon_ml.serving (
    read_model TEXT COLLATE \"C\" NOT NULL, version BIGINT NOT NULL, generation TEXT COLLATE \"C\" NOT NULL,
    PRIMARY KEY (read_model, version)
);
";

const WRITE: &str = "INSERT INTO carbon_ml.serving (read_model, version, generation) VALUES ($1, $2, $3) \
                     ON CONFLICT (read_model, version) DO UPDATE SET generation = excluded.generation";

impl Postgres {
    /// The generation that a fold version of a read model is served from; `None` before the first [`Self::switch`].
    pub async fn serving(&self, read_model: &str, version: u32) -> Result<Option<String>, StoreError> {
        let mut connection = self.shared.acquire().await?;
        if !exists(&mut connection).await? {
            return Ok(None);
        }
        let found =
            sqlx::query_scalar("SELECT generation FROM carbon_ml.serving WHERE read_model = $1 AND version = $2");
        Ok(found.bind(read_model).bind(i64::from(version)).fetch_optional(&mut *connection).await?)
    }

    /// Serves a fold version of a read model from the generation `to`, if the checkpoint of `to` covers that of `from`.
    /// Returns whether it does. Both checkpoints are locked until the row is committed, so that no reader goes
    /// backwards. Waiting readers of both namespaces are notified.
    pub async fn switch(
        &self,
        read_model: &str,
        version: u32,
        to: &Namespace,
        from: Option<&Namespace>,
    ) -> Result<bool, StoreError> {
        let to = schema_of(to)?;
        let from = from.map(schema_of).transpose()?;
        let mut connection = self.shared.acquire().await?;
        create(&mut connection).await?;
        let mut tx = connection.begin().await?;
        let mut schemas: Vec<&str> =
            [Some(to), from].into_iter().flatten().map(|space| space.schema.as_str()).collect();
        // All processes lock in the same order: two switches do not deadlock.
        schemas.sort_unstable();
        schemas.dedup();
        for schema in &schemas {
            lock(&mut tx, schema).await?;
        }
        if let Some(from) = from {
            let (reached, needed) = (positions(&mut tx, to).await?, positions(&mut tx, from).await?);
            if !reached.covers(&needed) {
                tx.rollback().await?;
                return Ok(false);
            }
        }
        sqlx::query(WRITE).bind(read_model).bind(i64::from(version)).bind(&to.name).execute(&mut *tx).await?;
        for space in [Some(to), from].into_iter().flatten() {
            space.notify(&mut Connection::Postgres(&mut tx)).await?;
        }
        tx.commit().await?;
        Ok(true)
    }
}

fn schema_of(space: &Namespace) -> Result<&PostgresNamespace, StoreError> {
    match space {
        Namespace::Postgres(schema) => Ok(schema),
        Namespace::Sqlite { .. } => Err(StoreError::NotShared { path: space.name() }),
    }
}

async fn exists(connection: &mut PgConnection) -> Result<bool, StoreError> {
    let exists = sqlx::query_scalar("SELECT to_regclass('carbon_ml.serving') IS NOT NULL");
    Ok(exists.fetch_one(connection).await?)
}

/// Creates the table if it is missing, under a lock: `IF NOT EXISTS` fails if two processes create it at the same time.
async fn create(connection: &mut PgConnection) -> Result<(), StoreError> {
    if exists(connection).await? {
        return Ok(());
    }
    let mut tx = connection.begin().await?;
    lock(&mut tx, SCHEMA).await?;
    tx.execute(sqlx::raw_sql(DDL)).await?;
    Ok(tx.commit().await?)
}

async fn positions(tx: &mut PgConnection, space: &PostgresNamespace) -> Result<carbon_core::Positions, StoreError> {
    // The name of a schema needs no quotes, and the setting ends with the transaction.
    let path = format!("SET LOCAL search_path TO {}", space.schema);
    tx.execute(sqlx::raw_sql(AssertSqlSafe(path))).await?;
    Ok(checkpoint::read(Connection::Postgres(tx)).await?.positions)
}

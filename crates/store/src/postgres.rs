//! A namespace as a schema of a Postgres database, which several processes share: one writes at a time, and all read.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgPool, Transaction};

use crate::checkpoint;
use crate::commit::Hook;
use crate::error::StoreError;
use crate::fill;
use crate::follow::Commits;
use crate::namespace::Layout;
use crate::sql::{Connection, Dialect, Readers, query};
use crate::table;

/// How long a transaction may be idle before Postgres ends it, so that a stopped process does not block the others.
const IDLE_IN_TRANSACTION: &str = "30s";

/// Prefix of a schema's name.
const PREFIX: &str = "carbon_ml_";

/// A database that holds namespaces.
#[derive(Clone, Debug)]
pub struct Postgres {
    options: Arc<PgConnectOptions>,
    /// The address without user and password, for messages.
    shown: String,
    pub(crate) commits: Commits,
    /// Connections for statements that concern no single namespace.
    pub(crate) shared: PgPool,
}

impl Postgres {
    /// Connects to a database by an address such as `postgresql://user:password@host:5432/database`. The name of a
    /// driver for SQLAlchemy (`postgresql+psycopg2`) is ignored. Fails if MLflow keeps its own store in the database.
    pub async fn open(address: &str) -> Result<Self, StoreError> {
        let shown = Self::shown(address);
        let opened = |source| StoreError::Open { path: shown.clone(), source };
        if !address.starts_with("postgres") || !address.contains("://") {
            return Err(StoreError::Address);
        }
        let options = PgConnectOptions::from_str(&without_driver(address)).map_err(opened)?;
        let options = options.application_name("carbon-ml").options([
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION),
            ("default_transaction_isolation", "read committed"),
        ]);
        let mut connection = sqlx::ConnectOptions::connect(&options).await.map_err(opened)?;
        let mlflow: bool = sqlx::query_scalar(
            "SELECT to_regclass('alembic_version') IS NOT NULL AND to_regclass('registered_models') IS NOT NULL",
        )
        .fetch_one(&mut connection)
        .await?;
        sqlx::Connection::close(connection).await?;
        if mlflow {
            return Err(StoreError::Foreign { path: shown });
        }
        let shared = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(30));
        let shared = shared.idle_timeout(Duration::from_secs(300)).connect_lazy_with(options.clone());
        let options = Arc::new(options);
        let commits = Commits::new(options.clone());
        Ok(Self { options, shown, commits, shared })
    }

    /// Drops the schema of a namespace, after the current write transaction.
    pub(crate) async fn drop_schema(&self, name: &str) -> Result<(), StoreError> {
        let schema = schema_name(name);
        let mut tx = self.shared.begin().await?;
        lock(&mut tx, &schema).await?;
        run(&mut tx, format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await?;
        Ok(tx.commit().await?)
    }

    /// The host, port and database of an address, without user and password, for messages.
    pub fn shown(address: &str) -> String {
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        format!("postgresql://{}", rest.split('?').next().unwrap_or_default())
    }
}

/// Postgres truncates longer identifiers.
const MAX_NAME_BYTES: usize = 63;

/// The name of the schema of a generation: letters, digits and underscores, so it needs no quotes. The end of a long
/// name is replaced by a hash.
fn schema_name(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    let mut schema: String = PREFIX.chars().chain(plain).collect();
    if schema.len() > MAX_NAME_BYTES {
        let hash: String = Sha256::digest(name).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        schema.truncate(MAX_NAME_BYTES - hash.len() - 1);
        schema = format!("{schema}_{hash}");
    }
    schema
}

fn without_driver(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) if scheme.contains('+') => {
            format!("{}://{rest}", scheme.split('+').next().unwrap_or_default())
        }
        _ => address.to_owned(),
    }
}

/// Functions of SQLite that the statements use, for Postgres.
const FUNCTIONS: &str = "
CREATE FUNCTION json_each(list text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 100
    AS 'SELECT jsonb_array_elements_text(list::jsonb)';
CREATE FUNCTION json_extract(object text, path text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS 'SELECT object::jsonb ->> substr(path, 3)';
";

/// One generation's tables and checkpoint in a schema.
#[derive(Clone, Debug)]
pub struct PostgresNamespace {
    /// The name of the generation, from which the name of the schema is derived.
    pub(crate) name: String,
    pub(crate) schema: String,
    writer: PgPool,
    reader: PgPool,
    pub(crate) readers: Readers,
    pub(crate) postgres: Postgres,
    pub(crate) hook: Hook,
}

impl PostgresNamespace {
    pub(crate) async fn open(postgres: &Postgres, name: &str, layout: &Layout) -> Result<Self, StoreError> {
        let schema = schema_name(name);
        let shown = format!("{}, schema {schema}", postgres.shown);
        let options =
            (*postgres.options).clone().options([("search_path", schema.as_str())]).statement_cache_capacity(200);
        let pool = |max| {
            let options = PgPoolOptions::new().max_connections(max).acquire_timeout(Duration::from_secs(30));
            options.idle_timeout(Duration::from_secs(300))
        };
        let writer = pool(1).connect_lazy_with(options.clone());
        let opened = |source| StoreError::Open { path: shown.clone(), source };
        let mut tx = writer.begin().await.map_err(opened)?;
        // Two processes may create the schema at the same time.
        lock(&mut tx, &schema).await?;
        run(&mut tx, format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
        let version =
            "CREATE TABLE IF NOT EXISTS layout (id INTEGER PRIMARY KEY CHECK (id = 1), version BIGINT NOT NULL)";
        run(&mut tx, version.to_owned()).await?;
        let found: Option<i64> = sqlx::query_scalar("SELECT version FROM layout").fetch_optional(&mut *tx).await?;
        match found {
            Some(found) if found != layout.version => {
                return Err(StoreError::Layout { path: shown, found, expected: layout.version });
            }
            Some(_) => run(&mut tx, fill::TABLE.ddl(Dialect::Postgres)).await?,
            None => {
                let tables = checkpoint::TABLES.iter().chain([&fill::TABLE]).chain(layout.tables);
                run(&mut tx, table::ddl(tables, Dialect::Postgres)).await?;
                run(&mut tx, fill::MARK.to_owned()).await?;
                run(&mut tx, FUNCTIONS.to_owned()).await?;
                sqlx::query("INSERT INTO layout VALUES (1, $1)").bind(layout.version).execute(&mut *tx).await?;
            }
        }
        tx.commit().await?;
        let reader = pool(8).connect_lazy_with(options);
        let readers = Readers::Postgres(reader.clone());
        let (name, postgres) = (name.to_owned(), postgres.clone());
        Ok(Self { name, schema, writer, reader, readers, postgres, hook: (layout.hook)() })
    }

    pub(crate) async fn begin(&self) -> Result<Transaction<'static, sqlx::Postgres>, StoreError> {
        let mut tx = self.writer.begin().await?;
        lock(&mut tx, &self.schema).await?;
        Ok(tx)
    }

    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, sqlx::Postgres>, StoreError> {
        Ok(self.reader.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }

    /// Notifies all processes of the commit, once the transaction is committed.
    pub(crate) async fn notify(&self, connection: &mut Connection<'_>) -> Result<(), StoreError> {
        query("SELECT pg_notify($1, $2)").bind(crate::follow::CHANNEL).bind(&self.schema).execute(connection).await?;
        Ok(())
    }

    pub(crate) async fn clear(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let names: Vec<String> =
            sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = $1 AND tablename <> 'layout'")
                .bind(&self.schema)
                .fetch_all(&mut *tx)
                .await?;
        run(&mut tx, format!("TRUNCATE {}", names.join(", "))).await?;
        run(&mut tx, fill::MARK.to_owned()).await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Takes the lock of the namespace's writer until the end of the transaction. A fold reads what it writes, so two
/// writers would each see half of the other.
pub(crate) async fn lock(connection: &mut PgConnection, schema: &str) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))").bind(schema).execute(connection).await?;
    Ok(())
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_a_message_has_no_password() {
        assert_eq!(Postgres::shown("postgresql://me:se@cret@host:5432/db?x=1"), "postgresql://host:5432/db");
        assert_eq!(without_driver("postgresql+psycopg2://h/db"), "postgresql://h/db");
        assert_eq!(schema_name("registry-v3-1"), "carbon_ml_registry_v3_1");
    }

    #[test]
    fn the_end_of_a_long_schema_name_is_a_hash() {
        let fits = "g".repeat(MAX_NAME_BYTES - PREFIX.len());
        assert_eq!(schema_name(&fits), format!("{PREFIX}{fits}"));
        let [one, other] = ["1", "2"].map(|end| schema_name(&format!("{fits}-{end}")));
        assert_eq!((one.len(), other.len()), (MAX_NAME_BYTES, MAX_NAME_BYTES));
        assert!(one != other && one.starts_with("carbon_ml_ggg"), "{one} {other}");
        assert_eq!(one, schema_name(&format!("{fits}-1")));
    }
}

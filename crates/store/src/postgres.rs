//! A namespace as a schema of a Postgres database, which several processes share: each writes in turn, and all read.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, PgPool, Transaction};

use crate::checkpoint;
use crate::error::StoreError;
use crate::follow::Commits;
use crate::landed::Landed;
use crate::namespace::Layout;
use crate::sql::{Connection, Readers, query};

/// How long a transaction may stand still, so that a process that was stopped in one does not stop the others.
const IDLE_IN_TRANSACTION: &str = "30s";

/// What begins the name of a schema.
const PREFIX: &str = "carbon_ml_";

/// A database for namespaces.
#[derive(Clone, Debug)]
pub struct Postgres {
    options: Arc<PgConnectOptions>,
    /// As it may be shown: without a password.
    shown: String,
    pub(crate) commits: Commits,
}

impl Postgres {
    /// Looks the database up by an address such as `postgresql://user:password@host:5432/database`; SQLAlchemy's name of a
    /// driver (`postgresql+psycopg2`) is left out.
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
        let options = Arc::new(options);
        let commits = Commits::new(options.clone());
        Ok(Self { options, shown, commits })
    }

    /// An address as it may be shown: the host, port and database alone.
    pub fn shown(address: &str) -> String {
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        format!("postgresql://{}", rest.split('?').next().unwrap_or_default())
    }
}

/// Letters, digits and underscores alone: it needs no quotes anywhere.
fn schema_name(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    PREFIX.chars().chain(plain).collect()
}

fn without_driver(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) if scheme.contains('+') => {
            format!("{}://{rest}", scheme.split('+').next().unwrap_or_default())
        }
        _ => address.to_owned(),
    }
}

/// Functions of SQLite that statements use.
const FUNCTIONS: &str = "
CREATE FUNCTION json_each(list text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 100
    AS 'SELECT jsonb_array_elements_text(list::jsonb)';
CREATE FUNCTION json_extract(object text, path text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS 'SELECT object::jsonb ->> substr(path, 3)';
";

/// One generation's tables and checkpoint in a schema.
#[derive(Clone, Debug)]
pub struct PostgresNamespace {
    pub(crate) schema: String,
    writer: PgPool,
    reader: PgPool,
    pub(crate) readers: Readers,
    pub(crate) postgres: Postgres,
    pub(crate) landed: Landed,
}

impl PostgresNamespace {
    pub(crate) async fn open(postgres: &Postgres, name: &str, layout: &Layout) -> Result<Self, StoreError> {
        let schema = schema_name(name);
        let shown = format!("{}, schema {schema}", postgres.shown);
        if schema.len() > 63 {
            return Err(StoreError::Corrupt(format!("{shown}: a name has 63 characters at the most")));
        }
        let options =
            (*postgres.options).clone().options([("search_path", schema.as_str())]).statement_cache_capacity(200);
        let pool = |max| {
            let options = PgPoolOptions::new().max_connections(max).acquire_timeout(Duration::from_secs(30));
            options.idle_timeout(Duration::from_secs(300))
        };
        let writer = pool(1).connect_lazy_with(options.clone());
        let opened = |source| StoreError::Open { path: shown.clone(), source };
        let mut tx = writer.begin().await.map_err(opened)?;
        // Two processes may come at once.
        lock(&mut tx, &schema).await?;
        let run = async |tx: &mut PgConnection, sql: String| tx.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
        run(&mut tx, format!("CREATE SCHEMA IF NOT EXISTS {schema}")).await?;
        let version =
            "CREATE TABLE IF NOT EXISTS layout (id INTEGER PRIMARY KEY CHECK (id = 1), version BIGINT NOT NULL)";
        run(&mut tx, version.to_owned()).await?;
        let found: Option<i64> = sqlx::query_scalar("SELECT version FROM layout").fetch_optional(&mut *tx).await?;
        match found {
            Some(found) if found != layout.version => {
                return Err(StoreError::Layout { path: shown, found, expected: layout.version });
            }
            Some(_) => {}
            None => {
                for part in [checkpoint::DDL, layout.ddl] {
                    run(&mut tx, translated(part)).await?;
                }
                run(&mut tx, FUNCTIONS.to_owned()).await?;
                sqlx::query("INSERT INTO layout VALUES (1, $1)").bind(layout.version).execute(&mut *tx).await?;
            }
        }
        tx.commit().await?;
        let reader = pool(8).connect_lazy_with(options);
        let readers = Readers::Postgres(reader.clone());
        Ok(Self { schema, writer, reader, readers, postgres: postgres.clone(), landed: Landed::default() })
    }

    pub(crate) async fn begin(&self) -> Result<Transaction<'static, sqlx::Postgres>, StoreError> {
        let mut tx = self.writer.begin().await?;
        lock(&mut tx, &self.schema).await?;
        Ok(tx)
    }

    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, sqlx::Postgres>, StoreError> {
        Ok(self.reader.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }

    /// Wakes who waits for a commit, when it is one.
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
        let truncate = format!("TRUNCATE {}", names.join(", "));
        tx.execute(sqlx::raw_sql(AssertSqlSafe(truncate))).await?;
        Ok(tx.commit().await?)
    }

    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// One writer at a time, until the end of the transaction: a fold reads what it writes.
async fn lock(connection: &mut PgConnection, schema: &str) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))").bind(schema).execute(connection).await?;
    Ok(())
}

/// The same tables in the words of Postgres. Texts are compared by their bytes, as SQLite does.
fn translated(ddl: &str) -> String {
    ddl.replace(" WITHOUT ROWID", "")
        .replace(" INTEGER", " BIGINT")
        .replace(" REAL", " DOUBLE PRECISION")
        .replace(" BLOB", " BYTEA")
        .replace(" TEXT", " TEXT COLLATE \"C\"")
        // An entry of an index has 2,700 bytes at the most.
        .replace("(key, value, run_no)", "(key, left(value, 256), run_no)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(Postgres::shown("postgresql://me:se@cret@host:5432/db?x=1"), "postgresql://host:5432/db");
        assert_eq!(without_driver("postgresql+psycopg2://h/db"), "postgresql://h/db");
        assert_eq!(schema_name("registry-v3-1"), "carbon_ml_registry_v3_1");
    }
}

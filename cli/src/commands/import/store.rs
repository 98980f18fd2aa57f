//! An MLflow database, read in one snapshot on one connection.

use sqlx::any::{AnyArguments, AnyConnectOptions, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};

use crate::error::CliError;

/// Revisions of MLflow's schema, oldest first: all that have logged models with outputs of runs (MLflow 3.0 to 3.17).
/// The tables that are read have the same columns in each, but for the workspace.
#[rustfmt::skip]
const REVISIONS: [&str; 38] = [
    "6953534de441", "bda7b8c39065", "cbc13b556ace", "770bee3ae1dd", "a1b2c3d4e5f6", "de4033877273", "1a0cddfcaa16",
    "534353b11cbc", "71994744cf8e", "3da73c924c2f", "bf29a5ff90ea", "1bd49d398cd23", "b7c8d9e0f1a2", "5d2d30f0abce",
    "c9d4e5f6a7b8", "2c33131f4dae", "d3e4f5a6b7c8", "d0e1f2a3b4c5", "c8d9e0f1a2b3", "1b5f0d9ad7c1", "e1f2a3b4c5d6",
    "76601a5f987d", "c3d6457b6d8a", "a5b4c3d2e1f0", "ae8bbe7743c9", "7d34483879f0", "da6fb0208061", "89d3d66ed43f",
    "b7e4c1a90f23", "a8b9c0d1e2f3", "c1d2e3f4a5b6", "c3d9e7f1a2b4", "6f8d9c3b2a1e", "1971f2d9a75b", "17e22815139b",
    "b7e2c1a4d9f3", "75868b020152", "dc11669786a5",
];

/// The workspace of a store that has none.
pub const DEFAULT_WORKSPACE: &str = "default";

pub struct Store {
    connection: AnyConnection,
    postgres: bool,
    /// As it may be shown: without a password.
    pub shown: String,
    pub workspace: String,
    has_workspaces: bool,
}

/// A value of a statement.
#[derive(Clone, Copy)]
pub enum Bind<'a> {
    Text(&'a str),
    Number(i64),
}

impl Store {
    pub async fn open(address: &str, workspace: &str) -> Result<Self, CliError> {
        sqlx::any::install_default_drivers();
        let Address { url, shown, postgres } = Address::parse(address)?;
        let failed = |error: sqlx::Error| CliError::Failed(format!("{shown} cannot be opened: {error}"));
        let options: AnyConnectOptions = url.parse().map_err(failed)?;
        let mut connection = options.disable_statement_logging().connect().await.map_err(failed)?;
        // All statements see the store as it was at one moment, and none can change it.
        let begin = match postgres {
            true => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            false => "BEGIN",
        };
        connection.execute(begin).await.map_err(failed)?;
        let mut store = Self { connection, postgres, shown, workspace: workspace.to_owned(), has_workspaces: false };
        store.check_schema().await?;
        if workspace != DEFAULT_WORKSPACE && !store.has_workspaces {
            let what = format!("{} has no workspaces; leave --workspace out", store.shown);
            return Err(CliError::Usage(what));
        }
        Ok(store)
    }

    async fn check_schema(&mut self) -> Result<(), CliError> {
        let shown = self.shown.clone();
        if !self.tables().await?.iter().any(|table| table == "alembic_version") {
            return Err(CliError::Failed(format!("{shown} is no MLflow database: it has no table alembic_version")));
        }
        let rows = self.rows("SELECT version_num FROM alembic_version", &[]).await?;
        let revision = match rows.first() {
            Some(row) => text(row, 0)?,
            None => String::new(),
        };
        if REVISIONS.contains(&revision.as_str()) {
            let first_with = REVISIONS.iter().position(|known| *known == "1b5f0d9ad7c1");
            self.has_workspaces = REVISIONS.iter().position(|known| *known == revision) >= first_with;
            return Ok(());
        }
        Err(CliError::Failed(format!(
            "{shown} has schema revision {revision:?}, which this program does not know: it reads those of MLflow 3.0 to 3.17. \
             An older one is brought up by `mlflow db upgrade` of such an MLflow (make a copy first); for a newer one \
             upgrade this program"
        )))
    }

    /// The condition that a row is of the workspace, which is the statement's first value.
    pub fn in_workspace(&self) -> &'static str {
        if self.has_workspaces { "workspace = $1" } else { "CAST($1 AS TEXT) IS NOT NULL" }
    }

    pub async fn rows(&mut self, sql: &str, binds: &[Bind<'_>]) -> Result<Vec<AnyRow>, CliError> {
        let rows = bound(sql, binds).fetch_all(&mut self.connection).await;
        rows.map_err(|error| unreadable(&self.shown, &error))
    }

    /// The same row by row, for what may not fit into memory.
    pub fn stream<'a>(
        &'a mut self,
        sql: &'a str,
        binds: &'a [Bind<'a>],
    ) -> impl futures::Stream<Item = Result<AnyRow, CliError>> + Send + 'a {
        use futures::StreamExt as _;
        let shown = self.shown.clone();
        let rows = bound(sql, binds).fetch(&mut self.connection);
        rows.map(move |row| row.map_err(|error| unreadable(&shown, &error)))
    }

    pub async fn count(&mut self, what: &str, binds: &[Bind<'_>]) -> Result<u64, CliError> {
        let rows = self.rows(&format!("SELECT CAST(count(*) AS BIGINT) FROM {what}"), binds).await?;
        let count = rows.first().map(|row| number(row, 0)).transpose()?.unwrap_or_default();
        Ok(u64::try_from(count).unwrap_or_default())
    }

    pub async fn tables(&mut self) -> Result<Vec<String>, CliError> {
        let sql = match self.postgres {
            true => {
                "SELECT CAST(table_name AS TEXT) FROM information_schema.tables \
                 WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY 1"
            }
            false => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1",
        };
        self.rows(sql, &[]).await?.iter().map(|row| text(row, 0)).collect()
    }

    pub fn has_workspaces(&self) -> bool {
        self.has_workspaces
    }
}

fn bound<'a>(sql: &str, binds: &[Bind<'a>]) -> Query<'a, Any, AnyArguments> {
    // The statements are the program's own; what comes from outside is bound.
    let query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    binds.iter().fold(query, |query, bind| match bind {
        Bind::Text(text) => query.bind((*text).to_owned()),
        Bind::Number(number) => query.bind(*number),
    })
}

fn unreadable(shown: &str, error: &sqlx::Error) -> CliError {
    CliError::Failed(format!("{shown} cannot be read: {error}"))
}

fn column<T>(value: Result<T, sqlx::Error>) -> Result<T, CliError> {
    value.map_err(|error| CliError::Failed(format!("a row of the store is not as its schema says: {error}")))
}

pub fn maybe(row: &AnyRow, at: usize) -> Result<Option<String>, CliError> {
    column(row.try_get(at))
}

/// Nothing is an empty text.
pub fn text(row: &AnyRow, at: usize) -> Result<String, CliError> {
    Ok(maybe(row, at)?.unwrap_or_default())
}

pub fn maybe_number(row: &AnyRow, at: usize) -> Result<Option<i64>, CliError> {
    column(row.try_get(at))
}

/// Nothing is nought.
pub fn number(row: &AnyRow, at: usize) -> Result<i64, CliError> {
    Ok(maybe_number(row, at)?.unwrap_or_default())
}

pub fn real(row: &AnyRow, at: usize) -> Result<f64, CliError> {
    Ok(column(row.try_get::<Option<f64>, _>(at))?.unwrap_or_default())
}

/// Where a store is, as MLflow's server is told it.
struct Address {
    url: String,
    shown: String,
    postgres: bool,
}

impl Address {
    fn parse(address: &str) -> Result<Self, CliError> {
        let (scheme, rest) = address.split_once(':').unwrap_or(("sqlite", address));
        let dialect = scheme.split('+').next().unwrap_or_default();
        match dialect {
            "sqlite" => Self::sqlite(rest),
            "postgresql" | "postgres" => {
                let url = format!("postgresql:{rest}");
                let shown = match (rest.split_once("//"), rest.rsplit_once('@')) {
                    (Some((_, login)), Some((_, place))) => {
                        let user = login.split([':', '@']).next().unwrap_or_default();
                        format!("postgresql://{user}@{}", place.split('?').next().unwrap_or_default())
                    }
                    _ => format!("postgresql:{}", rest.split('?').next().unwrap_or_default()),
                };
                Ok(Self { url, shown, postgres: true })
            }
            "mysql" | "mssql" => Err(CliError::Usage(format!(
                "{dialect} stores are not read; copy it to sqlite:///PATH or postgresql://… with a tool of that database"
            ))),
            _ => Err(CliError::Usage(format!(
                "{address:?} is no store that is read: name sqlite:///PATH or postgresql://…; \
                 a folder of files becomes a database by MLflow's own `mlflow migrate-filestore`"
            ))),
        }
    }

    /// SQLAlchemy's form has three slashes before the path, others have none or two.
    fn sqlite(rest: &str) -> Result<Self, CliError> {
        let path = rest.strip_prefix("///").or(rest.strip_prefix("//")).unwrap_or(rest);
        let path = path.split('?').next().unwrap_or_default();
        let meta = std::fs::metadata(path).map_err(CliError::file(std::path::Path::new(path)))?;
        if meta.is_dir() {
            let what = format!("{path} is a folder; a file store becomes a database by `mlflow migrate-filestore`");
            return Err(CliError::Usage(what));
        }
        let mut encoded = String::with_capacity(path.len());
        for c in path.chars() {
            match c {
                '%' => encoded.push_str("%25"),
                '#' => encoded.push_str("%23"),
                ' ' => encoded.push_str("%20"),
                other => encoded.push(other),
            }
        }
        Ok(Self { url: format!("sqlite:{encoded}?mode=ro"), shown: format!("sqlite:{path}"), postgres: false })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_mlflow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.db");
        std::fs::write(&path, "").unwrap();
        let path = path.to_str().unwrap();
        for form in [
            format!("sqlite:///{path}"),
            format!("sqlite:{path}"),
            path.to_owned(),
            format!("sqlite+pysqlite:///{path}"),
        ] {
            let address = Address::parse(&form).unwrap();
            assert_eq!(address.shown, format!("sqlite:{path}"), "{form}");
            assert!(address.url.ends_with("a%20b.db?mode=ro"), "{}", address.url);
        }
        let postgres = Address::parse("postgresql+psycopg2://me:se@cret@host:5432/mlflow?sslmode=require").unwrap();
        assert_eq!(postgres.shown, "postgresql://me@host:5432/mlflow");
        assert_eq!(postgres.url, "postgresql://me:se@cret@host:5432/mlflow?sslmode=require");
        assert_eq!(Address::parse("postgres://host/mlflow").unwrap().shown, "postgresql://host/mlflow");
        for refused in
            ["mysql+pymysql://h/x", "http://localhost:5000", &format!("sqlite:///{}", folder.path().display())]
        {
            assert_eq!(Address::parse(refused).err().unwrap().exit_code(), 2, "{refused}");
        }
        assert_eq!(Address::parse("sqlite:///no/such.db").err().unwrap().exit_code(), 4);
    }

    #[tokio::test]
    async fn what_is_no_mlflow_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let refused = async |sql: &'static str| {
            let _ = std::fs::remove_file(&path);
            let url = format!("sqlite:{}?mode=rwc", path.display());
            sqlx::any::install_default_drivers();
            let options: AnyConnectOptions = url.parse().unwrap();
            let mut connection = options.connect().await.unwrap();
            connection.execute(sql).await.unwrap();
            Store::open(path.to_str().unwrap(), DEFAULT_WORKSPACE).await.err().unwrap().to_string()
        };
        assert!(refused("CREATE TABLE a (b TEXT)").await.contains("alembic_version"));
        let old =
            "CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('451aebb31d03')";
        assert!(refused(old).await.contains("mlflow db upgrade"));
    }
}

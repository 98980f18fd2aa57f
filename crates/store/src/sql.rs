//! Statements that run on SQLite and on Postgres: one text, with `$1` for a value. sqlx's `Any` is not used, since it
//! writes `?` in built statements and converts every value twice (ADR 11).

use std::fmt::{Display, Write as _};

use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Either, Executor as _, PgConnection, PgPool, SqlSafeStr, SqlStr, SqliteConnection};

use crate::error::StoreError;
use crate::file_pool::FilePool;
use crate::row::{Get, Row};
use crate::value::{IntoValue, Value};

/// The SQL dialect of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// The keyword of an inner join that SQLite executes in the order of the text, and that has a condition. SQLite
    /// does not reorder a `CROSS JOIN`, while Postgres accepts no condition for one and chooses the order itself.
    pub fn ordered_join(self) -> &'static str {
        match self {
            Dialect::Sqlite => "CROSS JOIN",
            Dialect::Postgres => "JOIN",
        }
    }
}

/// The connection that a statement runs on.
pub enum Connection<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// The connections for reads of a namespace. Each statement runs on a free one.
#[derive(Clone, Debug)]
pub enum Readers {
    Sqlite(FilePool),
    Postgres(PgPool),
}

/// The connection of a transaction, or any free reader.
pub enum Target<'c> {
    Readers(&'c Readers),
    Connection(Connection<'c>),
}

impl<'c> From<&'c Readers> for Target<'c> {
    fn from(readers: &'c Readers) -> Self {
        Target::Readers(readers)
    }
}

impl<'c> From<Connection<'c>> for Target<'c> {
    fn from(connection: Connection<'c>) -> Self {
        Target::Connection(connection)
    }
}

impl<'c> From<&'c mut Connection<'_>> for Target<'c> {
    fn from(connection: &'c mut Connection<'_>) -> Self {
        Target::Connection(match connection {
            Connection::Sqlite(connection) => Connection::Sqlite(connection),
            Connection::Postgres(connection) => Connection::Postgres(connection),
        })
    }
}

/// A statement and its values.
#[derive(Debug)]
pub struct Query {
    sql: SqlStr,
    values: Vec<Value>,
}

/// A statement with `$1`, `$2`, … for its values.
pub fn query(sql: impl SqlSafeStr) -> Query {
    Query { sql: sql.into_sql_str(), values: Vec::new() }
}

macro_rules! run {
    ($query:expr, $target:expr, $method:ident) => {{
        let Query { sql, values } = $query;
        match $target.into() {
            Target::Readers(Readers::Sqlite(pool)) => {
                let arguments = sqlite_arguments(values)?;
                let mut taken = pool.take().await?;
                let answer = sqlx::query_with(sql, arguments).$method(&mut taken.connection).await?;
                taken.give_back();
                Ok(answer.into())
            }
            Target::Connection(Connection::Sqlite(connection)) => {
                sqlx::query_with(sql, sqlite_arguments(values)?).$method(connection).await.map(Into::into)
            }
            Target::Readers(Readers::Postgres(pool)) => {
                sqlx::query_with(sql, postgres_arguments(values)?).$method(pool).await.map(Into::into)
            }
            Target::Connection(Connection::Postgres(connection)) => {
                sqlx::query_with(sql, postgres_arguments(values)?).$method(connection).await.map(Into::into)
            }
        }
    }};
}

/// All rows, at most one row, or the number of changed rows, from either store.
struct Rows(Vec<Row>);
struct Perhaps(Option<Row>);
struct Changed(u64);

macro_rules! of_both {
    ($row:ty, $done:ty) => {
        impl From<Vec<$row>> for Rows {
            fn from(rows: Vec<$row>) -> Self {
                Rows(rows.into_iter().map(Row::from).collect())
            }
        }
        impl From<Option<$row>> for Perhaps {
            fn from(row: Option<$row>) -> Self {
                Perhaps(row.map(Row::from))
            }
        }
        impl From<$done> for Changed {
            fn from(done: $done) -> Self {
                Changed(done.rows_affected())
            }
        }
    };
}

of_both!(sqlx::sqlite::SqliteRow, sqlx::sqlite::SqliteQueryResult);
of_both!(sqlx::postgres::PgRow, sqlx::postgres::PgQueryResult);

impl Query {
    #[must_use]
    pub fn bind(mut self, value: impl IntoValue) -> Self {
        self.values.push(value.into_value());
        self
    }

    pub async fn fetch_all<'c>(self, on: impl Into<Target<'c>>) -> Result<Vec<Row>, sqlx::Error> {
        let rows: Result<Rows, _> = run!(self, on, fetch_all);
        rows.map(|Rows(rows)| rows)
    }

    pub async fn fetch_optional<'c>(self, on: impl Into<Target<'c>>) -> Result<Option<Row>, sqlx::Error> {
        let row: Result<Perhaps, _> = run!(self, on, fetch_optional);
        row.map(|Perhaps(row)| row)
    }

    pub async fn fetch_one<'c>(self, on: impl Into<Target<'c>>) -> Result<Row, sqlx::Error> {
        self.fetch_optional(on).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// Runs the statement and returns how many rows it changed.
    pub async fn execute<'c>(self, on: impl Into<Target<'c>>) -> Result<u64, sqlx::Error> {
        let changed: Result<Changed, _> = run!(self, on, execute);
        changed.map(|Changed(rows)| rows)
    }

    /// The rows of each statement of the text.
    pub(crate) async fn fetch_each(self, on: &mut SqliteConnection) -> Result<Vec<Vec<Row>>, sqlx::Error> {
        let mut each = vec![Vec::new()];
        let mut answers = on.fetch_many(sqlx::query_with(self.sql, sqlite_arguments(self.values)?));
        while let Some(answer) = answers.try_next().await? {
            match (answer, each.last_mut()) {
                (Either::Right(row), Some(rows)) => rows.push(row.into()),
                _ => each.push(Vec::new()),
            }
        }
        Ok(each)
    }

    /// Calls `row` for each row.
    pub(crate) async fn each(
        self,
        on: Target<'_>,
        row: impl FnMut(&Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Query { sql, values } = self;
        match on {
            Target::Readers(Readers::Sqlite(pool)) => {
                let mut taken = pool.take().await?;
                let query = sqlx::query_with(sql, sqlite_arguments(values)?);
                each_row(query.fetch(&mut taken.connection), row).await?;
                taken.give_back();
                Ok(())
            }
            Target::Connection(Connection::Sqlite(connection)) => {
                each_row(sqlx::query_with(sql, sqlite_arguments(values)?).fetch(connection), row).await
            }
            Target::Readers(Readers::Postgres(pool)) => {
                each_row(sqlx::query_with(sql, postgres_arguments(values)?).fetch(pool), row).await
            }
            Target::Connection(Connection::Postgres(connection)) => {
                each_row(sqlx::query_with(sql, postgres_arguments(values)?).fetch(connection), row).await
            }
        }
    }

    /// The first column of every row.
    pub async fn scalars<'c, T: Get>(self, on: impl Into<Target<'c>>) -> Result<Vec<T>, sqlx::Error> {
        self.fetch_all(on).await?.iter().map(|row| row.try_get(0)).collect()
    }

    /// The first column of the one row.
    pub async fn scalar_one<'c, T: Get>(self, on: impl Into<Target<'c>>) -> Result<T, sqlx::Error> {
        self.fetch_one(on).await?.try_get(0)
    }

    /// The first column of the one row; `None` if there is no row.
    pub async fn scalar<'c, T: Get>(self, on: impl Into<Target<'c>>) -> Result<Option<T>, sqlx::Error> {
        self.fetch_optional(on).await?.map(|row| row.try_get(0)).transpose()
    }
}

async fn each_row<R: Into<Row>>(
    mut rows: BoxStream<'_, Result<R, sqlx::Error>>,
    mut row: impl FnMut(&Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    while let Some(next) = rows.try_next().await? {
        row(&next.into())?;
    }
    Ok(())
}

fn sqlite_arguments(values: Vec<Value>) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    values.into_iter().try_for_each(|value| value.bind_sqlite(&mut arguments)).map_err(sqlx::Error::Encode)?;
    Ok(arguments)
}

fn postgres_arguments(values: Vec<Value>) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    values.into_iter().try_for_each(|value| value.bind_postgres(&mut arguments)).map_err(sqlx::Error::Encode)?;
    Ok(arguments)
}

/// A statement that is built piece by piece.
#[derive(Debug)]
pub struct QueryBuilder {
    pub dialect: Dialect,
    sql: String,
    values: Vec<Value>,
}

impl QueryBuilder {
    pub fn new(dialect: Dialect, sql: impl Into<String>) -> Self {
        Self { dialect, sql: sql.into(), values: Vec::new() }
    }

    pub fn push(&mut self, sql: impl Display) -> &mut Self {
        // A `String` takes everything.
        let _ = write!(self.sql, "{sql}");
        self
    }

    pub fn push_bind(&mut self, value: impl IntoValue) -> &mut Self {
        self.push_value(value.into_value())
    }

    pub fn push_value(&mut self, value: Value) -> &mut Self {
        self.values.push(value);
        match self.dialect {
            // SQLite treats `$1` as a name, and looks names up one by one: quadratic in the number of values.
            Dialect::Sqlite => self.push('?'),
            Dialect::Postgres => self.push(format_args!("${}", self.values.len())),
        }
    }

    /// Adds `VALUES (…), (…)`.
    pub fn push_values<I: IntoIterator>(&mut self, rows: I, mut row: impl FnMut(Separated<'_>, I::Item)) -> &mut Self {
        self.push("VALUES ");
        for (n, item) in rows.into_iter().enumerate() {
            self.push(if n == 0 { "(" } else { ", (" });
            row(Separated { query: self, first: true }, item);
            self.push(')');
        }
        self
    }

    /// The number of bound values.
    pub(crate) fn values(&self) -> usize {
        self.values.len()
    }

    /// Adds another statement. A connection to a file runs both in one turn and returns the rows of both.
    pub(crate) fn append(&mut self, other: QueryBuilder) {
        debug_assert_eq!(self.dialect, Dialect::Sqlite, "Postgres runs one statement at a time");
        if !self.sql.is_empty() {
            self.sql.push_str("; ");
        }
        self.sql.push_str(&other.sql);
        self.values.extend(other.values);
    }

    /// Takes the statement; the builder is empty afterwards.
    pub fn build(&mut self) -> Query {
        // Built only from texts of the program and placeholders for values.
        let sql = AssertSqlSafe(std::mem::take(&mut self.sql)).into_sql_str();
        Query { sql, values: std::mem::take(&mut self.values) }
    }
}

/// One row of `VALUES`.
pub struct Separated<'q> {
    query: &'q mut QueryBuilder,
    first: bool,
}

impl Separated<'_> {
    pub fn push_bind(&mut self, value: impl IntoValue) -> &mut Self {
        self.push_value(value.into_value())
    }

    pub fn push_value(&mut self, value: Value) -> &mut Self {
        self.comma().push_value(value);
        self
    }

    pub fn push(&mut self, sql: impl Display) -> &mut Self {
        self.comma().push(sql);
        self
    }

    fn comma(&mut self) -> &mut QueryBuilder {
        if !std::mem::take(&mut self.first) {
            self.query.push(", ");
        }
        self.query
    }
}

//! Errors of a namespace.

use carbon_core::{Classify, Fault, Retry};

/// Why an operation on a namespace failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store: {0}")]
    Sql(sqlx::Error),
    #[error("store: {path}: {source}")]
    Open { path: String, source: sqlx::Error },
    #[error("store: {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("store: {path} was written with layout {found}, this program reads {expected}")]
    Layout { path: String, found: i64, expected: i64 },
    #[error(
        "store: {path} holds an MLflow store: name another database, and copy that one with `carbon-ml import mlflow`"
    )]
    Foreign { path: String },
    #[error("store: the address is none of a Postgres: postgresql://user:password@host:5432/database")]
    Address,
    #[error("store: {0}")]
    Corrupt(String),
    /// The path no longer names the open file.
    #[error(
        "store: {path} was deleted or replaced while this process has it open: stop the process and start it again; a read model is rebuilt from the log"
    )]
    Gone { path: String },
    #[error("store: {path} lies in a file of one process: only namespaces of a Postgres can be switched there")]
    NotShared { path: String },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_damage(&error) {
            return Self::Corrupt(format!(
                "{error}: stop, delete the read model's folder below read-models/ and start again; it is rebuilt from the log"
            ));
        }
        match error {
            sqlx::Error::Configuration(inner) => match inner.downcast::<StoreError>() {
                Ok(own) => *own,
                Err(inner) => Self::Sql(sqlx::Error::Configuration(inner)),
            },
            error => Self::Sql(error),
        }
    }
}

/// For a connection that could not be opened: the error passes through sqlx, and [`StoreError::from`] unwraps it.
impl From<StoreError> for sqlx::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Sql(error) => error,
            error => sqlx::Error::Configuration(Box::new(error)),
        }
    }
}

/// Whether SQLite reports a damaged file: SQLITE_CORRUPT or SQLITE_NOTADB, or one of their extended codes.
pub(crate) fn is_damage(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<sqlx::sqlite::SqliteError>());
    let code = error.and_then(|error| sqlx::error::DatabaseError::code(error)?.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

impl StoreError {
    /// Whether the file is damaged. A read model is then rebuilt.
    pub fn is_damaged(&self) -> bool {
        match self {
            StoreError::Corrupt(_) => true,
            StoreError::Open { source, .. } | StoreError::Sql(source) => is_damage(source),
            StoreError::Layout { .. } | StoreError::Io { .. } => false,
            StoreError::Gone { .. } | StoreError::NotShared { .. } => false,
            StoreError::Foreign { .. } | StoreError::Address => false,
        }
    }
}

impl Classify for StoreError {
    fn fault(&self) -> Fault {
        match self {
            StoreError::Corrupt(_) | StoreError::Layout { .. } | StoreError::NotShared { .. } => Fault::Internal,
            StoreError::Foreign { .. } | StoreError::Address => Fault::User,
            _ => Fault::External,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            StoreError::Corrupt(_) | StoreError::Layout { .. } | StoreError::NotShared { .. } => Retry::Never,
            StoreError::Foreign { .. } | StoreError::Address => Retry::Never,
            StoreError::Sql(error) | StoreError::Open { source: error, .. } => match error {
                sqlx::Error::Database(db) if db.is_unique_violation() || db.is_check_violation() => Retry::Never,
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => Retry::Never,
                _ => Retry::Later,
            },
            // Another process may put the file back. The message says what to do otherwise.
            StoreError::Gone { .. } | StoreError::Io { .. } => Retry::Later,
        }
    }
}

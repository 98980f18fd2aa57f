use carbon_core::{Classify, Fault, Retry};

/// What can go wrong with a namespace.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("store: {path}: {source}")]
    Open { path: String, source: sqlx::Error },
    #[error("store: {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("store: {path} was written with layout {found}, this program reads {expected}")]
    Layout { path: String, found: i64, expected: i64 },
    #[error("store: {0}")]
    Corrupt(String),
}

impl Classify for StoreError {
    fn fault(&self) -> Fault {
        match self {
            StoreError::Corrupt(_) | StoreError::Layout { .. } => Fault::Internal,
            _ => Fault::External,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            StoreError::Corrupt(_) | StoreError::Layout { .. } => Retry::Never,
            StoreError::Sql(error) | StoreError::Open { source: error, .. } => match error {
                sqlx::Error::Database(db) if db.is_unique_violation() || db.is_check_violation() => Retry::Never,
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => Retry::Never,
                _ => Retry::Later,
            },
            StoreError::Io { .. } => Retry::Later,
        }
    }
}

//! The errors of indexes and searches.

use carbon_core::{Classify, EntityKey, Fault, GenerationId, Positions, Retry};
use carbon_store::{CheckpointError, StoreError};

use crate::plan::PlanError;

/// Errors of an index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("index: generation {0} does not exist or is not open")]
    UnknownGeneration(GenerationId),
    #[error("index: generation {id} has model and dimension {found}; expected {expected}")]
    Spec { id: GenerationId, found: String, expected: String },
    /// Another writer moved the checkpoint. The batch was not applied (law 4).
    #[error("index: the checkpoint is at {actual}, not at the start of this batch; the batch was not applied")]
    Moved { actual: Positions },
    #[error("index: the vector of {key} is invalid: {reason}")]
    Vector { key: EntityKey, reason: String },
    #[error("index: the query's vector is invalid: {0}")]
    QueryVector(String),
    /// Every 32-bit row number was used once. Numbers are never reused.
    #[error("index: no row numbers are left; reindex into a new generation")]
    Full,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("index: {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("index: lexical: {0}")]
    Lexical(String),
    #[error("index: a search thread failed: {0}")]
    Thread(String),
}

impl From<tantivy::TantivyError> for IndexError {
    fn from(error: tantivy::TantivyError) -> Self {
        IndexError::Lexical(error.to_string())
    }
}

impl From<CheckpointError> for IndexError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Moved { actual } => IndexError::Moved { actual },
            CheckpointError::Store(error) => IndexError::Store(error),
        }
    }
}

impl From<sqlx::Error> for IndexError {
    fn from(error: sqlx::Error) -> Self {
        IndexError::Store(StoreError::Sql(error))
    }
}

impl Classify for IndexError {
    fn fault(&self) -> Fault {
        match self {
            IndexError::QueryVector(_) | IndexError::Vector { .. } => Fault::User,
            IndexError::Store(error) => error.fault(),
            IndexError::Io { .. } | IndexError::Lexical(_) | IndexError::Moved { .. } => Fault::External,
            // The generation is being opened or rebuilt; it will be available later.
            IndexError::UnknownGeneration(_) => Fault::External,
            IndexError::Spec { .. } => Fault::Internal,
            IndexError::Full | IndexError::Thread(_) => Fault::Internal,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            IndexError::Store(error) => error.retry(),
            IndexError::UnknownGeneration(_) | IndexError::Io { .. } | IndexError::Lexical(_) => Retry::Later,
            _ => Retry::Never,
        }
    }
}

/// Errors of a search.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the plan has a dense retriever, but no query vector was given")]
    NoVector,
    #[error("{0} is not in the index")]
    NotFound(EntityKey),
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl Classify for SearchError {
    fn fault(&self) -> Fault {
        match self {
            SearchError::Plan(error) => error.fault(),
            SearchError::NoVector => Fault::Internal,
            SearchError::NotFound(_) => Fault::User,
            SearchError::Index(error) => error.fault(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            SearchError::Index(error) => error.retry(),
            _ => Retry::Never,
        }
    }
}

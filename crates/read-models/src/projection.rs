use async_trait::async_trait;
use carbon_core::{Classify, Fault, Retry};
use carbon_schemas::Feed;
use carbon_store::{Dialect, Layout, Namespace, QueryBuilder, Site, StoreError, Tables};

/// Why a fold could not be applied. A business conflict is no error (law 10).
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a value cannot be written: {0}")]
    Value(#[from] serde_json::Error),
}

impl From<sqlx::Error> for FoldError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Classify for FoldError {
    fn fault(&self) -> Fault {
        match self {
            FoldError::Store(error) => error.fault(),
            FoldError::Value(_) => Fault::Internal,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            FoldError::Store(error) => error.retry(),
            FoldError::Value(_) => Retry::Never,
        }
    }
}

/// A read model: the deterministic fold of its topics into rows.
#[async_trait]
pub trait Projection: Clone + Send + Sync + 'static {
    const NAME: &'static str;
    /// Raised with every change of tables or fold: another version is another generation.
    const VERSION: u32;
    const DDL: &'static str;
    /// Statements that answer all rows, each in key order: what the digest is made of.
    const CANONICAL: &'static [&'static str];
    /// The records that it folds.
    type Record: Feed;

    /// What the fold of a batch reads first. A caller may have read it with the begin, and then gives the rows with the tables.
    fn first_reads(_dialect: Dialect, _batch: &[Self::Record]) -> Vec<QueryBuilder> {
        Vec::new()
    }

    /// Applies a batch, in log order within each partition, inside the caller's transaction, which also
    /// moves the checkpoint.
    async fn apply(&self, tables: &mut Tables<'_>, batch: &[Self::Record]) -> Result<(), FoldError>;
}

/// Opens a projection's namespace, or makes it.
pub async fn open<P: Projection>(site: &Site) -> Result<Namespace, StoreError> {
    Namespace::open(site, &Layout { version: i64::from(P::VERSION), ddl: P::DDL }).await
}

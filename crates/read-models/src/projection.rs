//! The trait of a read model.

use async_trait::async_trait;
use carbon_core::{Classify, Fault, Retry};
use carbon_schemas::Feed;
use carbon_store::{CommitHook, Dialect, Folded, Layout, Namespace, QueryBuilder, Site, StoreError, Table, Tables};

/// Why a fold failed. A conflict is no error (law 10).
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
    /// The fold version. Every change of the rows or of the fold raises it: another version is another generation.
    const VERSION: u32;
    const TABLES: &'static [Table];
    /// The records that the read model folds.
    type Record: Feed;
    /// The commit hook of its namespaces; `()` if it needs none.
    type Commits: CommitHook;

    /// Statements that return all rows, each in key order. The digest is computed from them.
    fn canonical(dialect: Dialect) -> Vec<String>;

    /// The statements that the fold of a batch reads first. The caller may run them with the `BEGIN`; their rows then
    /// come with the tables ([`Tables::take_first_rows`]).
    fn first_reads(_dialect: Dialect, _batch: &[Self::Record]) -> Vec<QueryBuilder> {
        Vec::new()
    }

    /// Applies a batch, in log order within each partition, in the caller's transaction, which also moves the
    /// checkpoint. The caller commits what the fold returns.
    async fn apply<'t>(&self, tables: Tables<'t>, batch: &[Self::Record]) -> Result<Folded<'t>, FoldError>;
}

/// Opens the namespace of a read model, and creates it where it is missing.
pub async fn open<P: Projection>(site: &Site) -> Result<Namespace, StoreError> {
    let layout = Layout::new(i64::from(P::VERSION), P::TABLES).with_hook::<P::Commits>();
    Namespace::open(site, &layout).await
}

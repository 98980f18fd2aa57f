//! [`HybridIndex`]: the trait that every index engine implements, and its types.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::{EntityKey, EntityType, GenerationId, ModelRef, Positions, TenantId, TenantScope};
use carbon_store::Checkpoint;
use tokio::time::Instant;

use crate::error::IndexError;
use crate::filter::Filter;
use crate::types::{Document, IndexOp};

/// The parameters of a generation: its id, the model and the dimension of its vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationSpec {
    pub id: GenerationId,
    /// The model that encoded the stored vectors, and that encodes the queries (law 8).
    pub model: ModelRef,
    /// Number of f32 components of every vector.
    pub dimension: usize,
}

/// The counts of an applied batch, after de-duplication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub upserts: u64,
    pub deletes: u64,
    /// Ops that changed nothing, because the row or tombstone has a later source position.
    pub fenced: u64,
}

/// A query for candidates: which retrievers run, under one filter.
#[derive(Clone, Debug, Default)]
pub struct Retrieval {
    /// The query's text, for the lexical retriever.
    pub text: String,
    /// Whether the lexical retriever runs.
    pub lexical: bool,
    /// The query's vector, of the generation's dimension; `None` means that the dense retriever does not run.
    pub vector: Option<Vec<f32>>,
    pub filter: Filter,
    /// Maximum number of candidates of each retriever.
    pub depth: usize,
}

/// A candidate. It has the exact score of both retrievers, whichever of them returned it.
#[derive(Clone, Debug)]
pub struct Hit {
    pub document: Arc<Document>,
    /// Cosine similarity, -1 to 1; `None` without a query vector.
    pub dense: Option<f32>,
    /// BM25 with the tenant's own statistics; `None` if no term matches.
    pub lexical: Option<f32>,
    /// Rank among the dense candidates, from 1; `None` if the dense retriever did not return the document.
    pub dense_rank: Option<u32>,
    /// Rank among the lexical candidates, from 1; `None` if the lexical retriever did not return the document.
    pub lexical_rank: Option<u32>,
}

/// The answer to a [`Retrieval`]: each candidate once, in no particular order.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    pub hits: Vec<Hit>,
    /// Number of the tenant's rows that match the filter.
    pub considered: u64,
}

/// Row counts of a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub total: u64,
    pub by_entity_type: BTreeMap<EntityType, u64>,
    /// Empty if the counts are of one tenant.
    pub by_tenant: BTreeMap<TenantId, u64>,
}

/// A stored row, for verification.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    pub document: Document,
    /// As it was upserted, not normalised.
    pub vector: Vec<f32>,
}

/// An index of documents with vectors, in generations. Ops are de-duplicated per entity and fenced by source position;
/// rows and checkpoint commit together (law 4). Methods other than `create`, `list` and `drop_generation` fail with
/// [`IndexError::UnknownGeneration`] if the generation is not open.
#[async_trait]
pub trait HybridIndex: Send + Sync {
    /// Creates the generation, or opens it if it exists. Fails with [`IndexError::Spec`] if it has another model or
    /// dimension.
    async fn create(&self, spec: &GenerationSpec) -> Result<(), IndexError>;

    /// The ids of all generations that exist, open or not.
    async fn list(&self) -> Result<Vec<GenerationId>, IndexError>;

    /// The checkpoint over the input topic.
    async fn checkpoint(&self, generation: &GenerationId) -> Result<Checkpoint, IndexError>;

    /// Applies a batch and moves the checkpoint over the input topic from `from` to `upto`, in one transaction. `log`
    /// names the log. Fails with [`IndexError::Moved`], and changes nothing, if the checkpoint is not at `from`.
    async fn apply(
        &self,
        generation: &GenerationId,
        log: &str,
        ops: Vec<IndexOp>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Applied, IndexError>;

    /// Runs the retrievers on the tenant's rows.
    async fn query(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        retrieval: &Retrieval,
    ) -> Result<Candidates, IndexError>;

    /// The document of an entity; `None` if it is not stored or belongs to another tenant.
    async fn get(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        key: &EntityKey,
    ) -> Result<Option<Arc<Document>>, IndexError>;

    /// The vector of a stored entity, of unit length; `None` as in [`get`](HybridIndex::get).
    async fn vector(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        key: &EntityKey,
    ) -> Result<Option<Vec<f32>>, IndexError>;

    /// Row counts of one tenant, or (for operators) of all tenants.
    async fn stats(&self, generation: &GenerationId, scope: Option<&TenantScope>) -> Result<Stats, IndexError>;

    /// At most `limit` rows with keys greater than `after`, in key order, across tenants; for verification.
    async fn scroll(
        &self,
        generation: &GenerationId,
        after: Option<&EntityKey>,
        limit: usize,
    ) -> Result<Vec<StoredRow>, IndexError>;

    /// The source positions that queries see: the view contains every op below them.
    async fn view_positions(&self, generation: &GenerationId) -> Result<Positions, IndexError>;

    /// The source positions of the committed ops. Queries may not see all of them yet.
    async fn source_positions(&self, generation: &GenerationId) -> Result<Positions, IndexError>;

    /// Waits until queries see every op below `sources`; false if the deadline passes first.
    async fn reached(
        &self,
        generation: &GenerationId,
        sources: &Positions,
        deadline: Instant,
    ) -> Result<bool, IndexError>;

    /// True if the generation was filled once since it was created or reset.
    async fn is_filled(&self, generation: &GenerationId) -> Result<bool, IndexError>;

    /// Marks the generation as filled.
    async fn set_filled(&self, generation: &GenerationId) -> Result<(), IndexError>;

    /// Deletes the rows, the checkpoint and the filled mark, because they were derived from another log. The generation
    /// stays open, and empty.
    async fn reset(&self, generation: &GenerationId) -> Result<(), IndexError>;

    /// Closes the generation and deletes its files. Not an error if it does not exist.
    async fn drop_generation(&self, generation: &GenerationId) -> Result<(), IndexError>;
}

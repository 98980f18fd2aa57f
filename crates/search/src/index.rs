//! The trait of hybrid indexes.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::{EntityKey, EntityType, GenerationId, ModelRef, Positions, TenantId, TenantScope};
use carbon_store::Checkpoint;
use tokio::time::Instant;

use crate::error::IndexError;
use crate::filter::Filter;
use crate::types::{Document, IndexOp};

/// What a generation is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationSpec {
    pub id: GenerationId,
    /// The model that made its vectors, and that embeds its queries (law 8).
    pub model: ModelRef,
    pub dimension: usize,
}

/// What a batch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub upserts: u64,
    pub deletes: u64,
    /// Ops that an op with a later source position had already overtaken.
    pub fenced: u64,
}

/// What an index is asked for: candidates of both halves, under one filter.
#[derive(Clone, Debug, Default)]
pub struct Retrieval {
    pub text: String,
    /// Whether the lexical half takes part.
    pub lexical: bool,
    /// The query's vector, if the dense half takes part.
    pub vector: Option<Vec<f32>>,
    pub filter: Filter,
    /// How many candidates each half brings.
    pub depth: usize,
}

/// A candidate, with its true score in both halves whichever brought it.
#[derive(Clone, Debug)]
pub struct Hit {
    pub document: Arc<Document>,
    /// Cosine; `None` without a query vector.
    pub dense: Option<f32>,
    /// BM25 by the tenant's own statistics; `None` where no term matches.
    pub lexical: Option<f32>,
    /// Rank from 1 among the candidates that this half brought.
    pub dense_rank: Option<u32>,
    pub lexical_rank: Option<u32>,
}

/// The candidates, each once, in no particular order.
#[derive(Clone, Debug, Default)]
pub struct Retrieved {
    pub hits: Vec<Hit>,
    /// How many rows passed the filter.
    pub considered: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub total: u64,
    pub by_entity_type: BTreeMap<EntityType, u64>,
    /// Empty when the question was about one tenant.
    pub by_tenant: BTreeMap<TenantId, u64>,
}

/// A row as it is stored, for verification.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    pub document: Document,
    pub vector: Vec<f32>,
}

/// An index of documents with vectors, in generations. Ops are de-duplicated per entity and
/// fenced by source position; rows and checkpoint move together.
#[async_trait]
pub trait HybridIndex: Send + Sync {
    /// Makes the generation, or opens it if it is there already.
    async fn create(&self, spec: &GenerationSpec) -> Result<(), IndexError>;

    /// The generations that are there, opened or not.
    async fn list(&self) -> Result<Vec<GenerationId>, IndexError>;

    async fn checkpoint(&self, generation: &GenerationId) -> Result<Checkpoint, IndexError>;

    /// Applies a batch; the checkpoint over the input topic moves from `from` to `upto` with it,
    /// or [`IndexError::Moved`] says where it stands.
    async fn apply(
        &self,
        generation: &GenerationId,
        log: &str,
        ops: Vec<IndexOp>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Applied, IndexError>;

    async fn query(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        retrieval: &Retrieval,
    ) -> Result<Retrieved, IndexError>;

    async fn get(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        key: &EntityKey,
    ) -> Result<Option<Arc<Document>>, IndexError>;

    /// The vector of a stored entity.
    async fn vector(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        key: &EntityKey,
    ) -> Result<Option<Vec<f32>>, IndexError>;

    /// Counts: of one tenant, or (for operators) of all.
    async fn stats(&self, generation: &GenerationId, scope: Option<&TenantScope>) -> Result<Stats, IndexError>;

    /// Rows in key order, the first `limit` after `after`; for verification, across tenants.
    async fn scroll(
        &self,
        generation: &GenerationId,
        after: Option<&EntityKey>,
        limit: usize,
    ) -> Result<Vec<StoredRow>, IndexError>;

    /// The source positions that queries see: everything below them is in.
    async fn view_positions(&self, generation: &GenerationId) -> Result<Positions, IndexError>;

    /// The source positions that are committed, whether queries see them yet or not.
    async fn source_positions(&self, generation: &GenerationId) -> Result<Positions, IndexError>;

    /// Waits until queries see everything below `sources`; false if the deadline comes first.
    async fn reached(
        &self,
        generation: &GenerationId,
        sources: &Positions,
        deadline: Instant,
    ) -> Result<bool, IndexError>;

    /// Whether the generation was filled once, since it was made or reset.
    async fn is_filled(&self, generation: &GenerationId) -> Result<bool, IndexError>;

    async fn set_filled(&self, generation: &GenerationId) -> Result<(), IndexError>;

    /// Throws the rows and the checkpoint away, and with them the mark that it was filled: they came from another log.
    async fn reset(&self, generation: &GenerationId) -> Result<(), IndexError>;

    async fn drop_generation(&self, generation: &GenerationId) -> Result<(), IndexError>;
}

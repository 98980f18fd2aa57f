//! An index that measures its queries, so that the rest of a search can be told from them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use carbon_core::{EntityKey, GenerationId, Positions, TenantScope};
use carbon_search::{
    Applied, Document, GenerationSpec, HybridIndex, IndexError, IndexOp, Retrieval, Retrieved, Stats, StoredRow,
};
use carbon_store::Checkpoint;

pub(crate) struct Measured<'i> {
    index: &'i dyn HybridIndex,
    query_us: AtomicU64,
    dense_hits: AtomicU64,
}

impl<'i> Measured<'i> {
    pub fn new(index: &'i dyn HybridIndex) -> Self {
        Self { index, query_us: AtomicU64::new(0), dense_hits: AtomicU64::new(0) }
    }

    /// The time within the index, in milliseconds.
    pub fn query_ms(&self) -> f64 {
        self.query_us.load(Ordering::Relaxed) as f64 / 1e3
    }

    /// How many candidates the dense half brought.
    pub fn dense_hits(&self) -> u64 {
        self.dense_hits.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl HybridIndex for Measured<'_> {
    async fn query(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        retrieval: &Retrieval,
    ) -> Result<Retrieved, IndexError> {
        let began = Instant::now();
        let retrieved = self.index.query(generation, scope, retrieval).await?;
        let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let dense = retrieved.hits.iter().filter(|hit| hit.dense_rank.is_some()).count();
        self.query_us.store(us, Ordering::Relaxed);
        self.dense_hits.store(dense as u64, Ordering::Relaxed);
        Ok(retrieved)
    }

    async fn create(&self, spec: &GenerationSpec) -> Result<(), IndexError> {
        self.index.create(spec).await
    }

    async fn list(&self) -> Result<Vec<GenerationId>, IndexError> {
        self.index.list().await
    }

    async fn checkpoint(&self, generation: &GenerationId) -> Result<Checkpoint, IndexError> {
        self.index.checkpoint(generation).await
    }

    async fn apply(
        &self,
        generation: &GenerationId,
        log: &str,
        ops: Vec<IndexOp>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Applied, IndexError> {
        self.index.apply(generation, log, ops, from, upto).await
    }

    async fn get(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        key: &EntityKey,
    ) -> Result<Option<Arc<Document>>, IndexError> {
        self.index.get(generation, scope, key).await
    }

    async fn vector(
        &self,
        generation: &GenerationId,
        scope: &TenantScope,
        key: &EntityKey,
    ) -> Result<Option<Vec<f32>>, IndexError> {
        self.index.vector(generation, scope, key).await
    }

    async fn stats(&self, generation: &GenerationId, scope: Option<&TenantScope>) -> Result<Stats, IndexError> {
        self.index.stats(generation, scope).await
    }

    async fn scroll(
        &self,
        generation: &GenerationId,
        after: Option<&EntityKey>,
        limit: usize,
    ) -> Result<Vec<StoredRow>, IndexError> {
        self.index.scroll(generation, after, limit).await
    }

    async fn view_positions(&self, generation: &GenerationId) -> Result<Positions, IndexError> {
        self.index.view_positions(generation).await
    }

    async fn source_positions(&self, generation: &GenerationId) -> Result<Positions, IndexError> {
        self.index.source_positions(generation).await
    }

    async fn reached(
        &self,
        generation: &GenerationId,
        sources: &Positions,
        deadline: tokio::time::Instant,
    ) -> Result<bool, IndexError> {
        self.index.reached(generation, sources, deadline).await
    }

    async fn reset(&self, generation: &GenerationId) -> Result<(), IndexError> {
        self.index.reset(generation).await
    }

    async fn drop_generation(&self, generation: &GenerationId) -> Result<(), IndexError> {
        self.index.drop_generation(generation).await
    }
}

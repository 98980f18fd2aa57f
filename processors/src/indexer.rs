//! The indexer: a sink that folds `ml.embedding.generated.v1` into one generation of the search index.

use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::{Clock, Positions, SystemClock, derived_id};
use carbon_log::NewRecord;
use carbon_runtime::consume::{ProcessorError, Sink, SinkError};
use carbon_runtime::failpoint;
use carbon_schemas::events::{EmbeddingGenerated, IndexUpdated, Reached, vector_from_bytes};
use carbon_schemas::{Decoded, Poison, PoisonReason, Recorded};
use carbon_search::{Document, GenerationSpec, HybridIndex, IndexError, IndexOp};
use carbon_store::Checkpoint;

/// Applies embeddings of one model to one generation.
pub struct Indexer {
    index: Arc<dyn HybridIndex>,
    spec: GenerationSpec,
}

impl Indexer {
    pub fn new(index: Arc<dyn HybridIndex>, spec: GenerationSpec) -> Self {
        Self { index, spec }
    }

    /// The index operation of a record; `None` if the record does not change this generation.
    fn op(&self, record: &Recorded<EmbeddingGenerated>) -> Result<Option<IndexOp>, ProcessorError> {
        Ok(match &record.body {
            // The topic holds the embeddings of all live models. A generation takes those of its own model.
            Decoded::Event { key, .. } | Decoded::Null { key } | Decoded::Quarantined { key, .. }
                if key.model != self.spec.model =>
            {
                None
            }
            Decoded::Event { key, event } => {
                let source = event.source.position().map_err(ProcessorError::internal)?;
                let Some(vector) = event.vector.as_ref().filter(|_| !event.deleted) else {
                    return Ok(Some(IndexOp::delete(key.entity.clone(), source)));
                };
                let document = Document {
                    key: key.entity.clone(),
                    text: event.text.clone(),
                    metadata: event.metadata.clone(),
                    tags: event.tags.clone(),
                    updated_at: event.occurred_at,
                    source,
                    embedding: Some(record.position.clone()),
                };
                Some(IndexOp::upsert(document, vector_from_bytes(vector)))
            }
            // These records have no source position, so the record's own position takes its place. It is of another
            // topic: the operation removes any row of the key, and any later embedding restores the entity.
            Decoded::Null { key } => Some(IndexOp::erase(key.entity.clone(), record.position.clone())),
            Decoded::Quarantined { key, .. } => Some(IndexOp::delete(key.entity.clone(), record.position.clone())),
            Decoded::Rejected { .. } => None,
        })
    }
}

fn sink_error(error: IndexError) -> SinkError {
    match error {
        IndexError::Moved { actual } => SinkError::Moved { actual },
        other => SinkError::Failed(ProcessorError::of(&other)),
    }
}

#[async_trait]
impl Sink for Indexer {
    type In = Recorded<EmbeddingGenerated>;

    async fn checkpoint(&self) -> Result<Checkpoint, ProcessorError> {
        self.index.checkpoint(&self.spec.id).await.map_err(|error| ProcessorError::of(&error))
    }

    async fn reset(&self) -> Result<(), ProcessorError> {
        self.index.reset(&self.spec.id).await.map_err(|error| ProcessorError::of(&error))
    }

    fn check(&self, mut record: Recorded<EmbeddingGenerated>) -> Recorded<EmbeddingGenerated> {
        let Decoded::Event { key, event } = &record.body else { return record };
        if key.model != self.spec.model || event.deleted || event.dimension as usize == self.spec.dimension {
            return record;
        }
        let message = format!(
            "the vector has dimension {}, but model {} has dimension {}",
            event.dimension, self.spec.model, self.spec.dimension
        );
        let poison = Poison { reason: PoisonReason::WrongDimension, message };
        record.body = Decoded::Quarantined { key: key.clone(), poison };
        record
    }

    async fn apply(
        &self,
        log: &str,
        batch: &[Recorded<EmbeddingGenerated>],
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, SinkError> {
        failpoint("indexer::apply").await.map_err(|error| ProcessorError::of(&error))?;
        let mut ops = Vec::with_capacity(batch.len());
        for record in batch {
            ops.extend(self.op(record)?);
        }
        let applied = self.index.apply(&self.spec.id, log, ops, from, upto).await.map_err(sink_error)?;
        let notification = IndexUpdated {
            // A batch is identified by the positions that it reaches, so a repeated notification has the same id.
            event_id: derived_id(&["indexer", self.spec.id.as_str(), &upto.to_string()]),
            occurred_at: batch.last().map_or_else(|| SystemClock.now(), |record| record.timestamp),
            tenant_id: None,
            generation: self.spec.id.clone(),
            upserts: applied.upserts as i64,
            deletes: applied.deletes as i64,
            up_to: Reached::list(upto),
        };
        Ok(vec![NewRecord::event(&notification).map_err(ProcessorError::from)?])
    }
}

//! The embedder: a stage that turns entities into embeddings. It is the only caller of an encoder for stored text (law
//! 2).

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::{EntityKey, Metadata, ModelRef, derived_id};
use carbon_inference::{Encoder, InferenceError};
use carbon_runtime::consume::{Output, ProcessorError, Stage};
use carbon_runtime::failpoint;
use carbon_schemas::events::{DeletedReason, EmbeddingGenerated, EmbeddingKey, EntityChanged, Source, vector_to_bytes};
use carbon_schemas::{Decoded, Recorded};
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

/// Maximum number of cached vectors. A text that was delivered again or did not change costs no inference.
const CACHED_VECTORS: u64 = 10_000;

type Vector = Arc<[f32]>;

/// Turns entities into embeddings of one model.
pub struct Embedder {
    encoder: Arc<dyn Encoder>,
    model: ModelRef,
    group: String,
    /// Vectors by the SHA-256 of their text.
    cache: Cache<[u8; 32], Vector>,
}

/// The encoder's result for one text.
#[derive(Clone)]
enum Encoded {
    Vector(Vector),
    Rejected,
}

impl Embedder {
    pub fn new(encoder: Arc<dyn Encoder>, group: impl ToString) -> Self {
        let model = encoder.model().clone();
        Self { encoder, model, group: group.to_string(), cache: Cache::new(CACHED_VECTORS) }
    }

    /// Returns the results of all texts by hash. Only texts that are not cached are encoded.
    async fn encode(&self, texts: HashMap<[u8; 32], &str>) -> Result<HashMap<[u8; 32], Encoded>, ProcessorError> {
        let mut encoded = HashMap::with_capacity(texts.len());
        let mut missing: Vec<([u8; 32], String)> = Vec::new();
        for (hash, text) in texts {
            match self.cache.get(&hash) {
                Some(vector) => {
                    encoded.insert(hash, Encoded::Vector(vector));
                }
                None => missing.push((hash, text.to_owned())),
            }
        }
        let all: Vec<String> = missing.iter().map(|(_, text)| text.clone()).collect();
        match self.encoder.encode(&all).await {
            Ok(vectors) if vectors.len() != missing.len() => return Err(wrong_count(vectors.len(), missing.len())),
            Ok(vectors) => {
                for ((hash, _), embedding) in missing.into_iter().zip(vectors) {
                    self.store(&mut encoded, hash, embedding.vector);
                }
            }
            // The encoder rejected at least one text, so each text is encoded alone to find which.
            Err(InferenceError::NotEmbeddable { .. }) => self.encode_each(&mut encoded, missing).await?,
            // The encoder failed. The stage stops: a bad deployment must not turn entities into deletions.
            Err(error) => return Err(ProcessorError::of(&error)),
        }
        Ok(encoded)
    }

    /// Encodes the texts one by one.
    async fn encode_each(
        &self,
        encoded: &mut HashMap<[u8; 32], Encoded>,
        texts: Vec<([u8; 32], String)>,
    ) -> Result<(), ProcessorError> {
        for (hash, text) in texts {
            match self.encoder.encode(std::slice::from_ref(&text)).await {
                Ok(mut vectors) if vectors.len() == 1 => {
                    let embedding = vectors.swap_remove(0);
                    self.store(encoded, hash, embedding.vector);
                }
                Ok(vectors) => return Err(wrong_count(vectors.len(), 1)),
                Err(error @ InferenceError::NotEmbeddable { .. }) => {
                    tracing::warn!(%error, "the encoder rejected a text; its embedding becomes a deletion");
                    encoded.insert(hash, Encoded::Rejected);
                }
                Err(error) => return Err(ProcessorError::of(&error)),
            }
        }
        Ok(())
    }

    /// Adds a vector to the results and to the cache.
    fn store(&self, encoded: &mut HashMap<[u8; 32], Encoded>, hash: [u8; 32], vector: Vec<f32>) {
        let vector: Vector = vector.into();
        self.cache.insert(hash, vector.clone());
        encoded.insert(hash, Encoded::Vector(vector));
    }

    /// The output of an input record: an embedding, a deletion with its reason, or a null value for a null value.
    fn output(
        &self,
        record: &Recorded<EntityChanged>,
        encoded: &HashMap<[u8; 32], Encoded>,
    ) -> Result<Output<EmbeddingGenerated>, ProcessorError> {
        match &record.body {
            Decoded::Null { key } => Ok(Output::Null(EmbeddingKey { entity: key.clone(), model: self.model.clone() })),
            Decoded::Quarantined { key, .. } => Ok(self.deletion(record, key, DeletedReason::Quarantined)),
            Decoded::Event { key, event } if event.deleted => Ok(self.deletion(record, key, DeletedReason::Requested)),
            Decoded::Event { key, event } => {
                let hash = sha256(&event.text);
                match encoded.get(&hash) {
                    Some(Encoded::Vector(vector)) => Ok(Output::Event(EmbeddingGenerated {
                        text: event.text.clone(),
                        metadata: event.metadata.clone(),
                        tags: event.tags.clone(),
                        deleted: false,
                        reason: None,
                        text_sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
                        dimension: vector.len() as i32,
                        vector: Some(vector_to_bytes(vector)),
                        ..self.empty(record, key)
                    })),
                    Some(Encoded::Rejected) => Ok(self.deletion(record, key, DeletedReason::NotEmbeddable)),
                    None => Err(ProcessorError::internal("a text was not encoded")),
                }
            }
            Decoded::Rejected { .. } => Err(ProcessorError::internal("a rejected record has no output")),
        }
    }

    /// A deletion with a reason.
    fn deletion(
        &self,
        record: &Recorded<EntityChanged>,
        key: &EntityKey,
        reason: DeletedReason,
    ) -> Output<EmbeddingGenerated> {
        Output::Event(EmbeddingGenerated { reason: Some(reason), ..self.empty(record, key) })
    }

    /// An output without a vector: the fields that all outputs of this record share, and `deleted: true`.
    fn empty(&self, record: &Recorded<EntityChanged>, key: &EntityKey) -> EmbeddingGenerated {
        let position = record.position.to_string();
        EmbeddingGenerated {
            event_id: derived_id(&["embedder", &self.group, &position, "0"]),
            occurred_at: record.timestamp,
            tenant_id: key.tenant.clone(),
            entity_type: key.entity_type.to_string(),
            entity_id: key.entity_id.to_string(),
            text: String::new(),
            metadata: Metadata::new(),
            tags: Vec::new(),
            deleted: true,
            reason: None,
            text_sha256: String::new(),
            model: self.model.to_string(),
            dimension: 0,
            vector: None,
            source: Source::from(&record.position),
        }
    }
}

fn wrong_count(vectors: usize, texts: usize) -> ProcessorError {
    ProcessorError::internal(format!("the encoder answered {vectors} vectors for {texts} texts"))
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[async_trait]
impl Stage for Embedder {
    type In = EntityChanged;
    type Out = EmbeddingGenerated;

    async fn process(
        &self,
        batch: &[Recorded<EntityChanged>],
    ) -> Result<Vec<Output<EmbeddingGenerated>>, ProcessorError> {
        failpoint("embedder::process").await.map_err(|error| ProcessorError::of(&error))?;
        let texts = batch.iter().filter_map(|record| match &record.body {
            Decoded::Event { event, .. } if !event.deleted => Some((sha256(&event.text), event.text.as_str())),
            _ => None,
        });
        let encoded = self.encode(texts.collect()).await?;
        batch.iter().map(|record| self.output(record, &encoded)).collect()
    }

    fn owns(&self, key: &EmbeddingKey) -> bool {
        key.model == self.model
    }
}

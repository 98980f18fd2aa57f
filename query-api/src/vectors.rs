//! Encodes texts, with a cache for repeated queries.

use std::sync::Arc;

use carbon_core::{ModelRef, TenantScope};
use carbon_http::Problem;
use carbon_inference::Embedding;
use moka::sync::Cache;
use tokio::time::{Instant, timeout_at};

use crate::errors;
use crate::state::SearchIndex;

/// Maximum size of the cache, in bytes.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Maximum number of texts per call of the encoder. Larger calls would delay concurrent searches: the queue of the
/// encoder's interactive lane holds 256 texts.
pub(crate) const MAX_TEXTS_PER_CALL: usize = 64;

/// The tenant is part of the key, so that no tenant can find out by the response time what others search (law 12).
type Key = (TenantScope, ModelRef, String);

/// The cache of query vectors.
pub(crate) struct QueryVectors {
    cache: Cache<Key, Arc<[f32]>>,
}

impl QueryVectors {
    pub fn new() -> Self {
        // 4 bytes per f32, and 200 bytes for the rest of the entry.
        let size_bytes = |(_, _, text): &Key, vector: &Arc<[f32]>| {
            u32::try_from(text.len() + vector.len() * 4 + 200).unwrap_or(u32::MAX)
        };
        Self { cache: Cache::builder().weigher(size_bytes).max_capacity(CACHE_BYTES).build() }
    }

    /// Returns the vector of a query, by the model of the generation that is searched.
    pub async fn get_or_encode(
        &self,
        search: &SearchIndex,
        scope: &TenantScope,
        text: &str,
        deadline: Instant,
    ) -> Result<Vec<f32>, Problem> {
        let key = (scope.clone(), search.model.clone(), text.to_owned());
        if let Some(vector) = self.cache.get(&key) {
            return Ok(vector.to_vec());
        }
        let embeddings = encode(search, std::slice::from_ref(&key.2), deadline).await?;
        let embedding = embeddings.into_iter().next();
        let vector = embedding.ok_or_else(|| Problem::internal("the encoder returned no vector"))?.vector;
        self.cache.insert(key, vector.as_slice().into());
        Ok(vector)
    }

    pub fn put(&self, model: &ModelRef, scope: &TenantScope, text: &str, vector: &[f32]) {
        self.cache.insert((scope.clone(), model.clone(), text.to_owned()), vector.into());
    }
}

async fn encode(search: &SearchIndex, texts: &[String], deadline: Instant) -> Result<Vec<Embedding>, Problem> {
    match timeout_at(deadline, search.encoder.encode(texts)).await {
        Ok(Ok(embeddings)) => Ok(embeddings),
        Ok(Err(error)) => Err(errors::inference(&error)),
        Err(_) => Err(errors::timed_out("encoding")),
    }
}

/// Returns the embeddings of `texts`, in their order. Encodes at most `batch_size` texts per call.
pub(crate) async fn encode_all(
    search: &SearchIndex,
    texts: &[String],
    batch_size: usize,
    deadline: Instant,
) -> Result<Vec<Embedding>, Problem> {
    let mut embeddings = Vec::with_capacity(texts.len());
    for chunk in texts.chunks(batch_size.clamp(1, MAX_TEXTS_PER_CALL)) {
        let first = embeddings.len();
        let encoded = encode(search, chunk, deadline).await;
        // An index in the encoder's error counts from the start of the chunk.
        embeddings.extend(encoded.map_err(|problem| problem.with("first_of_chunk", first))?);
    }
    match embeddings.len() == texts.len() {
        true => Ok(embeddings),
        false => Err(Problem::internal(format!("{} vectors for {} texts", embeddings.len(), texts.len()))),
    }
}

//! Texts to vectors, with a cache for queries that come again.

use std::sync::Arc;

use carbon_core::{ModelRef, TenantScope};
use carbon_http::Problem;
use carbon_inference::Embedding;
use moka::sync::Cache;
use tokio::time::{Instant, timeout_at};

use crate::{SearchIndex, failure};

/// So much memory may the cache take.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// More at once would hold up the searches that come between; the interactive lane holds 256.
pub(crate) const ENCODE_AT_ONCE: usize = 64;

/// By tenant, so that the time of an answer tells nobody what others ask (law 12).
type Key = (TenantScope, ModelRef, String);

pub(crate) struct QueryVectors {
    cache: Cache<Key, Arc<[f32]>>,
}

impl QueryVectors {
    pub fn new() -> Self {
        let weigh = |(_, _, text): &Key, vector: &Arc<[f32]>| {
            u32::try_from(text.len() + vector.len() * 4 + 200).unwrap_or(u32::MAX)
        };
        Self { cache: Cache::builder().weigher(weigh).max_capacity(CACHE_BYTES).build() }
    }

    /// The vector of a query, by the model of the generation that is searched.
    pub async fn of(
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
        let vector = embedding.ok_or_else(|| Problem::internal("the encoder answered no vector"))?.vector;
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
        Ok(Err(error)) => Err(failure::inference(&error)),
        Err(_) => Err(failure::late("encoding")),
    }
}

/// Encodes many texts, `at_once` at a time, in their order.
pub(crate) async fn encode_all(
    search: &SearchIndex,
    texts: &[String],
    at_once: usize,
    deadline: Instant,
) -> Result<Vec<Embedding>, Problem> {
    let mut embeddings = Vec::with_capacity(texts.len());
    for chunk in texts.chunks(at_once.clamp(1, ENCODE_AT_ONCE)) {
        let first = embeddings.len();
        let encoded = encode(search, chunk, deadline).await;
        // The encoder counts within the chunk.
        embeddings.extend(encoded.map_err(|problem| problem.with("first_of_chunk", first))?);
    }
    match embeddings.len() == texts.len() {
        true => Ok(embeddings),
        false => Err(Problem::internal(format!("{} vectors for {} texts", embeddings.len(), texts.len()))),
    }
}

//! Loads a model from the store and starts its encoder.

use std::sync::Arc;
use std::time::Instant;

use crate::bert::{self, Bert};
use crate::catalogue::Engine;
use crate::encoder::TextModel;
use crate::hashing::FeatureHashing;
use crate::queue::EncodeQueue;
use crate::tokenizer::TextTokenizer;
use crate::{InferenceError, ModelEntry, ModelStore};

/// Options of an encoder: threads, batch size, and limits of waiting texts.
#[derive(Clone, Debug)]
pub struct EncoderOptions {
    /// Number of threads that encode; 0 means one per core.
    pub threads: usize,
    /// Maximum tokens of a batch. It limits how long an interactive text waits for the running batch.
    pub batch_tokens: usize,
    /// Maximum number of accepted bulk texts that are not encoded yet; more are rejected.
    pub bulk_waiting: usize,
    /// Maximum number of accepted interactive texts that are not encoded yet; more are rejected.
    pub interactive_waiting: usize,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self { threads: 0, batch_tokens: 512, bulk_waiting: 4096, interactive_waiting: 256 }
    }
}

/// Verifies the SHA-256 of every file, loads the model, and starts its queue. Fails if a file is missing or differs.
pub async fn load_encoder(
    entry: &ModelEntry,
    store: &ModelStore,
    options: EncoderOptions,
) -> Result<Arc<EncodeQueue>, InferenceError> {
    let started = Instant::now();
    let model = match entry.engine {
        Engine::FeatureHashing => Arc::new(FeatureHashing::new(entry.dimension, entry.max_tokens)),
        Engine::Bert => load_bert(entry, store).await?,
    };
    let queue = EncodeQueue::start(entry.model.clone(), model, &options)?;
    let load_ms = started.elapsed().as_millis() as u64;
    tracing::info!(model = %entry.model, load_ms, "encoder loaded");
    Ok(queue)
}

async fn load_bert(entry: &ModelEntry, store: &ModelStore) -> Result<Arc<dyn TextModel>, InferenceError> {
    store.require(entry)?;
    let (max_tokens, dimension) = (entry.max_tokens, entry.dimension);
    let config = store.with_file(entry, "config.json", Ok).await?;
    // Tokenizer and network are parsed concurrently. The buffer of the weights is freed when the network has its copy.
    let (tokenizer, network) = tokio::try_join!(
        store.with_file(entry, "tokenizer.json", move |json| TextTokenizer::from_bytes(&json, max_tokens)),
        store.with_file(entry, "model.safetensors", move |weights| bert::network(&config, &weights, dimension)),
    )?;
    Ok(Arc::new(Bert { tokenizer, network, dimension }))
}

//! From the store's files to a running encoder.

use std::sync::Arc;
use std::time::Instant;

use crate::bert::{self, Bert};
use crate::catalogue::Engine;
use crate::encoder::TextModel;
use crate::hashing::FeatureHashing;
use crate::queue::EncodeQueue;
use crate::tokens::Tokens;
use crate::{InferenceError, ModelEntry, ModelStore};

/// How an encoder batches and how much it lets wait.
#[derive(Clone, Debug)]
pub struct EncoderOptions {
    /// Threads that encode; 0 = one for each core.
    pub threads: usize,
    /// Tokens computed at once. It bounds how long a waiting interactive text can be held up.
    pub batch_tokens: usize,
    /// Texts that may wait in the bulk lane before more are refused.
    pub bulk_waiting: usize,
    /// Texts that may wait in the interactive lane before more are refused.
    pub interactive_waiting: usize,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self { threads: 0, batch_tokens: 512, bulk_waiting: 4096, interactive_waiting: 256 }
    }
}

/// Loads a model, after checking the hash of every file, and starts its queue.
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
    // The tokenizer is parsed beside; the weights' buffer is freed once the network has its own copy.
    let (tokens, network) = tokio::try_join!(
        store.with_file(entry, "tokenizer.json", move |json| Tokens::from_bytes(&json, max_tokens)),
        store.with_file(entry, "model.safetensors", move |weights| bert::network(&config, &weights, dimension)),
    )?;
    Ok(Arc::new(Bert { tokens, network, dimension }))
}

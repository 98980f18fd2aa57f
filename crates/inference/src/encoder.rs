//! What an encoder is to its callers, and what a model is to the queue.

use carbon_core::ModelRef;

use crate::InferenceError;

/// A text's vector, of unit length.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    pub vector: Vec<f32>,
    /// How many tokens the model saw.
    pub tokens: u32,
    /// Whether the text was longer than the model reads.
    pub truncated: bool,
}

/// Turns texts into vectors. A text's vector does not depend on the texts beside it.
#[async_trait::async_trait]
pub trait Encoder: Send + Sync {
    fn model(&self) -> &ModelRef;
    fn dimension(&self) -> usize;
    /// One embedding for each text, in the texts' order; or the error of the first that has none.
    async fn encode(&self, texts: &[String]) -> Result<Vec<Embedding>, InferenceError>;
}

/// A text as its model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub ids: Vec<u32>,
    pub tokens: u32,
    pub truncated: bool,
}

/// A model without its queue: called from worker threads, shared between them.
pub(crate) trait TextModel: Send + Sync + 'static {
    fn dimension(&self) -> usize;
    /// Cheap beside `run`; the error is the reason why the text cannot be embedded.
    fn prepare(&self, text: &str) -> Result<Prepared, PrepareError>;
    /// One vector of unit length for each list of ids.
    fn run(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, InferenceError>;
}

#[derive(Debug)]
pub(crate) enum PrepareError {
    NotEmbeddable(&'static str),
    Broken(String),
}

/// Scales to unit length; false if there is no direction to keep.
pub(crate) fn normalise(vector: &mut [f32]) -> bool {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if !norm.is_finite() || norm < f32::MIN_POSITIVE {
        return false;
    }
    vector.iter_mut().for_each(|x| *x /= norm);
    true
}

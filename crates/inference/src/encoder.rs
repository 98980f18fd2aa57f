//! The traits [`Encoder`], for callers, and `TextModel`, for the queue.

use carbon_core::ModelRef;

use crate::InferenceError;

/// The vector of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Of the model's dimension and of unit length.
    pub vector: Vec<f32>,
    /// Number of tokens that the model read, special tokens included.
    pub tokens: u32,
    /// True if the text was longer than the model's maximum and only its start was encoded.
    pub truncated: bool,
}

/// Encodes texts to vectors. The vector of a text does not depend on the other texts of the call.
#[async_trait::async_trait]
pub trait Encoder: Send + Sync {
    fn model(&self) -> &ModelRef;
    /// Number of components of a vector.
    fn dimension(&self) -> usize;
    /// Returns one embedding per text, in order. Fails as a whole if one text fails.
    async fn encode(&self, texts: &[String]) -> Result<Vec<Embedding>, InferenceError>;
}

/// A text converted to the ids that its model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Token ids, or feature ids for feature hashing.
    pub ids: Vec<u32>,
    pub tokens: u32,
    pub truncated: bool,
}

/// A model. The worker threads of a queue share it.
pub(crate) trait TextModel: Send + Sync + 'static {
    fn dimension(&self) -> usize;
    /// Converts a text to ids. Cheap compared with `run`.
    fn prepare(&self, text: &str) -> Result<Prepared, PrepareError>;
    /// Returns one vector of unit length per list of ids.
    fn run(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, InferenceError>;
}

/// Why a text was not converted to ids.
#[derive(Debug)]
pub(crate) enum PrepareError {
    /// The text has no vector, with the reason. The caller's fault.
    NotEmbeddable(&'static str),
    /// The tokenizer failed.
    Tokenizer(String),
}

/// Scales a vector to unit length. Returns false, and changes nothing, if its length is 0 or not finite.
pub(crate) fn normalise(vector: &mut [f32]) -> bool {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if !norm.is_finite() || norm < f32::MIN_POSITIVE {
        return false;
    }
    vector.iter_mut().for_each(|x| *x /= norm);
    true
}

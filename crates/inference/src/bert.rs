//! BERT sentence encoders (Devlin et al. 2019; Reimers and Gurevych 2019): tokeniser, network, mean pooling,
//! normalisation.

mod kernels;
mod packed;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use serde::Deserialize;

use crate::InferenceError;
use crate::encoder::{PrepareError, Prepared, TextModel, normalise};
use crate::tokenizer::TextTokenizer;
pub(crate) use packed::PackedNetwork;

/// The parameters of a network, from `config.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
}

/// A loaded BERT sentence encoder.
pub(crate) struct Bert {
    pub tokenizer: TextTokenizer,
    pub network: PackedNetwork,
    /// Number of components of a vector.
    pub dimension: usize,
}

/// Loads the network from `config.json` and `model.safetensors`. It copies the weights, so the caller can free the
/// buffer. Fails if the hidden size is not `dimension`.
pub(crate) fn network(config: &[u8], weights: &[u8], dimension: usize) -> Result<PackedNetwork, String> {
    let config: Config = serde_json::from_slice(config).map_err(|error| format!("config.json: {error}"))?;
    if config.hidden_size != dimension {
        return Err(format!("config.json has {} dimensions, the catalogue has {dimension}", config.hidden_size));
    }
    PackedNetwork::load(&config, weights).map_err(|error| error.to_string())
}

impl TextModel for Bert {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn prepare(&self, text: &str) -> Result<Prepared, PrepareError> {
        self.tokenizer.prepare(text)
    }

    fn run(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, InferenceError> {
        let mut vectors = self.network.run(batch).map_err(|error| InferenceError::Broken(error.to_string()))?;
        for vector in &mut vectors {
            if !normalise(vector) {
                return Err(InferenceError::Broken(
                    "the model returned a vector whose length is 0 or not finite".to_owned(),
                ));
            }
        }
        Ok(vectors)
    }
}

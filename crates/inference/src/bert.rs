//! BERT sentence encoders: tokens, the network, mean pooling.

mod kernels;
mod packed;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use serde::Deserialize;

use crate::InferenceError;
use crate::encoder::{PrepareError, Prepared, TextModel, normalise};
use crate::tokens::Tokens;
pub(crate) use packed::Packed;

/// What config.json says of the network.
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

pub(crate) struct Bert {
    pub tokens: Tokens,
    pub network: Packed,
    pub dimension: usize,
}

/// The network of a configuration; it keeps nothing of `weights`.
pub(crate) fn network(config: &[u8], weights: &[u8], dimension: usize) -> Result<Packed, String> {
    let config: Config = serde_json::from_slice(config).map_err(|error| format!("config.json: {error}"))?;
    if config.hidden_size != dimension {
        return Err(format!("config.json says {} dimensions, the catalogue {dimension}", config.hidden_size));
    }
    Packed::load(&config, weights).map_err(|error| error.to_string())
}

impl TextModel for Bert {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn prepare(&self, text: &str) -> Result<Prepared, PrepareError> {
        self.tokens.prepare(text)
    }

    fn run(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>, InferenceError> {
        let mut vectors = self.network.run(batch).map_err(|error| InferenceError::Broken(error.to_string()))?;
        for vector in &mut vectors {
            if !normalise(vector) {
                return Err(InferenceError::Broken("the model's vector has no direction".to_owned()));
            }
        }
        Ok(vectors)
    }
}

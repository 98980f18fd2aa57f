//! The reference for the packed network in tests: the same network from candle-transformers, with padding and a mask.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};

/// candle's BERT network.
pub(crate) struct ReferenceNetwork {
    model: BertModel,
}

impl ReferenceNetwork {
    /// Loads the network from `config.json` and `model.safetensors`.
    pub fn load(config: &str, weights: &[u8]) -> Result<Self> {
        let config: Config = serde_json::from_str(config).map_err(candle_core::Error::wrap)?;
        let vars = VarBuilder::from_slice_safetensors(weights, DType::F32, &Device::Cpu)?;
        Ok(Self { model: BertModel::load(vars, &config)? })
    }

    /// Returns one vector of `hidden` components per text: the mean of the last layer over the text's tokens, not
    /// normalised.
    pub fn run(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let longest = batch.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(batch.len() * longest);
        let mut mask = Vec::with_capacity(batch.len() * longest);
        for text in batch {
            ids.extend_from_slice(text);
            ids.resize(ids.len() + longest - text.len(), 0);
            mask.extend(std::iter::repeat_n(1f32, text.len()));
            mask.resize(ids.len(), 0.0);
        }
        let ids = Tensor::from_vec(ids, (batch.len(), longest), &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, (batch.len(), longest), &Device::Cpu)?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let mask = mask.unsqueeze(2)?;
        let sums = hidden.broadcast_mul(&mask)?.sum(1)?;
        sums.broadcast_div(&mask.sum(1)?)?.to_vec2()
    }
}

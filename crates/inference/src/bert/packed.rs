//! The BERT network on the CPU. The tokens of all texts of a batch are packed into one matrix without padding, so
//! nothing is computed for padding. Attention is computed per text, so texts of a batch do not affect each other.
//!
//! Shapes are `rows x columns`, row-major. `tokens` is the number of tokens of the batch, `hidden` the hidden size, and
//! `width = hidden / heads` the size of an attention head.

use candle_core::safetensors::SliceSafetensors;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor, bail};

use super::Config;
use super::kernels::{self, LayerNorm};

/// The weights of a network.
pub(crate) struct PackedNetwork {
    hidden: usize,
    heads: usize,
    /// Word-piece embeddings, `vocab_size x hidden`.
    words: Tensor,
    /// Position embeddings plus the embedding of token type 0, `max_position_embeddings x hidden`.
    positions: Vec<f32>,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

/// The weights of an encoder layer.
struct Layer {
    /// Query, key and value projections side by side, `hidden x 3 hidden`. The query is scaled by `1 / sqrt(width)`.
    qkv: Linear,
    /// Output projection of the attention, `hidden x hidden`.
    output: Linear,
    output_norm: LayerNorm,
    /// First feed-forward projection, `hidden x intermediate`.
    up: Linear,
    /// Second feed-forward projection, `intermediate x hidden`.
    down: Linear,
    down_norm: LayerNorm,
}

/// A linear layer.
struct Linear {
    /// `inputs x outputs`. A matrix product with few rows reads this layout without repacking.
    weight: Tensor,
    bias: Vec<f32>,
}

/// The tensors of `model.safetensors`.
struct WeightFile<'a> {
    file: SliceSafetensors<'a>,
    /// Prefix of all tensor names: `bert.` or empty.
    prefix: &'static str,
    /// Epsilon of the layer normalisations.
    eps: f32,
}

impl WeightFile<'_> {
    /// A tensor as f32.
    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.file.load(&format!("{}{name}", self.prefix), &Device::Cpu)?.to_dtype(DType::F32)
    }

    /// The values of a tensor.
    fn vec(&self, name: &str) -> Result<Vec<f32>> {
        self.tensor(name)?.flatten_all()?.to_vec1()
    }

    fn linear(&self, name: &str) -> Result<Linear> {
        let weight = transposed(self.tensor(&format!("{name}.weight"))?)?;
        Ok(Linear { weight, bias: self.vec(&format!("{name}.bias"))? })
    }

    fn norm(&self, name: &str) -> Result<LayerNorm> {
        let (gain, bias) = (self.vec(&format!("{name}.weight"))?, self.vec(&format!("{name}.bias"))?);
        Ok(LayerNorm { gain, bias, eps: self.eps })
    }

    /// Encoder layer `number`. `scale` is multiplied into the query projection.
    fn layer(&self, number: usize, scale: f64) -> Result<Layer> {
        let at = |part: &str| format!("encoder.layer.{number}.{part}");
        let part = |which: &str, kind: &str| self.tensor(&at(&format!("attention.self.{which}.{kind}")));
        let side_by_side =
            |kind: &str| Tensor::cat(&[(part("query", kind)? * scale)?, part("key", kind)?, part("value", kind)?], 0);
        let qkv = Linear { weight: transposed(side_by_side("weight")?)?, bias: side_by_side("bias")?.to_vec1()? };
        Ok(Layer {
            qkv,
            output: self.linear(&at("attention.output.dense"))?,
            output_norm: self.norm(&at("attention.output.LayerNorm"))?,
            up: self.linear(&at("intermediate.dense"))?,
            down: self.linear(&at("output.dense"))?,
            down_norm: self.norm(&at("output.LayerNorm"))?,
        })
    }
}

impl PackedNetwork {
    /// Loads a network. Fails if the architecture is not supported or a tensor is missing or has another shape.
    pub fn load(config: &Config, weights: &[u8]) -> Result<Self> {
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        if config.hidden_act != "gelu" || heads == 0 || !hidden.is_multiple_of(heads) {
            bail!(
                "the network is not supported; it must use GELU and a hidden size divisible by its heads: {config:?}"
            );
        }
        let file = SliceSafetensors::new(weights)?;
        let unprefixed = file.tensors().iter().any(|(name, _)| name.starts_with("embeddings."));
        let weights =
            WeightFile { file, prefix: if unprefixed { "" } else { "bert." }, eps: config.layer_norm_eps as f32 };
        let types = weights.tensor("embeddings.token_type_embeddings.weight")?.narrow(0, 0, 1)?;
        let positions = weights.tensor("embeddings.position_embeddings.weight")?.broadcast_add(&types)?;
        let words = weights.tensor("embeddings.word_embeddings.weight")?;
        if positions.dims() != [config.max_position_embeddings, hidden] || words.dims() != [config.vocab_size, hidden] {
            bail!("the word or position embeddings do not have the shape in config.json");
        }
        let scale = 1.0 / ((hidden / heads) as f64).sqrt();
        Ok(Self {
            hidden,
            heads,
            words,
            positions: positions.flatten_all()?.to_vec1()?,
            norm: weights.norm("embeddings.LayerNorm")?,
            layers: (0..config.num_hidden_layers).map(|at| weights.layer(at, scale)).collect::<Result<_>>()?,
        })
    }

    /// Returns one vector of `hidden` components per text: the mean of the last layer over the text's tokens, not
    /// normalised. Fails if an id is outside the vocabulary or a text is longer than the positions.
    pub fn run(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let mut state = self.embed(batch)?;
        for layer in &self.layers {
            let attended = self.attend(layer, &state, batch)?;
            let attended = layer.output.apply(&attended, |rows, bias| {
                with_slice(&state, |state| kernels::add_and_norm(rows, bias, state, &layer.output_norm))
            })?;
            let intermediate = layer.up.apply(&attended, |rows, bias| {
                kernels::add_bias_and_gelu(rows, bias);
                Ok(())
            })?;
            state = layer.down.apply(&intermediate, |rows, bias| {
                with_slice(&attended, |attended| kernels::add_and_norm(rows, bias, attended, &layer.down_norm))
            })?;
        }
        with_slice(&state, |rows| {
            let mut rest = rows;
            let mean_of = |ids: &&[u32]| {
                let (text, after) = rest.split_at(ids.len() * self.hidden);
                rest = after;
                kernels::mean(text, self.hidden)
            };
            batch.iter().map(mean_of).collect()
        })
    }

    /// The normalised sum of word and position embeddings, `tokens x hidden`.
    fn embed(&self, batch: &[&[u32]]) -> Result<Tensor> {
        let tokens: usize = batch.iter().map(|ids| ids.len()).sum();
        let mut rows = Vec::with_capacity(tokens * self.hidden);
        with_slice(&self.words, |words| {
            for ids in batch {
                let mut positions = self.positions.chunks_exact(self.hidden);
                for &id in *ids {
                    let at = id as usize * self.hidden;
                    let (Some(word), Some(position)) = (words.get(at..at + self.hidden), positions.next()) else {
                        bail!("a token id is outside the vocabulary, or a text is longer than the model's positions");
                    };
                    rows.extend(word.iter().zip(position).map(|(word, position)| word + position));
                }
            }
            Ok(())
        })??;
        kernels::layer_norm(&mut rows, &self.norm);
        Tensor::from_vec(rows, (tokens, self.hidden), &Device::Cpu)
    }

    /// Multi-head self-attention (Vaswani et al. 2017) within each text, before the output projection: `tokens x
    /// hidden`.
    fn attend(&self, layer: &Layer, state: &Tensor, batch: &[&[u32]]) -> Result<Tensor> {
        let tokens = state.dim(0)?;
        let width = self.hidden / self.heads;
        let qkv = layer.qkv.apply(state, |rows, bias| {
            kernels::add_bias(rows, bias);
            Ok(())
        })?;
        let qkv = qkv.reshape((tokens, 3, self.heads, width))?;
        let mut merged = vec![0f32; tokens * self.hidden];
        let mut rest = merged.as_mut_slice();
        let mut start = 0;
        for ids in batch {
            let length = ids.len();
            // A view of query, key or value with heads first: `heads x length x width`.
            let part = |which: usize| -> Result<Tensor> {
                qkv.narrow(0, start, length)?.narrow(1, which, 1)?.squeeze(1)?.transpose(0, 1)
            };
            let scores = part(0)?.matmul(&part(1)?.transpose(1, 2)?)?;
            scores.inplace_op1(&InPlace(|rows: &mut [f32]| {
                kernels::softmax(rows, length);
                Ok(())
            }))?;
            let context = scores.matmul(&part(2)?)?;
            let (text, after) = rest.split_at_mut(length * self.hidden);
            rest = after;
            with_slice(&context, |context| {
                for (head, rows) in context.chunks_exact(length * width).enumerate() {
                    for (token, row) in rows.chunks_exact(width).enumerate() {
                        let at = token * self.hidden + head * width;
                        text[at..at + width].copy_from_slice(row);
                    }
                }
            })?;
            start += length;
        }
        Tensor::from_vec(merged, (tokens, self.hidden), &Device::Cpu)
    }
}

impl Linear {
    /// Multiplies `input` by the weights. `finish` then receives the product and the bias, and changes the product in
    /// place.
    fn apply(&self, input: &Tensor, finish: impl Fn(&mut [f32], &[f32]) -> Result<()>) -> Result<Tensor> {
        let output = input.matmul(&self.weight)?;
        output.inplace_op1(&InPlace(|rows: &mut [f32]| finish(rows, &self.bias)))?;
        Ok(output)
    }
}

/// Transposes a matrix, in blocks that fit into the CPU cache. candle's copy takes 10 times as long.
fn transposed(weight: Tensor) -> Result<Tensor> {
    const BLOCK: usize = 32;
    let (rows, columns) = weight.dims2()?;
    let values = with_slice(&weight, |from| {
        let mut to = vec![0f32; rows * columns];
        for row in (0..rows).step_by(BLOCK) {
            for column in (0..columns).step_by(BLOCK) {
                for c in column..columns.min(column + BLOCK) {
                    for r in row..rows.min(row + BLOCK) {
                        to[c * rows + r] = from[r * columns + c];
                    }
                }
            }
        }
        to
    })?;
    Tensor::from_vec(values, (columns, rows), &Device::Cpu)
}

/// An in-place operation on a contiguous f32 tensor that has no other owner.
struct InPlace<F>(F);

impl<F: Fn(&mut [f32]) -> Result<()>> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        "in-place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(values), Some((start, end))) => (self.0)(&mut values[start..end]),
            _ => bail!("expected contiguous f32"),
        }
    }
}

/// Calls `read` with the values of a contiguous f32 tensor.
fn with_slice<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(read(&values[start..end])),
        _ => bail!("expected contiguous f32 on the CPU"),
    }
}

//! The network on the CPU. The tokens of all texts of a batch lie in one matrix without padding:
//! nothing is computed for nothing, and a text cannot see what it is batched with.

use candle_core::safetensors::SliceSafetensors;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor, bail};

use super::Config;
use super::kernels::{self, Norm};

pub(crate) struct Packed {
    hidden: usize,
    heads: usize,
    /// One row for each word piece.
    words: Tensor,
    /// One row for each position; the first token type's row is added in.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    /// Query (scaled for the attention), key and value side by side.
    qkv: Linear,
    output: Linear,
    output_norm: Norm,
    up: Linear,
    down: Linear,
    down_norm: Norm,
}

struct Linear {
    /// One row for each input: the layout that a product with few rows reads without repacking.
    weight: Tensor,
    bias: Vec<f32>,
}

struct Weights<'a> {
    file: SliceSafetensors<'a>,
    prefix: &'static str,
    eps: f32,
}

impl Weights<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.file.load(&format!("{}{name}", self.prefix), &Device::Cpu)?.to_dtype(DType::F32)
    }

    fn vec(&self, name: &str) -> Result<Vec<f32>> {
        self.tensor(name)?.flatten_all()?.to_vec1()
    }

    fn linear(&self, name: &str) -> Result<Linear> {
        let weight = transposed(self.tensor(&format!("{name}.weight"))?)?;
        Ok(Linear { weight, bias: self.vec(&format!("{name}.bias"))? })
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        let (gain, bias) = (self.vec(&format!("{name}.weight"))?, self.vec(&format!("{name}.bias"))?);
        Ok(Norm { gain, bias, eps: self.eps })
    }

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

impl Packed {
    pub fn load(config: &Config, weights: &[u8]) -> Result<Self> {
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        if config.hidden_act != "gelu" || heads == 0 || !hidden.is_multiple_of(heads) {
            bail!("a network of another shape: {config:?}");
        }
        let file = SliceSafetensors::new(weights)?;
        let bare = file.tensors().iter().any(|(name, _)| name.starts_with("embeddings."));
        let weights = Weights { file, prefix: if bare { "" } else { "bert." }, eps: config.layer_norm_eps as f32 };
        let types = weights.tensor("embeddings.token_type_embeddings.weight")?.narrow(0, 0, 1)?;
        let positions = weights.tensor("embeddings.position_embeddings.weight")?.broadcast_add(&types)?;
        let words = weights.tensor("embeddings.word_embeddings.weight")?;
        if positions.dims() != [config.max_position_embeddings, hidden] || words.dims() != [config.vocab_size, hidden] {
            bail!("the tables of words or positions do not have the size that config.json says");
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

    /// The mean of the last layer over each text's tokens.
    pub fn run(&self, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let mut state = self.embed(batch)?;
        for layer in &self.layers {
            let attended = self.attend(layer, &state, batch)?;
            let attended = layer.output.apply(&attended, |rows, bias| {
                with_slice(&state, |state| kernels::add_and_norm(rows, bias, state, &layer.output_norm))
            })?;
            let inner = layer.up.apply(&attended, |rows, bias| {
                kernels::add_bias_and_gelu(rows, bias);
                Ok(())
            })?;
            state = layer.down.apply(&inner, |rows, bias| {
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

    fn embed(&self, batch: &[&[u32]]) -> Result<Tensor> {
        let tokens: usize = batch.iter().map(|ids| ids.len()).sum();
        let mut rows = Vec::with_capacity(tokens * self.hidden);
        with_slice(&self.words, |words| {
            for ids in batch {
                let mut positions = self.positions.chunks_exact(self.hidden);
                for &id in *ids {
                    let at = id as usize * self.hidden;
                    let (Some(word), Some(position)) = (words.get(at..at + self.hidden), positions.next()) else {
                        bail!("a token beyond the vocabulary, or a text beyond the model's positions");
                    };
                    rows.extend(word.iter().zip(position).map(|(word, position)| word + position));
                }
            }
            Ok(())
        })??;
        kernels::layer_norm(&mut rows, &self.norm);
        Tensor::from_vec(rows, (tokens, self.hidden), &Device::Cpu)
    }

    /// Attention, each text for itself.
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
            // Heads first; these are views.
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
    /// Multiplies; `finish` adds the bias and what comes after it, in place.
    fn apply(&self, input: &Tensor, finish: impl Fn(&mut [f32], &[f32]) -> Result<()>) -> Result<Tensor> {
        let output = input.matmul(&self.weight)?;
        output.inplace_op1(&InPlace(|rows: &mut [f32]| finish(rows, &self.bias)))?;
        Ok(output)
    }
}

/// In blocks that the cache holds; candle's own copy takes ten times as long.
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

/// Changes a tensor that nobody else holds yet.
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

fn with_slice<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(read(&values[start..end])),
        _ => bail!("expected contiguous f32 on the CPU"),
    }
}

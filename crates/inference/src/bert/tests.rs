//! Tests of the packed network against candle's network, on random weights, and on the real weights if they are on this
//! machine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::packed::PackedNetwork;
use super::reference::ReferenceNetwork;
use super::*;
use crate::{Catalogue, EncoderOptions, Lane, ModelStore, load_encoder};

const CONFIG: &str = r#"{"hidden_act":"gelu","hidden_dropout_prob":0.1,"hidden_size":64,"initializer_range":0.02,
    "intermediate_size":256,"layer_norm_eps":1e-12,"max_position_embeddings":64,"num_attention_heads":4,
    "num_hidden_layers":3,"pad_token_id":0,"type_vocab_size":2,"vocab_size":500}"#;

/// A safetensors file with pseudo-random weights.
fn random_weights(config: &Config) -> Vec<u8> {
    let (hidden, inner) = (config.hidden_size, 4 * config.hidden_size);
    let mut seed = 1u64;
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[usize], centre: f32| {
        let random = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            centre + ((seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.4
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(random).collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    };
    for (table, rows) in [("word", config.vocab_size), ("position", 64), ("token_type", 2)] {
        add(format!("embeddings.{table}_embeddings.weight"), &[rows, hidden], 0.0);
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..config.num_hidden_layers {
        for (part, out, into) in [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", inner, hidden),
            ("output.dense", hidden, inner),
        ] {
            add(format!("encoder.layer.{layer}.{part}.weight"), &[out, into], 0.0);
            add(format!("encoder.layer.{layer}.{part}.bias"), &[out], 0.0);
        }
        norms.extend(["attention.output", "output"].map(|part| format!("encoder.layer.{layer}.{part}.LayerNorm")));
    }
    for norm in norms {
        add(format!("{norm}.weight"), &[hidden], 1.0);
        add(format!("{norm}.bias"), &[hidden], 0.0);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    std::fs::read(path).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Texts of different lengths, as token ids.
fn texts() -> Vec<Vec<u32>> {
    [1usize, 64, 7, 2, 33, 16, 64, 5]
        .iter()
        .map(|&n| (0..n).map(|at| ((at * 31 + n * 17) % 500) as u32).collect())
        .collect()
}

#[test]
fn the_packed_network_agrees_with_candle() {
    let config: Config = serde_json::from_str(CONFIG).unwrap();
    let weights = random_weights(&config);
    let texts = texts();
    let batch: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let ours = PackedNetwork::load(&config, &weights).unwrap().run(&batch).unwrap();
    let theirs = ReferenceNetwork::load(CONFIG, &weights).unwrap().run(&batch).unwrap();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let largest_difference = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest_difference < 1e-4, "{largest_difference}");
        assert!(cosine(ours, theirs) > 0.99999);
    }
}

#[test]
fn a_vector_does_not_depend_on_the_other_texts_of_the_batch() {
    let config: Config = serde_json::from_str(CONFIG).unwrap();
    let network = PackedNetwork::load(&config, &random_weights(&config)).unwrap();
    let texts = texts();
    let batch: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    for (text, batched) in texts.iter().zip(network.run(&batch).unwrap()) {
        let alone = network.run(&[text.as_slice()]).unwrap().remove(0);
        assert!(cosine(&alone, &batched) > 1.0 - 1e-5);
    }
}

#[test]
fn invalid_ids_and_weights_are_errors() {
    let mut config: Config = serde_json::from_str(CONFIG).unwrap();
    let weights = random_weights(&config);
    let network = PackedNetwork::load(&config, &weights).unwrap();
    assert!(network.run(&[&[500]]).is_err(), "a token id outside the vocabulary");
    assert!(network.run(&[&[1; 65]]).is_err(), "a text longer than the positions");
    assert!(PackedNetwork::load(&config, &weights[..weights.len() / 2]).is_err());
    config.num_hidden_layers = 4;
    assert!(PackedNetwork::load(&config, &weights).is_err());
}

/// The store at `CARBON_MODELS_DIR`, if it has the files of the model.
fn real_store() -> Option<ModelStore> {
    let store = ModelStore::new(std::env::var("CARBON_MODELS_DIR").ok()?);
    store.missing(Catalogue::builtin().find("minilm").ok()?).is_empty().then_some(store)
}

#[tokio::test]
async fn the_real_weights_give_the_golden_vector() {
    let Some(store) = real_store() else { return };
    let entry = Catalogue::builtin().find("minilm").unwrap();
    let queue = load_encoder(entry, &store, EncoderOptions::default()).await.unwrap();
    let texts = ["henry hub natural gas", "gas futures at Henry Hub", "wheat harvest in France"].map(str::to_owned);
    let got = queue.lane(Lane::Interactive).encode(&texts).await.unwrap();
    let vector = |at: usize| got[at].vector.as_slice();
    assert!(cosine(vector(0), vector(1)) > cosine(vector(0), vector(2)) + 0.3);
    for embedding in &got {
        assert_eq!(embedding.vector.len(), 384);
        assert!((embedding.vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    assert_eq!((got[0].tokens, got[0].truncated), (6, false));
    for (value, golden) in vector(0).iter().zip(GOLDEN) {
        assert!((value - golden).abs() < 1e-4, "{:?}", &vector(0)[..4]);
    }
    let long = vec!["natural gas ".repeat(400)];
    let long = queue.lane(Lane::Bulk).encode(&long).await.unwrap().remove(0);
    assert_eq!((long.tokens, long.truncated), (256, true));
}

const GOLDEN: [f32; 4] = [-0.0069172, -0.0096932, -0.0717, 0.0588149];

#[tokio::test]
async fn the_packed_network_agrees_with_candle_on_the_real_weights() {
    let Some(store) = real_store() else { return };
    let entry = Catalogue::builtin().find("minilm").unwrap();
    let config = store.with_file(entry, "config.json", Ok).await.unwrap();
    let text = String::from_utf8(config).unwrap();
    let config: Config = serde_json::from_str(&text).unwrap();
    let weights = store.with_file(entry, "model.safetensors", Ok).await.unwrap();
    let tokenizer =
        store.with_file(entry, "tokenizer.json", |json| TextTokenizer::from_bytes(&json, 256)).await.unwrap();
    let texts =
        ["gas", "Brent crude oil, daily spot price in US dollars per barrel", "an exchange-traded fund of utilities"];
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.prepare(text).unwrap().ids).collect();
    let batch: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let ours = PackedNetwork::load(&config, &weights).unwrap().run(&batch).unwrap();
    let theirs = ReferenceNetwork::load(&text, &weights).unwrap().run(&batch).unwrap();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(cosine(ours, theirs) > 0.99999);
    }
}

//! ONNX models through the real library. Files that are no model, and inputs that do not fit, are errors.
//!
//! The tests download the library of the catalogue once (28 MB), into the folder that `CARBON_MODELS_CACHE` names or
//! `~/.cache/carbon-ml/models`. Models of real libraries: `examples/onnx_cases.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use carbon_core::{Classify, Fault};
use carbon_inference::predict::{
    Column, Declared, Layout, Model, ModelOptions, OnnxRuntime, Output, PredictError, Tensor, TensorData,
};
use carbon_inference::{Catalogue, ModelStore, NoProgress};

/// `y = 2a - b + 1` over the input `X: [n, 2]`, written by `scripts/onnx/fixture.py`.
const LINEAR: &[u8] = include_bytes!("fixtures/linear.onnx");

async fn runtime() -> OnnxRuntime {
    let cache = std::env::var_os("CARBON_MODELS_CACHE").map(PathBuf::from);
    let home = || Path::new(&std::env::var_os("HOME").expect("HOME is set")).join(".cache/carbon-ml/models");
    let store = ModelStore::new(cache.unwrap_or_else(home));
    let library = Catalogue::builtin().library("onnxruntime").expect("the catalogue has a library for this platform");
    store.pull(library, &NoProgress).await.unwrap();
    OnnxRuntime::open(&store).await.unwrap()
}

fn columns(names: &[&str]) -> Declared {
    let column = |name: &&str| Column { name: (*name).to_owned(), required: true };
    Declared { columns: names.iter().map(column).collect() }
}

async fn linear() -> Model {
    let options = ModelOptions { sessions: 2, threads: 1 };
    Model::load(&runtime().await, LINEAR, &columns(&["a", "b"]), options).unwrap()
}

fn matrix(values: &[f32]) -> Tensor {
    Tensor::new("X", vec![values.len() / 2, 2], TensorData::Float32(values.to_vec())).unwrap()
}

fn answers(outputs: &[Output]) -> Vec<f32> {
    let [Output::Tensor(tensor)] = outputs else { panic!("{outputs:?}") };
    let TensorData::Float32(values) = tensor.data() else { panic!("{tensor:?}") };
    values.clone()
}

#[tokio::test]
#[ignore = "downloads ONNX Runtime once (28 MB); run with --ignored"]
async fn a_model_predicts_a_batch() {
    let model = linear().await;
    assert_eq!(model.signature().layout, Layout::Matrix(columns(&["a", "b"]).columns));
    assert_eq!(answers(&model.predict(vec![matrix(&[1.0, 2.0, 3.0, 0.5])]).unwrap()), [1.0, 6.5]);
    assert_eq!(model.bytes(), 2 * LINEAR.len());
}

#[tokio::test]
#[ignore = "downloads ONNX Runtime once (28 MB); run with --ignored"]
async fn many_callers_predict_at_once() {
    let model = Arc::new(linear().await);
    let callers: Vec<_> = (0..8u8)
        .map(|caller| {
            let model = model.clone();
            std::thread::spawn(move || {
                for n in 0..200u8 {
                    let (a, b) = (f32::from(n), f32::from(caller));
                    assert_eq!(answers(&model.predict(vec![matrix(&[a, b])]).unwrap()), [2.0 * a - b + 1.0]);
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
}

#[tokio::test]
#[ignore = "downloads ONNX Runtime once (28 MB); run with --ignored"]
async fn inputs_that_do_not_fit_are_the_callers_fault() {
    let model = linear().await;
    let tensor = |name: &str, shape: Vec<usize>, data| Tensor::new(name, shape, data).unwrap();
    for (inputs, expected) in [
        (vec![], "the input is missing"),
        (vec![tensor("Y", vec![1], TensorData::Float32(vec![0.0]))], "the model has no such input"),
        (vec![matrix(&[1.0, 2.0]), matrix(&[1.0, 2.0])], "the input is given twice"),
        (vec![tensor("X", vec![1, 2], TensorData::Float64(vec![0.0; 2]))], "expected FP32, found FP64"),
        (vec![tensor("X", vec![1, 3], TensorData::Float32(vec![0.0; 3]))], "found the shape [1, 3]"),
        (vec![tensor("X", vec![2], TensorData::Float32(vec![0.0; 2]))], "found the shape [2]"),
        (vec![tensor("X", vec![0, 2], TensorData::Float32(vec![]))], "the tensor is empty"),
    ] {
        let error = model.predict(inputs).unwrap_err();
        assert!(matches!(error, PredictError::Input { .. }) && error.fault() == Fault::User, "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    // NaN and infinities are valid inputs: a model may handle them.
    assert!(!answers(&model.predict(vec![matrix(&[f32::NAN, f32::INFINITY])]).unwrap())[0].is_finite());
}

#[tokio::test]
#[ignore = "downloads ONNX Runtime once (28 MB); run with --ignored"]
async fn a_file_that_is_no_model_is_rejected() {
    let runtime = runtime().await;
    let load = |file: &[u8], declared: &Declared| Model::load(&runtime, file, declared, ModelOptions::default());
    let mut unknown = LINEAR.to_vec();
    let at = unknown.windows(6).position(|bytes| bytes == b"MatMul").unwrap();
    unknown[at..at + 6].copy_from_slice(b"NoSuch");
    for file in [&b""[..], b"not a model", &LINEAR[..LINEAR.len() / 2], &unknown, &vec![0u8; 100_000]] {
        let error = load(file, &Declared::default()).unwrap_err();
        assert!(matches!(error, PredictError::Load(_)), "{} bytes: {error:?}", file.len());
    }
    let error = load(LINEAR, &columns(&["a", "b", "c"])).unwrap_err();
    assert!(error.to_string().contains("declares 3 columns"), "{error}");
}

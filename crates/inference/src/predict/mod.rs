//! Predictors: models that map named tensors to named tensors. The one engine is ONNX Runtime.

mod error;
mod model;
mod onnx;
mod rows;
mod runtime;
mod signature;
mod tensor;

pub use error::PredictError;
pub use model::{Model, ModelOptions};
pub use rows::{Output, outputs_to_rows, rows_to_tensors};
pub use runtime::OnnxRuntime;
pub use signature::{Column, Declared, Dimension, Field, Layout, Signature};
pub use tensor::{DataType, Tensor, TensorData};

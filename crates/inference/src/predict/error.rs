//! Failures of loading a model and of predicting with it.

use carbon_core::{Classify, Fault, Retry};

/// A message names the row and the column at fault wherever one is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// The input does not fit the model's signature. `row` counts from 0.
    #[error("{}{reason}", place(*row, column.as_deref()))]
    Input { row: Option<usize>, column: Option<String>, reason: String },

    /// The model's file cannot be loaded: it is damaged, or it uses an operator or a type that is not supported.
    #[error("the model cannot be loaded: {0}")]
    Load(String),

    /// The model was loaded, and failed on an input that fits its signature.
    #[error("the model failed: {0}")]
    Run(String),

    /// The ONNX Runtime library cannot be loaded.
    #[error("ONNX Runtime is unavailable: {0}; run `carbon-ml models pull onnxruntime`, or set ORT_DYLIB_PATH")]
    Runtime(String),
}

fn place(row: Option<usize>, column: Option<&str>) -> String {
    match (row, column) {
        (Some(row), Some(column)) => format!("row {row}, column {column:?}: "),
        (Some(row), None) => format!("row {row}: "),
        (None, Some(column)) => format!("column {column:?}: "),
        (None, None) => String::new(),
    }
}

impl PredictError {
    pub(super) fn input(row: Option<usize>, column: Option<&str>, reason: impl Into<String>) -> Self {
        Self::Input { row, column: column.map(str::to_owned), reason: reason.into() }
    }
}

impl Classify for PredictError {
    fn fault(&self) -> Fault {
        match self {
            Self::Input { .. } | Self::Load(_) | Self::Run(_) => Fault::User,
            Self::Runtime(_) => Fault::External,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Input { .. } | Self::Load(_) | Self::Run(_) => Retry::Never,
            Self::Runtime(_) => Retry::Later,
        }
    }
}

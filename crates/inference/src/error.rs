//! What can go wrong between a text and its vector.

use std::path::PathBuf;
use std::time::Duration;

use carbon_core::{Classify, Fault, Retry};

/// A message says what to do wherever something can be done.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    #[error("no model is called {name:?}; known models: {}", known.join(", "))]
    UnknownModel { name: String, known: Vec<String> },

    #[error("the weights of {model} are not on this machine ({} missing): run `carbon-ml models pull {model}`", files.join(", "))]
    NotPulled { model: String, files: Vec<String> },

    #[error(
        "{file} does not have the SHA-256 that the catalogue names: expected {expected}, found {found}; `carbon-ml models pull` fetches it again"
    )]
    HashMismatch { file: String, expected: String, found: String },

    #[error("too many texts are waiting to be encoded: try again in {} s", retry_after.as_secs_f32().ceil())]
    Overloaded { retry_after: Duration },

    #[error("text {index} cannot be embedded: {reason}")]
    NotEmbeddable { index: usize, reason: &'static str },

    #[error("the weights of {model} could not be downloaded: {}. {by_hand}", tried.join("; "))]
    Download { model: String, tried: Vec<String>, by_hand: String },

    #[error("{} cannot be used: {source}", path.display())]
    Storage { path: PathBuf, source: std::io::Error },

    #[error("the encoder is broken: {0}")]
    Broken(String),
}

impl InferenceError {
    /// The kind of error, as a metric's label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } => "unknown_model",
            Self::NotPulled { .. } => "not_pulled",
            Self::HashMismatch { .. } => "hash_mismatch",
            Self::Overloaded { .. } => "overloaded",
            Self::NotEmbeddable { .. } => "not_embeddable",
            Self::Download { .. } => "download",
            Self::Storage { .. } => "storage",
            Self::Broken(_) => "broken",
        }
    }

    pub(crate) fn storage(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Storage { path, source }
    }
}

impl Classify for InferenceError {
    fn fault(&self) -> Fault {
        match self {
            Self::UnknownModel { .. } | Self::NotEmbeddable { .. } => Fault::User,
            Self::NotPulled { .. }
            | Self::HashMismatch { .. }
            | Self::Overloaded { .. }
            | Self::Download { .. }
            | Self::Storage { .. } => Fault::External,
            Self::Broken(_) => Fault::Internal,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::NotPulled { .. } | Self::Overloaded { .. } | Self::Download { .. } | Self::Storage { .. } => {
                Retry::Later
            }
            Self::UnknownModel { .. } | Self::HashMismatch { .. } | Self::NotEmbeddable { .. } | Self::Broken(_) => {
                Retry::Never
            }
        }
    }
}

//! The errors of models: finding, downloading, loading, and encoding.

use std::path::PathBuf;
use std::time::Duration;

use carbon_core::{Classify, Fault, Retry};

/// Errors of models and encoders. A message says what to do if the user can do something.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    #[error("unknown model {name:?}; known models: {}", known.join(", "))]
    UnknownModel { name: String, known: Vec<String> },

    #[error("the files of {model} are not on this machine ({} missing); run `carbon-ml models pull {model}`", files.join(", "))]
    NotPulled { model: String, files: Vec<String> },

    #[error(
        "{file} has SHA-256 {found}, but the catalogue expects {expected}; run `carbon-ml models pull` to download it again"
    )]
    HashMismatch { file: String, expected: String, found: String },

    #[error("too many texts are waiting to be encoded; retry in {} s", retry_after.as_secs_f32().ceil())]
    Overloaded { retry_after: Duration },

    #[error("text {index} cannot be embedded: {reason}")]
    NotEmbeddable { index: usize, reason: &'static str },

    #[error("the files of {model} could not be downloaded: {}. {by_hand}", tried.join("; "))]
    Download { model: String, tried: Vec<String>, by_hand: String },

    #[error("{}: {source}", path.display())]
    Storage { path: PathBuf, source: std::io::Error },

    /// The model or the program is faulty; a retry does not help.
    #[error("the encoder failed: {0}")]
    Broken(String),
}

impl InferenceError {
    /// The kind of error, as the metric label `reason`.
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

    /// Maps an I/O error to a [`InferenceError::Storage`] with its path.
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

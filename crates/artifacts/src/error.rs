//! The errors of artifacts.

use std::ops::Range;

use carbon_core::{Classify, Fault, Retry};

use crate::Sha256Hex;

/// The error of a caller's stream.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Errors of artifacts: paths, digests, manifests, uploads, downloads, and the store.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("artifact path {path:?} {reason}")]
    Path { path: String, reason: &'static str },
    #[error("{0:?} is not a SHA-256: it must be 64 lower-case hexadecimal digits")]
    Digest(String),
    #[error("the manifest has the path {0:?} twice")]
    Duplicate(String),
    #[error("the artifact is larger than the limit of {limit} bytes")]
    TooLarge { limit: u64 },
    /// The caller's stream failed.
    #[error("the upload was interrupted: {0}")]
    Interrupted(BoxError),
    #[error("byte range {}..{} is outside the artifact, which has {size} bytes", range.start, range.end)]
    OutOfRange { range: Range<u64>, size: u64 },
    #[error("artifacts: blob {0} is missing from the store; restore it from a backup")]
    Missing(Sha256Hex),
    #[error(
        "artifacts: blob {expected} is corrupt, its content has SHA-256 {found}; restore it from a backup, or delete it and upload the file again"
    )]
    Corrupt { expected: Sha256Hex, found: Sha256Hex },
    /// A setting of the artifact store is invalid; the text names the setting.
    #[error("{0}")]
    Options(String),
    #[error("artifacts: {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("artifacts: {0}")]
    Store(object_store::Error),
}

impl ArtifactError {
    /// Maps an I/O error to an [`ArtifactError::Io`] with its path.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }
}

impl From<object_store::Error> for ArtifactError {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

impl Classify for ArtifactError {
    fn fault(&self) -> Fault {
        use object_store::Error;
        match self {
            ArtifactError::Path { .. }
            | ArtifactError::Digest(_)
            | ArtifactError::Duplicate(_)
            | ArtifactError::TooLarge { .. }
            | ArtifactError::Interrupted(_)
            | ArtifactError::OutOfRange { .. }
            | ArtifactError::Options(_) => Fault::User,
            ArtifactError::Corrupt { .. } => Fault::Internal,
            ArtifactError::Store(
                Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. },
            ) => Fault::Internal,
            ArtifactError::Missing(_) | ArtifactError::Io { .. } | ArtifactError::Store(_) => Fault::External,
        }
    }

    fn retry(&self) -> Retry {
        use object_store::Error;
        match self {
            ArtifactError::Store(
                Error::InvalidPath { .. }
                | Error::NotSupported { .. }
                | Error::NotImplemented { .. }
                | Error::PermissionDenied { .. }
                | Error::Unauthenticated { .. },
            ) => Retry::Never,
            // The client may send it again.
            ArtifactError::Interrupted(_) | ArtifactError::Io { .. } | ArtifactError::Store(_) => Retry::Later,
            _ => Retry::Never,
        }
    }
}

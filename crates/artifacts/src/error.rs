use std::ops::Range;

use carbon_core::{Classify, Fault, Retry};

use crate::Sha256Hex;

/// What a stream of the caller's may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong with artifacts.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("artifact path {path:?} {reason}")]
    Path { path: String, reason: &'static str },
    #[error("{0:?} is no SHA-256: it must be 64 lower-case hexadecimal digits")]
    Digest(String),
    #[error("the manifest names {0:?} twice")]
    Duplicate(String),
    #[error("the artifact has more than {limit} bytes, no more are taken")]
    TooLarge { limit: u64 },
    #[error("the upload broke off: {0}")]
    Interrupted(BoxError),
    #[error("bytes {}..{} of an artifact of {size}", range.start, range.end)]
    OutOfRange { range: Range<u64>, size: u64 },
    #[error("artifacts: blob {0} is not in the store, though it was; put it back from a copy")]
    Missing(Sha256Hex),
    #[error(
        "artifacts: blob {expected} is damaged, its bytes have the hash {found}: put it back from a copy, or delete it and upload the file again"
    )]
    Corrupt { expected: Sha256Hex, found: Sha256Hex },
    #[error("{0}")]
    Options(String),
    #[error("artifacts: {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("artifacts: {0}")]
    Store(object_store::Error),
}

impl ArtifactError {
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

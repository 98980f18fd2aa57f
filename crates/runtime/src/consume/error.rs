use std::sync::Arc;

use carbon_core::{Classify, Fault, Positions, Retry};

use crate::panics::Panicked;

/// What went wrong in a processor, by whose fault, whether to try again, and where.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ProcessorError {
    message: String,
    fault: Fault,
    retry: Retry,
    /// The first positions of the batch that failed.
    at: Option<Arc<Positions>>,
}

impl ProcessorError {
    pub fn internal(message: impl Into<String>) -> Self {
        Self { message: message.into(), fault: Fault::Internal, retry: Retry::Never, at: None }
    }

    /// Something that this process depends on is not there yet.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { message: message.into(), fault: Fault::External, retry: Retry::Later, at: None }
    }

    pub fn of(error: &impl Classify) -> Self {
        Self { message: error.to_string(), fault: error.fault(), retry: error.retry(), at: None }
    }

    /// The same, of the batch that starts at these positions.
    pub(super) fn at(mut self, positions: &Positions) -> Self {
        self.at = Some(Arc::new(positions.clone()));
        self
    }

    pub(super) fn positions(&self) -> Option<&Positions> {
        self.at.as_deref()
    }

    /// Whether another attempt can only succeed by chance: a bug of ours, or a panic.
    pub fn is_internal(&self) -> bool {
        self.fault == Fault::Internal
    }
}

impl Classify for ProcessorError {
    fn fault(&self) -> Fault {
        self.fault
    }

    fn retry(&self) -> Retry {
        self.retry
    }
}

impl From<Panicked> for ProcessorError {
    fn from(panicked: Panicked) -> Self {
        Self::internal(panicked.to_string())
    }
}

/// Lets `?` turn the workspace's errors into a processor's.
macro_rules! from {
    ($($error:ty),+) => {
        $(impl From<$error> for ProcessorError {
            fn from(error: $error) -> Self {
                Self::of(&error)
            }
        })+
    };
}

from!(carbon_log::LogError, carbon_store::StoreError, carbon_schemas::CodecError);

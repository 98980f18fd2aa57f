use carbon_core::{Classify, Fault, Retry};

/// What went wrong in a processor, by whose fault, and whether to try again.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ProcessorError {
    message: String,
    fault: Fault,
    retry: Retry,
}

impl ProcessorError {
    pub fn internal(message: impl Into<String>) -> Self {
        Self { message: message.into(), fault: Fault::Internal, retry: Retry::Never }
    }

    pub fn of(error: &impl Classify) -> Self {
        Self { message: error.to_string(), fault: error.fault(), retry: error.retry() }
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

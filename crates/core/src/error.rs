//! The classification of errors: whose fault an error is, and whether a retry can help. HTTP statuses, retries and dead
//! letters depend on nothing else.

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller sent an invalid input.
    User,
    /// A dependency of this process (a store, a broker, a registry, a disk) failed or is unavailable.
    External,
    /// A bug: an invariant of this program does not hold.
    Internal,
}

/// Whether a retry of the same attempt can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    Later,
}

/// Implemented by every error enum of the workspace.
pub trait Classify: std::error::Error {
    fn fault(&self) -> Fault;
    fn retry(&self) -> Retry;
}

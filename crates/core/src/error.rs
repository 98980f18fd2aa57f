//! Whose fault an error is, and whether to try again. HTTP statuses, retries and dead letters
//! are decided from these two answers alone.

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller sent something that cannot be accepted.
    User,
    /// Something that this process depends on failed or is not there.
    External,
    /// A bug or a broken invariant of ours.
    Internal,
}

/// Whether the same attempt may succeed later.
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

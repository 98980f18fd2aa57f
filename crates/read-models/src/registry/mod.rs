//! `registry`: the read model of the MLflow API: experiments, runs, models and webhooks.

mod bulk;
mod commits;
pub mod filter;
mod fold;
mod points;
mod promotion_inputs;
pub mod queries;
mod run_info;
pub mod standing;
mod tables;
mod verdict;

pub use commits::deletion_count;
pub use fold::{Registry, RegistryDecoders, RegistryRecord};
pub use verdict::{Conflict, ConflictCode, verdict};

/// The tag that holds the name of a run. The tag follows the name, and the name follows the tag.
pub(crate) const NAME_TAG: &str = "mlflow.runName";

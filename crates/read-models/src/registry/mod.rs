//! `registry`: the MLflow side: experiments, runs and models.

mod dossier;
pub mod filter;
mod fold;
pub mod queries;
pub mod standing;
mod tables;
mod verdict;

pub use fold::{Registry, RegistryDecoders, RegistryRecord};
pub use verdict::{Conflict, ConflictCode, verdict};

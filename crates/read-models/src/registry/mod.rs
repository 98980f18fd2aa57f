//! `registry`: the MLflow side: experiments, runs and models.

pub mod filter;
mod fold;
pub mod queries;
mod tables;
mod verdict;

pub use fold::{Registry, RegistryDecoders, RegistryRecord};
pub use verdict::{Conflict, ConflictCode, verdict};

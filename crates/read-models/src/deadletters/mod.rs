//! `deadletters`: the read model of dead letters, one row per source position.

mod fold;
mod queries;
mod tables;

pub use fold::DeadLetters;
pub use queries::counts;

//! `deadletters`: one row a source position, whoever reported it.

mod fold;
mod queries;
mod tables;

pub use fold::DeadLetters;
pub use queries::counts;

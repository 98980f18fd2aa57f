//! Engines behind the trait.

pub mod embedded;

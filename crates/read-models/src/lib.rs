//! Read models: each a folder with its tables, its fold and its queries. A fold is deterministic
//! (law 3): no clock, no randomness, nothing but the tables it is handed.

pub mod catalog;
pub mod deadletters;
mod digest;
mod projection;
pub mod registry;

pub use digest::{Digest, digest};
pub use projection::{FoldError, Projection, open};

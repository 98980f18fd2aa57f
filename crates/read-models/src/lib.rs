//! Read models: each a folder with its tables, its fold and its queries. A fold is deterministic
//! (law 3): no clock, no randomness, nothing but the tables it is handed.

pub mod catalog;
pub mod deadletters;
mod digest;
mod projection;
pub mod registry;

pub use digest::{Digest, digest, digest_of};
pub use projection::{FoldError, Projection, open};

/// Is shown every read model of the list.
pub trait Visitor {
    fn visit<P: Projection>(&mut self, projection: P);
}

/// The list of relational read models, the one place that names them all. `topology.yaml` says which run, and how.
pub fn list(visitor: &mut impl Visitor) {
    visitor.visit(catalog::Catalog);
    visitor.visit(deadletters::DeadLetters);
    visitor.visit(registry::Registry);
}

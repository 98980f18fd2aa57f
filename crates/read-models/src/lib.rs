//! Read models: one folder each, with tables, fold and queries. A fold is deterministic (law 3): it uses no clock and
//! no randomness, and reads and writes only the tables that it is given.

pub mod catalog;
pub mod deadletters;
mod digest;
mod projection;
pub mod registry;

pub use digest::{Digest, digest, digest_of};
pub use projection::{FoldError, Projection, open};

/// Visits every read model of the [`list`].
pub trait Visitor {
    fn visit<P: Projection>(&mut self, projection: P);
}

/// The list of relational read models: the one place that names them all. `topology.yaml` says which of them run.
pub fn list(visitor: &mut impl Visitor) {
    visitor.visit(catalog::Catalog);
    visitor.visit(deadletters::DeadLetters);
    visitor.visit(registry::Registry);
}

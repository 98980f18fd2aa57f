//! The processors: the embedder is a stage, the indexer and the projections are sinks.

mod embedder;
mod indexer;
mod projections;

pub use embedder::Embedder;
pub use indexer::Indexer;
pub use projections::ProjectionSink;

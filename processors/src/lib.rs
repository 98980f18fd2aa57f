//! The processors: the embedder is a stage, the indexer and the projections are sinks, webhooks tell others.

mod embedder;
mod indexer;
mod projections;
mod webhooks;

pub use embedder::Embedder;
pub use indexer::Indexer;
pub use projections::ProjectionSink;
pub use webhooks::{Deliveries, MOST_PENDING, Pace, WebhookParts, WebhookRecord, WebhookSink};

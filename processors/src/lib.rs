//! The processors: the embedder (a stage), the indexer and the projections (sinks), and webhooks (an effect handler).

mod embedder;
mod indexer;
mod projections;
mod webhooks;

pub use embedder::Embedder;
pub use indexer::Indexer;
pub use projections::ProjectionSink;
pub use webhooks::{Deliveries, MAX_PENDING_DELIVERIES, Pace, WebhookParts, WebhookRecord, WebhookSink};

//! Types that every crate of carbon-ml uses: identifiers, tenants, positions in the log, topics, model references, clocks,
//! and the classification of errors.

mod clock;
mod error;
mod generation;
mod ids;
mod metadata;
mod model_ref;
mod position;
mod tenant;
mod topic;

pub use clock::{Clock, SystemClock, Timestamp, parse_rfc3339};
pub use error::{Classify, Fault, Retry};
pub use generation::GenerationId;
pub use ids::{EntityId, EntityKey, EntityType, IdError, RequestId, derived_id};
pub use metadata::{Metadata, MetadataValue};
pub use model_ref::{ModelRef, Precision};
pub use position::{Position, PositionError, Positions, TopicPartition};
pub use tenant::{TenantId, TenantScope};
pub use topic::{Cleanup, Partitioner, Retention, TopicName, TopicSpec};

//! Hybrid search: the pure parts (plan, fuse, boost, explain) and the engines behind
//! [`HybridIndex`].

pub mod analyze;
pub mod boost;
pub mod engines;
mod error;
pub mod explain;
pub mod filter;
pub mod fuse;
mod index;
mod order;
pub mod plan;
mod search;
mod types;

pub use carbon_core::MetadataValue;
pub use engines::embedded::EmbeddedIndex;
pub use error::{IndexError, SearchError};
pub use explain::Explain;
pub use filter::{Condition, Filter, FilterError, ParsedFilter};
pub use fuse::Fusion;
pub use index::{Applied, GenerationSpec, Hit, HybridIndex, Retrieval, Retrieved, Stats, StoredRow};
pub use plan::{Mode, Plan, PlanError, SearchRequest};
pub use search::{SearchResult, SearchResults, search, similar};
pub use types::{Document, IndexOp, OpKind};

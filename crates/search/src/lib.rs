//! Hybrid (dense and lexical) search. The pure parts are plan, fuse, boost and explain; the engines implement
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
pub use index::{Applied, Candidates, GenerationSpec, Hit, HybridIndex, Retrieval, Stats, StoredRow};
pub use plan::{Mode, Plan, PlanError, SearchRequest};
pub use search::{SearchResult, SearchResults, search, similar};
pub use types::{Document, IndexOp, OpKind};

//! Namespaces: the place of one generation's rows and of its checkpoint, together, so that both
//! commit in one transaction (law 4). Embedded, a namespace is a SQLite file.

mod checkpoint;
mod error;
mod namespace;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use error::StoreError;
pub use namespace::{Durability, Namespace, PAGE_BYTES, Tables};

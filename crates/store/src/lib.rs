//! Namespaces: the rows and the checkpoint of one generation of a read model, which commit in one transaction (law 4).
//! A namespace is a SQLite file or a schema of a Postgres database. This crate knows no read model.

mod checkpoint;
mod commit;
mod error;
mod file_pool;
mod fill;
mod follow;
mod identity;
mod namespace;
mod postgres;
mod row;
mod serving;
mod sql;
mod sqlite;
mod table;
#[cfg(feature = "testing")]
pub mod testing;
mod turns;
mod value;
mod wal;
mod write;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use commit::{CommitHook, CommittedRange, Hook};
pub use error::StoreError;
pub use file_pool::{FileConnection, FilePool};
pub use follow::CommitsOf;
pub use namespace::{Layout, Namespace, Site, Snapshot};
pub use postgres::Postgres;
pub use row::{Get, Row};
pub use sql::{Connection, Dialect, Query, QueryBuilder, Readers, Separated, Target, query};
pub use sqlite::{Durability, SqliteNamespace, SqliteTables};
pub use table::{Column, INDEXED_CHARS, Index, IndexColumn, Table};
pub use value::{IntoValue, Kind, Value};
pub use write::{Folded, Tables};

//! Namespaces: the place of one generation's rows and of its checkpoint, together, so that both
//! commit in one transaction (law 4). Embedded, a namespace is a SQLite file; else a schema of a Postgres database.

mod checkpoint;
mod error;
mod fill;
mod follow;
mod identity;
mod landed;
mod lanes;
mod namespace;
mod postgres;
mod row;
mod serving;
mod sql;
mod sqlite;
mod turns;
mod value;
mod wal;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use error::StoreError;
pub use follow::CommitsOf;
pub use lanes::{Lane, Lanes};
pub use namespace::{Layout, Namespace, Site, Snapshot, Tables};
pub use postgres::Postgres;
pub use row::{Get, Row};
pub use sql::{Connection, Dialect, Query, QueryBuilder, Readers, Separated, Target, query};
pub use sqlite::{Durability, SqliteNamespace, SqliteTables};
pub use value::{IntoValue, Kind, Value};

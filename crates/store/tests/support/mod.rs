//! Namespaces for tests: a file, or a schema of the Postgres that `CARBON_TEST_POSTGRES` names.

use carbon_core::{Positions, TopicName, TopicPartition};
use carbon_store::{CheckpointError, Layout, Namespace, Postgres, Site, query};

pub const DDL: &str = "
CREATE TABLE IF NOT EXISTS item (
    id TEXT PRIMARY KEY, number INTEGER, measure REAL, bytes BLOB
) WITHOUT ROWID;
";

pub fn layout(version: i64) -> Layout {
    Layout { version, ddl: DDL }
}

/// A site of its own, and what it lies in.
pub async fn site() -> (Site, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let site = match std::env::var("CARBON_TEST_POSTGRES") {
        Ok(address) => Site::Schema(Postgres::open(&address).await.unwrap(), uuid::Uuid::new_v4().to_string()),
        Err(_) => Site::File(dir.path().join("rows.db")),
    };
    (site, dir)
}

pub fn positions(next: u64) -> Positions {
    [(TopicPartition::new(TopicName::parse("t").unwrap(), 0), next)].into_iter().collect()
}

pub async fn ids(space: &Namespace) -> Vec<String> {
    query("SELECT id FROM item ORDER BY id").scalars(space.readers()).await.unwrap()
}

/// Writes an item and moves the checkpoint, in one transaction.
pub async fn write(space: &Namespace, id: &str, from: u64, upto: u64) -> Result<(), CheckpointError> {
    let mut tables = space.begin_at("log-a", &positions(from), &positions(upto), Vec::new()).await?;
    query("INSERT INTO item (id) VALUES ($1)").bind(id).execute(tables.connection()).await.unwrap();
    Ok(tables.commit().await?)
}

//! Namespaces with one table, for tests.

use carbon_core::{Positions, TopicName, TopicPartition};
use carbon_store::{CheckpointError, Column, Layout, Namespace, Site, Table, query, testing};

pub const ITEM: Table = Table::new(
    "item",
    &[
        Column::text("id"),
        Column::int("number").nullable(),
        Column::real("measure").nullable(),
        Column::bytes("bytes").nullable(),
    ],
    &["id"],
)
.clustered();

pub fn layout(version: i64) -> Layout {
    Layout::new(version, &[ITEM])
}

/// A new site, and the folder of its file.
pub async fn site() -> (Site, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (testing::site(&dir.path().join("rows.db")).await, dir)
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

//! The checkpoint of a namespace: how far its rows have come, and in which log.

use carbon_core::{Positions, TopicName, TopicPartition};
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Row};

use crate::error::StoreError;
use crate::namespace::{Namespace, Tables};

pub(crate) const DDL: &str = "
CREATE TABLE IF NOT EXISTS checkpoint (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoint_log (id INTEGER PRIMARY KEY CHECK (id = 1), log TEXT NOT NULL);
";

/// A checkpoint: positions, and the log (law 4) in which they were reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub log: Option<String>,
    pub positions: Positions,
}

/// Why a checkpoint did not move.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Somebody else has moved it: this batch must not land (law 4).
    #[error("the checkpoint stands at {actual}, not where this batch begins")]
    Moved { actual: Positions },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Namespace {
    /// The checkpoint as of the last commit.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let mut connection = self.readers().acquire().await?;
        read(&mut connection).await
    }
}

impl Tables<'_> {
    pub async fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        read(self.connection()).await
    }

    /// Moves the checkpoint from `from` to `upto` by compare-and-swap, in this transaction.
    /// Only the partitions of `upto` are compared and moved.
    pub async fn advance(&mut self, log: &str, from: &Positions, upto: &Positions) -> Result<(), CheckpointError> {
        let actual = read(self.connection()).await?.positions;
        if upto.iter().any(|(at, _)| actual.next(at) != from.next(at)) {
            return Err(CheckpointError::Moved { actual });
        }
        if upto.is_empty() {
            return Ok(());
        }
        let mut insert = QueryBuilder::new("INSERT INTO checkpoint (topic, partition, next) ");
        insert.push_values(upto.iter(), |mut row, (at, next)| {
            row.push_bind(at.topic.to_string()).push_bind(i64::from(at.partition)).push_bind(next as i64);
        });
        insert.push(" ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next");
        insert.build().execute(self.connection()).await.map_err(StoreError::from)?;
        sqlx::query(
            "INSERT INTO checkpoint_log (id, log) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET log = excluded.log",
        )
        .bind(log)
        .execute(self.connection())
        .await
        .map_err(StoreError::from)?;
        Ok(())
    }
}

async fn read(connection: &mut SqliteConnection) -> Result<Checkpoint, StoreError> {
    let rows = sqlx::query(
        "SELECT c.topic, c.partition, c.next, l.log FROM checkpoint c LEFT JOIN checkpoint_log l ON l.id = 1",
    )
    .fetch_all(connection)
    .await?;
    let mut checkpoint = Checkpoint::default();
    for row in rows {
        let topic: String = row.try_get(0)?;
        let topic = TopicName::parse(&topic).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let (partition, next): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        checkpoint.positions.set(TopicPartition::new(topic, partition as u32), next as u64);
        checkpoint.log = row.try_get(3)?;
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Durability;

    fn positions(next: u64) -> Positions {
        [(TopicPartition::new(TopicName::parse("t").unwrap(), 0), next)].into_iter().collect()
    }

    #[tokio::test]
    async fn law_04_a_zombies_batch_aborts_whole() {
        let folder = tempfile::tempdir().unwrap();
        let space = Namespace::open(
            &folder.path().join("rows.db"),
            Durability::Derived,
            1,
            "CREATE TABLE IF NOT EXISTS item (id TEXT PRIMARY KEY)",
        )
        .await
        .unwrap();
        let write = async |id: &str, from: u64, upto: u64| {
            let mut tables = space.begin().await.unwrap();
            sqlx::query("INSERT INTO item VALUES ($1)").bind(id).execute(tables.connection()).await.unwrap();
            tables.advance("log-a", &positions(from), &positions(upto)).await?;
            tables.commit().await.map_err(CheckpointError::from)
        };
        write("first", 0, 2).await.unwrap();
        // The zombie read the same records, and comes after.
        let zombie = write("second", 0, 2).await;
        assert!(matches!(zombie, Err(CheckpointError::Moved { actual }) if actual == positions(2)));
        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM item").fetch_all(space.readers()).await.unwrap();
        assert_eq!(ids, ["first"]);
        let checkpoint = space.checkpoint().await.unwrap();
        assert_eq!(checkpoint, Checkpoint { log: Some("log-a".into()), positions: positions(2) });
    }

    #[tokio::test]
    async fn another_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.db");
        Namespace::open(&path, Durability::Derived, 1, "").await.unwrap().close().await;
        let error = Namespace::open(&path, Durability::Derived, 2, "").await.unwrap_err();
        assert!(matches!(error, StoreError::Layout { found: 1, expected: 2, .. }), "{error}");
    }
}

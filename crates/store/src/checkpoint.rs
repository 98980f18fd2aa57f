//! The checkpoint of a namespace: how far its rows have come, and in which log.

use carbon_core::{Positions, TopicName, TopicPartition};

use crate::error::StoreError;
use crate::sql::{Connection, Dialect, QueryBuilder, Target, query};

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

/// Moves the checkpoint from `from` to `upto` by compare-and-swap, in the transaction of the connection.
pub(crate) async fn advance(
    connection: &mut Connection<'_>,
    dialect: Dialect,
    log: &str,
    from: &Positions,
    upto: &Positions,
) -> Result<(), CheckpointError> {
    let Checkpoint { log: known, positions: actual } = read(&mut *connection).await?;
    if upto.iter().any(|(at, _)| actual.next(at) != from.next(at)) {
        return Err(CheckpointError::Moved { actual });
    }
    if upto.is_empty() {
        return Ok(());
    }
    let mut insert = QueryBuilder::new(dialect, "INSERT INTO checkpoint (topic, partition, next) ");
    insert.push_values(upto.iter(), |mut row, (at, next)| {
        row.push_bind(at.topic.as_str()).push_bind(i64::from(at.partition)).push_bind(next as i64);
    });
    insert.push(" ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next");
    insert.build().execute(&mut *connection).await.map_err(StoreError::from)?;
    if known.as_deref() == Some(log) {
        return Ok(());
    }
    query("INSERT INTO checkpoint_log (id, log) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET log = excluded.log")
        .bind(log)
        .execute(connection)
        .await
        .map_err(StoreError::from)?;
    Ok(())
}

pub(crate) async fn read<'c>(on: impl Into<Target<'c>>) -> Result<Checkpoint, StoreError> {
    let rows =
        query("SELECT c.topic, c.partition, c.next, l.log FROM checkpoint c LEFT JOIN checkpoint_log l ON l.id = 1")
            .fetch_all(on)
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

//! Compaction and retention, as Kafka's cleaner does them (law 6): what is younger than the lag stays, and of
//! the rest the last record of each key.

use std::collections::{BTreeMap, HashSet};

use carbon_core::{Cleanup, Positions, Timestamp, TopicPartition};
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

use super::row_id;
use super::state::{Partition, State};
use crate::error::LogError;

/// What a compaction removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionReport {
    /// Records that a later record of their key replaced.
    pub superseded: u64,
    /// Null values whose time is over.
    pub nulls: u64,
    /// Records older than their topic's retention.
    pub expired: u64,
}

type Changed = BTreeMap<TopicPartition, Partition>;

/// How many rows one statement removes.
const CHUNK: usize = 500;

pub(super) async fn compact(
    connection: &mut SqliteConnection,
    state: &State,
    now: Timestamp,
) -> Result<(CompactionReport, Changed), LogError> {
    let (mut report, mut changed) = (CompactionReport::default(), Changed::new());
    for topic in state.topics() {
        for number in 0..topic.spec.partitions {
            let at = TopicPartition::new(topic.spec.name.clone(), number);
            let partition = state.partition(&at)?;
            match topic.spec.cleanup {
                Cleanup::Keep => {}
                Cleanup::Compact => {
                    let retention = topic.spec.retention;
                    let lag = now.0 - retention.min_compaction_lag_ms;
                    let nulls = lag.min(now.0 - retention.delete_retention_ms);
                    compact_partition(connection, partition, number, lag, nulls, &mut report).await?;
                }
                Cleanup::Delete => {
                    let Some(retention) = topic.spec.retention.retention_ms else { continue };
                    let first: Option<i64> = sqlx::query_scalar(
                        "SELECT id FROM record WHERE id >= $1 AND id < $2 AND timestamp >= $3 ORDER BY id LIMIT 1",
                    )
                    .bind(row_id(partition.topic_id, number, 0))
                    .bind(row_id(partition.topic_id, number, partition.next))
                    .bind(now.0 - retention)
                    .fetch_optional(&mut *connection)
                    .await?;
                    let start = first.map_or(partition.next, super::offset_of);
                    report.expired += cut(connection, number, partition, start).await?;
                    changed.insert(at, Partition { start, ..partition });
                }
            }
        }
    }
    Ok((report, changed))
}

async fn compact_partition(
    connection: &mut SqliteConnection,
    partition: Partition,
    number: u32,
    lag: i64,
    null_horizon: i64,
    report: &mut CompactionReport,
) -> Result<(), LogError> {
    // Newest first: a key that was seen before is superseded. Times rise within a partition, so the
    // records younger than the lag are a suffix, which is left alone.
    let rows: Vec<(i64, i64, Option<Vec<u8>>, bool)> = sqlx::query_as(
        "SELECT id, timestamp, key, value IS NULL FROM record WHERE id >= $1 AND id < $2 AND timestamp <= $3 ORDER BY id DESC",
    )
    .bind(row_id(partition.topic_id, number, 0))
    .bind(row_id(partition.topic_id, number, partition.next))
    .bind(lag)
    .fetch_all(&mut *connection)
    .await?;
    let mut seen = HashSet::new();
    let mut gone = Vec::new();
    for (id, timestamp, key, null) in rows {
        // A record without a key is poison, and stays as evidence.
        let Some(key) = key else { continue };
        if !seen.insert(key) {
            report.superseded += 1;
            gone.push(id);
        } else if null && timestamp <= null_horizon {
            report.nulls += 1;
            gone.push(id);
        }
    }
    // As one: a null value that went before the values that it erased would bring them back.
    let mut tx = connection.begin().await?;
    for chunk in gone.chunks(CHUNK) {
        let mut delete = sqlx::QueryBuilder::new("DELETE FROM record WHERE id IN (");
        let mut ids = delete.separated(", ");
        chunk.iter().for_each(|id| {
            ids.push_bind(*id);
        });
        delete.push(")").build().execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}

/// Removes the records below these offsets.
pub(super) async fn delete_below(
    connection: &mut SqliteConnection,
    state: &State,
    before: &Positions,
) -> Result<Changed, LogError> {
    let mut changed = Changed::new();
    for (at, next) in before.iter() {
        let partition = state.partition(at)?;
        let start = next.min(partition.next).max(partition.start);
        cut(connection, at.partition, partition, start).await?;
        changed.insert(at.clone(), Partition { start, ..partition });
    }
    Ok(changed)
}

/// Moves a partition's start, and removes what lies before it.
async fn cut(
    connection: &mut SqliteConnection,
    number: u32,
    partition: Partition,
    start: u64,
) -> Result<u64, LogError> {
    let mut tx = connection.begin().await?;
    sqlx::query("UPDATE partition SET start = $3 WHERE topic = $1 AND partition = $2")
        .bind(partition.topic_id)
        .bind(i64::from(number))
        .bind(start as i64)
        .execute(&mut *tx)
        .await?;
    let removed = sqlx::query("DELETE FROM record WHERE id >= $1 AND id < $2")
        .bind(row_id(partition.topic_id, number, 0))
        .bind(row_id(partition.topic_id, number, start))
        .execute(&mut *tx)
        .await?
        .rows_affected();
    tx.commit().await?;
    Ok(removed)
}

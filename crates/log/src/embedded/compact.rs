//! Compaction and retention with the rules of Kafka's log cleaner (law 6): compaction keeps all records younger than
//! the lag, and the last record of each key among the others.

use std::collections::{BTreeMap, HashSet};

use carbon_core::{Cleanup, Positions, Timestamp, TopicPartition};
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

use super::row_id;
use super::state::{LogState, PartitionState};
use crate::error::LogError;

/// Numbers of records that a compaction deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionReport {
    /// Records with a later record of the same key.
    pub superseded: u64,
    /// Null values older than their topic's `delete_retention_ms`.
    pub nulls: u64,
    /// Records older than their topic's `retention_ms`.
    pub expired: u64,
}

type ChangedPartitions = BTreeMap<TopicPartition, PartitionState>;

/// Number of rows that one statement deletes.
const DELETE_ROWS: usize = 500;

/// Deletes the records that compaction and retention allow at `now`.
pub(super) async fn compact(
    connection: &mut SqliteConnection,
    state: &LogState,
    now: Timestamp,
) -> Result<(CompactionReport, ChangedPartitions), LogError> {
    let (mut report, mut changed) = (CompactionReport::default(), ChangedPartitions::new());
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
                    report.expired += advance_start(connection, number, partition, start).await?;
                    changed.insert(at, PartitionState { start, ..partition });
                }
            }
        }
    }
    Ok((report, changed))
}

/// Compacts one partition. `lag` and `null_horizon` are timestamps in milliseconds: records after `lag` stay, and null
/// values after `null_horizon` stay.
async fn compact_partition(
    connection: &mut SqliteConnection,
    partition: PartitionState,
    number: u32,
    lag: i64,
    null_horizon: i64,
    report: &mut CompactionReport,
) -> Result<(), LogError> {
    // The query returns the newest record first, so a key that was seen before is superseded. Timestamps never decrease
    // within a partition, so the records younger than the lag are its end, which the query omits.
    let rows: Vec<(i64, i64, Option<Vec<u8>>, bool)> = sqlx::query_as(
        "SELECT id, timestamp, key, value IS NULL FROM record WHERE id >= $1 AND id < $2 AND timestamp <= $3 ORDER BY id DESC",
    )
    .bind(row_id(partition.topic_id, number, 0))
    .bind(row_id(partition.topic_id, number, partition.next))
    .bind(lag)
    .fetch_all(&mut *connection)
    .await?;
    let mut seen = HashSet::new();
    let mut deletable = Vec::new();
    for (id, timestamp, key, null) in rows {
        // A record without a key is poison. It is kept for the investigation.
        let Some(key) = key else { continue };
        if !seen.insert(key) {
            report.superseded += 1;
            deletable.push(id);
        } else if null && timestamp <= null_horizon {
            report.nulls += 1;
            deletable.push(id);
        }
    }
    // One transaction: if a null value were deleted before the values that it erases, a crash would bring them back.
    let mut tx = connection.begin().await?;
    for chunk in deletable.chunks(DELETE_ROWS) {
        let mut delete = sqlx::QueryBuilder::new("DELETE FROM record WHERE id IN (");
        let mut ids = delete.separated(", ");
        chunk.iter().for_each(|id| {
            ids.push_bind(*id);
        });
        delete.push(")").build().execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}

/// Deletes the records below these offsets. Returns the changed partitions.
pub(super) async fn delete_below(
    connection: &mut SqliteConnection,
    state: &LogState,
    before: &Positions,
) -> Result<ChangedPartitions, LogError> {
    let mut changed = ChangedPartitions::new();
    for (at, next) in before.iter() {
        let partition = state.partition(at)?;
        let start = next.min(partition.next).max(partition.start);
        advance_start(connection, at.partition, partition, start).await?;
        changed.insert(at.clone(), PartitionState { start, ..partition });
    }
    Ok(changed)
}

/// Advances a partition's first offset to `start`, and deletes the records below it. Returns their number.
async fn advance_start(
    connection: &mut SqliteConnection,
    number: u32,
    partition: PartitionState,
    start: u64,
) -> Result<u64, LogError> {
    let mut tx = connection.begin().await?;
    sqlx::query("UPDATE partition SET start = $3 WHERE topic = $1 AND partition = $2")
        .bind(partition.topic_id)
        .bind(i64::from(number))
        .bind(start as i64)
        .execute(&mut *tx)
        .await?;
    let deleted = sqlx::query("DELETE FROM record WHERE id >= $1 AND id < $2")
        .bind(row_id(partition.topic_id, number, 0))
        .bind(row_id(partition.topic_id, number, start))
        .execute(&mut *tx)
        .await?
        .rows_affected();
    tx.commit().await?;
    Ok(deleted)
}

//! Writes the rows of an append.

use std::collections::BTreeMap;

use bytes::Bytes;
use carbon_core::{Position, Timestamp, TopicPartition};
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::recent::RecentRecords;
use super::state::{LogState, PackedRecord, PartitionState};
use super::{headers, offset_of};
use crate::error::LogError;
use crate::record::Record;

/// Maximum number of records in a commit that is one call to SQLite. Each call to the connection's thread costs more
/// than the statements themselves.
pub(super) const MAX_ONE_CALL_RECORDS: usize = 16;

/// Number of rows that one statement inserts.
const INSERT_ROWS: usize = 500;

/// Row id, timestamp (ms) and record.
pub(super) type Row = (i64, i64, PackedRecord);

/// Commits a small append: the whole transaction is one call to SQLite. After an error the caller must close the
/// connection, which rolls the transaction back.
pub(super) async fn commit_in_one_call(
    connection: &mut SqliteConnection,
    rows: &[Row],
    changed: &BTreeMap<TopicPartition, PartitionState>,
) -> Result<(), LogError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut all = QueryBuilder::new("BEGIN IMMEDIATE; ");
    push_records(&mut all, rows);
    all.push("; ");
    push_partitions(&mut all, changed);
    all.push("; COMMIT");
    Ok(all.build().execute(connection).await.map(drop)?)
}

fn push_records(insert: &mut QueryBuilder<Sqlite>, rows: &[Row]) {
    insert.push("INSERT INTO record (id, timestamp, key, value, headers) ");
    insert.push_values(rows, |mut row, (id, timestamp, record)| {
        row.push_bind(*id)
            .push_bind(*timestamp)
            .push_bind(record.key.as_deref())
            .push_bind(record.value.as_deref())
            .push_bind(record.headers.as_slice());
    });
}

/// Inserts records.
pub(super) async fn insert(tx: &mut Transaction<'_, Sqlite>, rows: &[Row]) -> Result<(), LogError> {
    for chunk in rows.chunks(INSERT_ROWS) {
        let mut insert = QueryBuilder::new("");
        push_records(&mut insert, chunk);
        insert.build().persistent(chunk.len() == INSERT_ROWS || chunk.len() < 8).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Puts appended records into the cache.
pub(super) fn cache_appended(recent: &mut RecentRecords, rows: Vec<Row>) {
    for (id, timestamp, PackedRecord { at, key, value, headers }) in rows {
        let Ok(headers) = headers::unpack(&headers) else { return recent.clear() };
        let position = Position::new(at.topic, at.partition, offset_of(id));
        let (key, value) = (key.map(Bytes::from), value.map(Bytes::from));
        recent.push(Record { position, timestamp: Timestamp(timestamp), key, value, headers });
    }
}

fn push_partitions(update: &mut QueryBuilder<Sqlite>, changed: &BTreeMap<TopicPartition, PartitionState>) {
    update.push("INSERT INTO partition (topic, partition, start, next, timestamp) ");
    update.push_values(changed, |mut row, (at, partition)| {
        row.push_bind(partition.topic_id)
            .push_bind(i64::from(at.partition))
            .push_bind(partition.start as i64)
            .push_bind(partition.next as i64)
            .push_bind(partition.timestamp);
    });
    update.push(" ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next, timestamp = excluded.timestamp");
}

/// Writes the end offsets and timestamps of partitions.
pub(super) async fn store_partitions(
    tx: &mut Transaction<'_, Sqlite>,
    changed: &BTreeMap<TopicPartition, PartitionState>,
) -> Result<(), LogError> {
    if changed.is_empty() {
        return Ok(());
    }
    let mut update = QueryBuilder::new("");
    push_partitions(&mut update, changed);
    update.build().execute(&mut **tx).await?;
    Ok(())
}

/// Writes the committed offsets of groups.
pub(super) async fn store_offsets(
    tx: &mut Transaction<'_, Sqlite>,
    state: &LogState,
    advances: &BTreeMap<(String, TopicPartition), u64>,
) -> Result<(), LogError> {
    if advances.is_empty() {
        return Ok(());
    }
    let mut rows = Vec::with_capacity(advances.len());
    for ((group, at), next) in advances {
        rows.push((group, state.partition(at)?.topic_id, at.partition, *next));
    }
    let mut update = QueryBuilder::new("INSERT INTO group_offset (grp, topic, partition, next) ");
    update.push_values(rows, |mut row, (group, topic, partition, next)| {
        row.push_bind(group).push_bind(topic).push_bind(i64::from(partition)).push_bind(next as i64);
    });
    update.push(" ON CONFLICT (grp, topic, partition) DO UPDATE SET next = excluded.next");
    update.build().execute(&mut **tx).await?;
    Ok(())
}

//! The rows that an append writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use carbon_core::{Position, Timestamp, TopicPartition};
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::state::{Partition, Placed, State};
use super::tail::Tail;
use super::{headers, offset_of};
use crate::error::LogError;
use crate::record::Record;

/// So many records are written in one turn of the connection's thread, which costs more than the statements.
pub(super) const AT_ONCE: usize = 16;

/// A record with its row id and its time.
pub(super) type Row = (i64, i64, Placed);

/// A small append: the whole transaction as one text. After an error the connection must be closed.
pub(super) async fn at_once(
    connection: &mut SqliteConnection,
    rows: &[Row],
    changed: &BTreeMap<TopicPartition, Partition>,
) -> Result<(), LogError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut all = QueryBuilder::new("BEGIN IMMEDIATE; ");
    push_records(&mut all, rows);
    all.push("; ");
    push_partitions(&mut all, changed);
    all.push("; COMMIT");
    // After a failure the connection is closed, and with it goes the transaction.
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

pub(super) async fn insert(tx: &mut Transaction<'_, Sqlite>, rows: &[Row]) -> Result<(), LogError> {
    for chunk in rows.chunks(500) {
        let mut insert = QueryBuilder::new("");
        push_records(&mut insert, chunk);
        insert.build().persistent(chunk.len() == 500 || chunk.len() < 8).execute(&mut **tx).await?;
    }
    Ok(())
}

/// What was appended, for those who read at the end.
pub(super) fn keep(tail: &mut Tail, rows: Vec<Row>) {
    for (id, timestamp, Placed { at, key, value, headers }) in rows {
        let Ok(headers) = headers::unpack(&headers) else { return tail.clear() };
        let position = Position::new(at.topic, at.partition, offset_of(id));
        let (key, value) = (key.map(Bytes::from), value.map(Bytes::from));
        tail.push(Record { position, timestamp: Timestamp(timestamp), key, value, headers });
    }
}

fn push_partitions(update: &mut QueryBuilder<Sqlite>, changed: &BTreeMap<TopicPartition, Partition>) {
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

pub(super) async fn store_partitions(
    tx: &mut Transaction<'_, Sqlite>,
    changed: &BTreeMap<TopicPartition, Partition>,
) -> Result<(), LogError> {
    if changed.is_empty() {
        return Ok(());
    }
    let mut update = QueryBuilder::new("");
    push_partitions(&mut update, changed);
    update.build().execute(&mut **tx).await?;
    Ok(())
}

pub(super) async fn store_offsets(
    tx: &mut Transaction<'_, Sqlite>,
    state: &State,
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

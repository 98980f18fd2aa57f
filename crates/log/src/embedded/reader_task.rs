//! Reader tasks: one per subscription or follower. Appends notify them in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use carbon_core::{Position, Positions, Timestamp, TopicPartition};
use sqlx::Row;
use sqlx::sqlite::SqlitePool;
use tokio::sync::{mpsc, oneshot, watch};

use super::group_commit::positions_of_rows;
use super::health::Access;
use super::state::{LogState, PartitionState};
use super::{headers, offset_of, row_id};
use crate::error::LogError;
use crate::event_log::Group;
use crate::record::Record;
use crate::stream::{Delivery, RecordStream};

/// Maximum number of records in one delivery.
const MAX_DELIVERY_RECORDS: usize = 1000;
/// Size of the keys and values at which a delivery is sent: 4 MiB.
const MAX_DELIVERY_BYTES: usize = 4 * 1024 * 1024;

/// Number of deliveries that a stream buffers.
const BUFFERED_DELIVERIES: usize = 2;

type Sender = mpsc::Sender<Result<Delivery, LogError>>;

/// Records of a partition, and the offset to read next.
pub(super) struct Fetched {
    pub records: Vec<Record>,
    pub next: u64,
}

/// Reads `[from, end)` of a partition, at most `max` records or about [`MAX_DELIVERY_BYTES`].
pub(super) async fn fetch(
    readers: &SqlitePool,
    at: &TopicPartition,
    topic_id: i64,
    from: u64,
    end: u64,
    max: usize,
) -> Result<Fetched, LogError> {
    use futures::TryStreamExt as _;
    let mut rows = sqlx::query(
        "SELECT id, timestamp, key, value, headers FROM record WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3",
    )
    .bind(row_id(topic_id, at.partition, from))
    .bind(row_id(topic_id, at.partition, end.max(from)))
    .bind(max as i64)
    .fetch(readers);
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let offset = offset_of(row.try_get(0)?);
        let key: Option<Vec<u8>> = row.try_get(2)?;
        let value: Option<Vec<u8>> = row.try_get(3)?;
        let record = Record {
            position: Position::new(at.topic.clone(), at.partition, offset),
            timestamp: Timestamp(row.try_get(1)?),
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers: headers::unpack(row.try_get(4)?)?,
        };
        bytes += record.bytes();
        records.push(record);
        if bytes >= MAX_DELIVERY_BYTES {
            return Ok(Fetched { next: offset + 1, records });
        }
    }
    // Fewer than `max` records: the end is reached. Missing offsets were compacted.
    let next = match records.last() {
        Some(last) if records.len() == max => last.position.offset + 1,
        _ => end.max(from),
    };
    Ok(Fetched { records, next })
}

/// The committed offsets of a group.
pub(super) async fn committed(readers: &SqlitePool, state: &LogState, group: &Group) -> Result<Positions, LogError> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as("SELECT topic, partition, next FROM group_offset WHERE grp = $1")
        .bind(group.as_str())
        .fetch_all(readers)
        .await?;
    Ok(positions_of_rows(state, rows))
}

/// Joins a group. The new member owns all partitions. It starts when the previous member has acknowledged the
/// revocation, or was dropped.
pub(super) fn join(
    state: Arc<LogState>,
    readers: SqlitePool,
    group: Group,
    partitions: Vec<TopicPartition>,
) -> RecordStream {
    let (sender, deliveries) = mpsc::channel(BUFFERED_DELIVERIES);
    let (revoke, revoked) = watch::channel(false);
    let previous = state.members().insert(group.clone(), revoke);
    let reader = ReaderTask { state, readers, sender };
    tokio::spawn(reader.until_closed(async move |reader: &ReaderTask| {
        if let Some(previous) = previous {
            previous.send_replace(true);
            // The previous member drops its receiver when it has acknowledged.
            previous.closed().await;
            // The log may have been closed meanwhile.
            if reader.state.is_closed() {
                return Ok(());
            }
        }
        reader.run_member(&group, partitions, revoked).await
    }));
    RecordStream::new(deliveries)
}

/// Reads partitions continuously, without a group.
pub(super) fn follow(state: Arc<LogState>, readers: SqlitePool, from: Positions) -> RecordStream {
    let (sender, deliveries) = mpsc::channel(BUFFERED_DELIVERIES);
    let reader = ReaderTask { state, readers, sender };
    tokio::spawn(reader.until_closed(async move |reader: &ReaderTask| {
        let (_sender, revoked) = watch::channel(false);
        reader.deliver(from, revoked).await
    }));
    RecordStream::new(deliveries)
}

/// A task that reads partitions and sends deliveries.
struct ReaderTask {
    state: Arc<LogState>,
    readers: SqlitePool,
    sender: Sender,
}

impl ReaderTask {
    /// Runs a reader until it ends or the log is closed, which ends the stream.
    async fn until_closed(self, run: impl AsyncFnOnce(&ReaderTask) -> Result<(), LogError>) {
        let outcome = tokio::select! {
            biased;
            () = self.state.closed() => return,
            outcome = run(&self) => outcome,
        };
        if let Err(error) = outcome
            && !self.state.is_closed()
        {
            let _ = self.sender.send(Err(error)).await;
        }
    }

    /// Runs a group member: assignment, deliveries, revocation.
    async fn run_member(
        &self,
        group: &Group,
        partitions: Vec<TopicPartition>,
        revoked: watch::Receiver<bool>,
    ) -> Result<(), LogError> {
        let (start, answer) = oneshot::channel();
        if self.sender.send(Ok(Delivery::Assigned { partitions: partitions.clone(), start })).await.is_err() {
            return Ok(());
        }
        let Ok(start) = answer.await else { return Ok(()) };
        let committed = committed(&self.readers, &self.state, group).await;
        let committed = self.state.health.record_outcome(Access::Read, committed)?;
        let next = |at: &TopicPartition| start.get(at).unwrap_or_else(|| committed.next(at));
        let from = partitions.iter().map(|at| (at.clone(), next(at))).collect();
        self.deliver(from, revoked.clone()).await?;
        if *revoked.borrow() {
            let (done, acknowledged) = oneshot::channel();
            if self.sender.send(Ok(Delivery::Revoked { partitions, done })).await.is_ok() {
                let _ = acknowledged.await;
            }
        }
        Ok(())
    }

    /// Delivers until the member is revoked or the stream is dropped.
    async fn deliver(&self, mut next: Positions, mut revoked: watch::Receiver<bool>) -> Result<(), LogError> {
        let mut changes = self.state.changes();
        let mut ended = BTreeSet::new();
        loop {
            changes.borrow_and_update();
            let mut idle = true;
            let partitions: Vec<_> = next.iter().map(|(at, from)| (at.clone(), from)).collect();
            for (at, from) in partitions {
                if *revoked.borrow() {
                    return Ok(());
                }
                let partition = self.state.partition(&at)?;
                if from < partition.next {
                    ended.remove(&at);
                    let fetched = self.fetch_next(&at, partition, from).await?;
                    next.set(at.clone(), fetched.next);
                    idle = false;
                    if !fetched.records.is_empty() && !self.send(Delivery::Records(fetched.records)).await {
                        return Ok(());
                    }
                }
                let reached = next.next(&at);
                if reached >= self.state.partition(&at)?.next && ended.insert(at.clone()) {
                    idle = false;
                    if !self.send(Delivery::Ended { at, next: reached }).await {
                        return Ok(());
                    }
                }
            }
            if idle {
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return Ok(()) },
                    _ = revoked.wait_for(|revoked| *revoked) => return Ok(()),
                    () = self.sender.closed() => return Ok(()),
                }
            }
        }
    }

    /// The next records of a partition, from the cache if possible.
    async fn fetch_next(&self, at: &TopicPartition, partition: PartitionState, from: u64) -> Result<Fetched, LogError> {
        let cached = self.state.recent().read(at, from, partition.next, MAX_DELIVERY_RECORDS, MAX_DELIVERY_BYTES);
        match cached {
            Some(records) => {
                let next = records.last().map_or(from, |record| record.position.offset + 1);
                Ok(Fetched { records, next })
            }
            None => {
                let fetched =
                    fetch(&self.readers, at, partition.topic_id, from, partition.next, MAX_DELIVERY_RECORDS).await;
                self.state.health.record_outcome(Access::Read, fetched)
            }
        }
    }

    /// Sends a delivery. False if the stream was dropped.
    async fn send(&self, delivery: Delivery) -> bool {
        self.sender.send(Ok(delivery)).await.is_ok()
    }
}

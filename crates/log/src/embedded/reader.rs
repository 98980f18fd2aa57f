//! Readers: one task a subscription, woken in memory when something was appended.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use carbon_core::{Position, Positions, Timestamp, TopicPartition};
use sqlx::Row;
use sqlx::sqlite::SqlitePool;
use tokio::sync::{mpsc, oneshot, watch};

use super::batch::name_offsets;
use super::health::Access;
use super::state::{Partition, State};
use super::{headers, offset_of, row_id};
use crate::error::LogError;
use crate::event_log::Group;
use crate::record::Record;
use crate::stream::{Delivery, RecordStream};

/// What one delivery holds at the most.
const BATCH_RECORDS: usize = 1000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

type Sender = mpsc::Sender<Result<Delivery, LogError>>;

/// Records of a partition, and the offset to read on from.
pub(super) struct Fetched {
    pub records: Vec<Record>,
    pub next: u64,
}

/// Reads `[from, end)` of a partition, at most `max` records or [`BATCH_BYTES`].
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
        if bytes >= BATCH_BYTES {
            return Ok(Fetched { next: offset + 1, records });
        }
    }
    // Fewer than asked for: what lies between is compacted away, and the end is reached.
    let next = match records.last() {
        Some(last) if records.len() == max => last.position.offset + 1,
        _ => end.max(from),
    };
    Ok(Fetched { records, next })
}

pub(super) async fn committed(readers: &SqlitePool, state: &State, group: &Group) -> Result<Positions, LogError> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as("SELECT topic, partition, next FROM group_offset WHERE grp = $1")
        .bind(group.as_str())
        .fetch_all(readers)
        .await?;
    Ok(name_offsets(state, rows))
}

/// Joins a group: the member before it is revoked first, and has acknowledged or gone.
pub(super) fn join(
    state: Arc<State>,
    readers: SqlitePool,
    group: Group,
    partitions: Vec<TopicPartition>,
) -> RecordStream {
    let (sender, deliveries) = mpsc::channel(2);
    let (revoke, revoked) = watch::channel(false);
    let before = state.members().insert(group.clone(), revoke);
    let reader = Reader { state, readers, sender };
    tokio::spawn(reader.until_closed(async move |reader: &Reader| {
        if let Some(before) = before {
            before.send_replace(true);
            // The other member drops its receiver when it has acknowledged.
            before.closed().await;
            // Or the log was closed over both.
            if reader.state.is_closed() {
                return Ok(());
            }
        }
        reader.run_member(&group, partitions, revoked).await
    }));
    RecordStream::new(deliveries)
}

/// Reads on without a group.
pub(super) fn follow(state: Arc<State>, readers: SqlitePool, from: Positions) -> RecordStream {
    let (sender, deliveries) = mpsc::channel(2);
    let reader = Reader { state, readers, sender };
    tokio::spawn(reader.until_closed(async move |reader: &Reader| {
        let (_keep, revoked) = watch::channel(false);
        reader.deliver(from, revoked).await
    }));
    RecordStream::new(deliveries)
}

struct Reader {
    state: Arc<State>,
    readers: SqlitePool,
    sender: Sender,
}

impl Reader {
    /// Runs a reader; whatever it waits for, the close of the log ends its stream.
    async fn until_closed(self, run: impl AsyncFnOnce(&Reader) -> Result<(), LogError>) {
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
        let known = committed(&self.readers, &self.state, group).await;
        let known = self.state.health.note(Access::Read, known)?;
        let next = |at: &TopicPartition| start.get(at).unwrap_or_else(|| known.next(at));
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
                    let fetched = self.next_of(&at, partition, from).await?;
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
                    _ = revoked.wait_for(|gone| *gone) => return Ok(()),
                    () = self.sender.closed() => return Ok(()),
                }
            }
        }
    }

    /// From memory where it is there.
    async fn next_of(&self, at: &TopicPartition, partition: Partition, from: u64) -> Result<Fetched, LogError> {
        let tail = self.state.tail().read(at, from, partition.next, BATCH_RECORDS, BATCH_BYTES);
        match tail {
            Some(records) => {
                let next = records.last().map_or(from, |record| record.position.offset + 1);
                Ok(Fetched { records, next })
            }
            None => {
                let fetched = fetch(&self.readers, at, partition.topic_id, from, partition.next, BATCH_RECORDS).await;
                self.state.health.note(Access::Read, fetched)
            }
        }
    }

    async fn send(&self, delivery: Delivery) -> bool {
        self.sender.send(Ok(delivery)).await.is_ok()
    }
}

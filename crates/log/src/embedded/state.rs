//! The in-memory state of the embedded log: topics, partition offsets, group members, and the cache of recent records.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use carbon_core::{Cleanup, Partitioner, Positions, Retention, TopicName, TopicPartition, TopicSpec};
use carbon_schemas::{SchemaId, frame};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use tokio::sync::watch;

use super::headers;
use super::health::Health;
use super::recent::RecentRecords;
use super::text;
use crate::error::LogError;
use crate::event_log::{Group, TopicDescription};
use crate::record::{NewRecord, Value};
use crate::topics::cleanup_name;
use crate::validate;

/// A topic and its row id.
#[derive(Clone, Debug)]
pub(super) struct StoredTopic {
    pub id: i64,
    pub spec: TopicSpec,
}

/// The offsets of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartitionState {
    pub topic_id: i64,
    /// The first offset. Records below it were deleted.
    pub start: u64,
    /// The end offset.
    pub next: u64,
    /// The timestamp of the last record, in milliseconds.
    pub timestamp: i64,
}

/// A valid record with its partition, framed value and encoded headers.
#[derive(Debug)]
pub(super) struct PackedRecord {
    pub at: TopicPartition,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<u8>,
}

/// Owns the in-memory state of the log. The writer task changes it, readers read it.
pub(super) struct LogState {
    topics: RwLock<BTreeMap<TopicName, StoredTopic>>,
    partitions: RwLock<BTreeMap<TopicPartition, PartitionState>>,
    /// The current member of each group. `true` revokes the member.
    pub members: Mutex<HashMap<Group, watch::Sender<bool>>>,
    /// Notifies the readers. The value counts the changes.
    changes: watch::Sender<u64>,
    closed: watch::Sender<bool>,
    recent: Mutex<RecentRecords>,
    pub health: Health,
}

// A panic while a lock is held leaves the maps consistent: each change is one insert. So poisoned locks are used.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl LogState {
    /// Loads the state from the file.
    pub async fn load(connection: &mut SqliteConnection, health: Health) -> Result<Self, LogError> {
        let state = Self {
            topics: RwLock::default(),
            partitions: RwLock::default(),
            members: Mutex::default(),
            changes: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            recent: Mutex::default(),
            health,
        };
        state.read(connection).await?;
        Ok(state)
    }

    /// Loads the state again after a failed write: the file may contain records that were not acknowledged.
    pub async fn reload(&self, connection: &mut SqliteConnection) -> Result<(), LogError> {
        self.read(connection).await?;
        self.recent().clear();
        self.publish([]);
        Ok(())
    }

    async fn read(&self, connection: &mut SqliteConnection) -> Result<(), LogError> {
        let rows = sqlx::query(
            "SELECT id, name, partitions, cleanup, partitioner, retention_ms, min_compaction_lag_ms, \
             delete_retention_ms FROM topic",
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut names = HashMap::new();
        for row in &rows {
            let topic = read_topic(row)?;
            names.insert(topic.id, topic.spec.name.clone());
            write(&self.topics).insert(topic.spec.name.clone(), topic);
        }
        let rows = sqlx::query("SELECT topic, partition, start, next, timestamp FROM partition")
            .fetch_all(&mut *connection)
            .await?;
        for row in &rows {
            let (topic_id, partition): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let (start, next): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
            let Some(name) = names.get(&topic_id) else {
                return Err(LogError::Corrupt(format!("partition {partition} of unknown topic {topic_id}")));
            };
            let found = PartitionState { topic_id, start: start as u64, next: next as u64, timestamp: row.try_get(4)? };
            write(&self.partitions).insert(TopicPartition::new(name.clone(), partition as u32), found);
        }
        Ok(())
    }

    /// The topic with this name.
    pub fn topic(&self, name: &TopicName) -> Result<StoredTopic, LogError> {
        read(&self.topics).get(name).cloned().ok_or_else(|| LogError::UnknownTopic(name.clone()))
    }

    /// All topics.
    pub fn topics(&self) -> Vec<StoredTopic> {
        read(&self.topics).values().cloned().collect()
    }

    /// Adds a topic with empty partitions, or replaces its spec.
    pub fn put_topic(&self, topic: StoredTopic, partitions: impl Iterator<Item = u32>) {
        for partition in partitions {
            let at = TopicPartition::new(topic.spec.name.clone(), partition);
            let empty = PartitionState { topic_id: topic.id, start: 0, next: 0, timestamp: 0 };
            write(&self.partitions).entry(at).or_insert(empty);
        }
        write(&self.topics).insert(topic.spec.name.clone(), topic);
    }

    /// The offsets of a partition. Fails if the topic or the partition does not exist.
    pub fn partition(&self, at: &TopicPartition) -> Result<PartitionState, LogError> {
        if let Some(found) = read(&self.partitions).get(at) {
            return Ok(*found);
        }
        let partitions = self.topic(&at.topic)?.spec.partitions;
        Err(LogError::NoPartition { topic: at.topic.clone(), partition: at.partition, partitions })
    }

    /// Fails if one of these partitions does not exist. Partitions are never deleted, so the writer task, which commits
    /// many requests at once, need not check again.
    pub fn check(&self, positions: &Positions) -> Result<(), LogError> {
        positions.iter().try_for_each(|(at, _)| self.partition(at).map(drop))
    }

    /// The end offsets of all partitions.
    pub fn ends(&self) -> Positions {
        read(&self.partitions).iter().map(|(at, partition)| (at.clone(), partition.next)).collect()
    }

    /// All topics with their offsets.
    pub fn describe(&self) -> Vec<TopicDescription> {
        let partitions = read(&self.partitions);
        let describe = |topic: StoredTopic| {
            let own = || partitions.iter().filter(|(at, _)| at.topic == topic.spec.name);
            let starts = own().map(|(at, partition)| (at.clone(), partition.start)).collect();
            let ends = own().map(|(at, partition)| (at.clone(), partition.next)).collect();
            TopicDescription { starts, ends, spec: topic.spec }
        };
        self.topics().into_iter().map(describe).collect()
    }

    /// Makes committed changes visible, and notifies the readers.
    pub fn publish(&self, changed: impl IntoIterator<Item = (TopicPartition, PartitionState)>) {
        write(&self.partitions).extend(changed);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Notifies the caller of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until the log is closed.
    pub async fn closed(&self) {
        // The sender lives as long as `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Ends all readers.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// The cache of recent records.
    pub fn recent(&self) -> MutexGuard<'_, RecentRecords> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current member of each group.
    pub fn members(&self) -> MutexGuard<'_, HashMap<Group, watch::Sender<bool>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Validates records, and assigns each its partition and frame. Fails as a whole if one record is not valid.
    pub fn validate(&self, records: Vec<NewRecord>) -> Result<Vec<PackedRecord>, LogError> {
        records.into_iter().map(|record| self.validate_one(record)).collect()
    }

    fn validate_one(&self, record: NewRecord) -> Result<PackedRecord, LogError> {
        let spec = self.topic(&record.topic)?.spec;
        let partition = validate::partition(&record, spec.partitioner, spec.partitions)?;
        let value = match record.value {
            Value::Null => None,
            Value::Body { schema, avro } => Some(frame(SchemaId::Fingerprint(schema), &avro)),
            Value::Raw(bytes) => Some(bytes),
        };
        let headers = headers::pack(&record.headers);
        validate::check_size(&record.topic, record.key.as_deref(), value.as_deref(), headers.len())?;
        Ok(PackedRecord { at: TopicPartition::new(record.topic, partition), key: record.key, value, headers })
    }
}

fn read_topic(row: &SqliteRow) -> Result<StoredTopic, LogError> {
    let corrupt = |what: &str| LogError::Corrupt(format!("topic: unknown {what}"));
    let name = TopicName::parse(text(row, 1)?).map_err(|error| LogError::Corrupt(error.to_string()))?;
    let partitions: i64 = row.try_get(2)?;
    let cleanup = cleanup_of(text(row, 3)?).ok_or_else(|| corrupt("cleanup"))?;
    let partitioner = match text(row, 4)? {
        "murmur2" => Partitioner::Murmur2,
        "crc32" => Partitioner::Crc32,
        _ => return Err(corrupt("partitioner")),
    };
    let retention = Retention {
        retention_ms: row.try_get(5)?,
        min_compaction_lag_ms: row.try_get(6)?,
        delete_retention_ms: row.try_get(7)?,
    };
    let spec = TopicSpec { name, partitions: partitions as u32, cleanup, partitioner, retention };
    Ok(StoredTopic { id: row.try_get(0)?, spec })
}

fn cleanup_of(name: &str) -> Option<Cleanup> {
    [Cleanup::Keep, Cleanup::Compact, Cleanup::Delete].into_iter().find(|cleanup| cleanup_name(*cleanup) == name)
}

//! The trait [`EventLog`], and its types for groups, topics and checkpoints.

use std::fmt;

use async_trait::async_trait;
use carbon_core::{Position, Positions, Timestamp, TopicName, TopicPartition, TopicSpec};
use carbon_schemas::SchemaId;

use crate::error::LogError;
use crate::record::{NewRecord, Record};
use crate::stream::RecordStream;

/// The name of a consumer group: `carbon.<processor>.<generation or model>[.<instance>]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(String);

impl Group {
    /// The group of a processor for one generation or model. All processes share it.
    pub fn new(processor: &str, of: impl fmt::Display) -> Self {
        Self(format!("carbon.{processor}.{of}"))
    }

    /// The group of one process. Used by processes that hold a full copy of a read model, so each reads all partitions.
    pub fn of_instance(processor: &str, of: impl fmt::Display, instance: impl fmt::Display) -> Self {
        Self(format!("carbon.{processor}.{of}.{instance}"))
    }

    /// Parses a group name that the log returned. `None` if the group does not belong to a processor.
    pub fn parse(name: &str) -> Option<Self> {
        let (processor, of) = name.strip_prefix("carbon.")?.split_once('.')?;
        (!processor.is_empty() && !of.is_empty()).then(|| Self(name.to_owned()))
    }

    /// The name of the processor.
    pub fn processor(&self) -> &str {
        self.0.split('.').nth(1).unwrap_or_default()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A group's members and committed offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub group: Group,
    /// Number of current members, in all processes.
    pub members: usize,
    /// The committed offsets.
    pub positions: Positions,
}

/// The reason why a checkpoint belongs to another log (law 4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// The checkpoint names a log identity that this log never had.
    #[error("the checkpoint belongs to log {checkpoint}, which is not an identity of this log")]
    UnknownOpening { checkpoint: String },
    /// The checkpoint is beyond the end that the log had when it was opened next.
    #[error("the checkpoint is at {at}:{next}, but the log ended at {end} when it was opened next")]
    PastEnd { at: TopicPartition, next: u64, end: u64 },
}

/// A topic of the log, with its offsets.
#[derive(Clone, Debug)]
pub struct TopicDescription {
    pub spec: TopicSpec,
    /// The first offset of each partition. Records below it were deleted.
    pub starts: Positions,
    /// The end offset of each partition.
    pub ends: Positions,
}

/// An event log. All implementations pass `tests/conformance.rs`.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Appends records, and returns their positions when all are durable. Fails before the first append if one record
    /// is not valid. If only some were accepted, [`LogError::Partial`] names them.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError>;

    /// Appends a stage's outputs, and commits its input offsets from `from` to `upto`, in one transaction (law 5). Only
    /// the partitions of `upto` move. Fails with [`LogError::Fenced`] if another member has moved one of them.
    async fn append_and_advance(
        &self,
        group: &Group,
        records: Vec<NewRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<Position>, LogError>;

    /// Joins `group`, and reads the partitions that the group assigns. A later member gets all of them or a share.
    async fn subscribe(&self, group: &Group, topics: &[TopicName]) -> Result<RecordStream, LogError>;

    /// Reads the partitions of `from` continuously, without a group.
    async fn follow(&self, from: &Positions) -> Result<RecordStream, LogError>;

    /// Reads up to `max` records of a partition, from offset `from` on. Does not wait for new records.
    async fn read(&self, at: &TopicPartition, from: u64, max: usize) -> Result<Vec<Record>, LogError>;

    /// Commits a group's offsets. For a sink they are only advisory (law 4).
    async fn commit(&self, group: &Group, positions: &Positions) -> Result<(), LogError>;
    /// The group's committed offsets.
    async fn committed(&self, group: &Group) -> Result<Positions, LogError>;
    /// The groups that have members or committed offsets.
    async fn groups(&self) -> Result<Vec<GroupDescription>, LogError>;

    /// The end offset of each partition of a topic.
    async fn ends(&self, topic: &TopicName) -> Result<Positions, LogError>;
    /// The first offset of each partition whose record is not older than `time`, or the end offset if all are older.
    async fn positions_for_time(&self, topic: &TopicName, time: Timestamp) -> Result<Positions, LogError>;

    /// Creates the missing topics, and changes the retention of the others. Fails before the first change with
    /// [`LogError::TopicDiffers`] if partitions, partitioner or cleanup differ.
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError>;
    /// All topics that hold events.
    async fn describe(&self) -> Result<Vec<TopicDescription>, LogError>;
    /// Deletes the records below these offsets.
    async fn delete_records(&self, before: &Positions) -> Result<(), LogError>;

    /// Stores a writer's schema (Avro JSON) of an event for later readers.
    async fn put_schema(&self, event: &str, json: &str) -> Result<SchemaId, LogError>;
    /// The schema with this id; `None` if the log does not have it.
    async fn schema(&self, id: SchemaId) -> Result<Option<String>, LogError>;

    /// The identity of this log, which checkpoints store: the cluster id, or the id of the embedded log's opening.
    fn identity(&self) -> &str;
    /// `None` if a checkpoint that stores the identity `log` belongs to this log, else the reason why not.
    async fn recognise(&self, log: &str, positions: &Positions) -> Result<Option<Foreign>, LogError>;

    /// Fails if the log does not work right now. Cheap enough to be called every second.
    async fn check(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// Size on disk in bytes; `None` if unknown.
    async fn size(&self) -> Result<Option<u64>, LogError>;
    /// Rejects new records, waits until all accepted records are durable, and ends all streams.
    async fn close(&self);
}

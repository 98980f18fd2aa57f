//! The trait of the log.

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
    pub fn new(processor: &str, of: impl fmt::Display) -> Self {
        Self(format!("carbon.{processor}.{of}"))
    }

    /// A group of one instance: each process that holds a full copy reads everything.
    pub fn of_instance(processor: &str, of: impl fmt::Display, instance: impl fmt::Display) -> Self {
        Self(format!("carbon.{processor}.{of}.{instance}"))
    }

    /// A name that was told by the log; `None` where the group is no processor's.
    pub fn parse(name: &str) -> Option<Self> {
        let (processor, of) = name.strip_prefix("carbon.")?.split_once('.')?;
        (!processor.is_empty() && !of.is_empty()).then(|| Self(name.to_owned()))
    }

    /// The processor in the name.
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

/// A group as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub group: Group,
    /// How many members read at present, in all processes.
    pub members: usize,
    /// What was committed.
    pub positions: Positions,
}

/// Why a checkpoint is not of this log (law 4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    #[error("it moved under the log {checkpoint}, which this log does not know")]
    UnknownOpening { checkpoint: String },
    #[error("it stands at {at}:{next}, the log ended at {end} when it was next opened")]
    PastEnd { at: TopicPartition, next: u64, end: u64 },
}

/// A topic as it is.
#[derive(Clone, Debug)]
pub struct TopicDescription {
    pub spec: TopicSpec,
    /// The first offset still there, partition by partition.
    pub starts: Positions,
    pub ends: Positions,
}

/// The log. Every implementation passes `tests/conformance.rs`.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Appends; returns when the records are durable. A failure midway says which were accepted
    /// ([`LogError::Partial`]).
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError>;

    /// Appends a stage's outputs and moves its input position from `from` to `upto`, as one (law 5). Only
    /// the partitions of `upto` move; [`LogError::Fenced`] where another member has moved one of them.
    async fn append_and_advance(
        &self,
        group: &Group,
        records: Vec<NewRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<Position>, LogError>;

    /// Joins `group`. A member that comes later takes the partitions over.
    async fn subscribe(&self, group: &Group, topics: &[TopicName]) -> Result<RecordStream, LogError>;

    /// Reads on from `from` without a group; only the partitions of `from` are read.
    async fn follow(&self, from: &Positions) -> Result<RecordStream, LogError>;

    /// Reads up to `max` records of one partition from an offset on, without waiting.
    async fn read(&self, at: &TopicPartition, from: u64, max: usize) -> Result<Vec<Record>, LogError>;

    /// Commits a group's offsets: for sinks only advice (law 4).
    async fn commit(&self, group: &Group, positions: &Positions) -> Result<(), LogError>;
    async fn committed(&self, group: &Group) -> Result<Positions, LogError>;
    /// The groups that have members, or have committed something.
    async fn groups(&self) -> Result<Vec<GroupDescription>, LogError>;

    /// The next offset of each partition of a topic.
    async fn ends(&self, topic: &TopicName) -> Result<Positions, LogError>;
    /// The first offset of each partition whose record is not older than `time`.
    async fn positions_for_time(&self, topic: &TopicName, time: Timestamp) -> Result<Positions, LogError>;

    /// Makes the topics that are missing; refuses one that differs where a difference would lose records.
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError>;
    async fn describe(&self) -> Result<Vec<TopicDescription>, LogError>;
    /// Removes the records below these offsets.
    async fn delete_records(&self, before: &Positions) -> Result<(), LogError>;

    /// Keeps a writer's schema for readers to come.
    async fn put_schema(&self, event: &str, json: &str) -> Result<SchemaId, LogError>;
    /// The writer's schema; `None` where the log itself does not know it.
    async fn schema(&self, id: SchemaId) -> Result<Option<String>, LogError>;

    /// What a checkpoint names its log by.
    fn identity(&self) -> &str;
    /// Whether a checkpoint that moved under `log` is of this log; why not, if not.
    async fn recognise(&self, log: &str, positions: &Positions) -> Result<Option<Foreign>, LogError>;

    /// Whether the log works right now, and why not. Cheap enough to be asked every second.
    async fn check(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// Bytes on disk, where they can be told.
    async fn size(&self) -> Result<Option<u64>, LogError>;
    /// Takes no more records and ends the streams, after what was accepted is durable.
    async fn close(&self);
}

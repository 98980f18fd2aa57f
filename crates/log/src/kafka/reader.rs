//! Reading a range of one partition, without a group.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carbon_core::{Position, Timestamp, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio_util::sync::CancellationToken;

use super::client::{
    REQUEST_TIMEOUT, TracingContext, blocking, kafka_offset, lock, partition_number, topic_error, topic_partition,
    unavailable,
};
use super::metadata::MetadataClient;
use super::options::KafkaOptions;
use crate::error::LogError;
use crate::record::Record;

/// Maximum number of idle clients in the pool.
const MAX_IDLE: usize = 4;

/// How long one poll waits for a record.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Copies a message into a [`Record`]. `None` if the name of its topic is not valid here.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Option<Record> {
    let at = topic_partition(message.topic(), message.partition())?;
    let offset = u64::try_from(message.offset()).ok()?;
    let timestamp = message.timestamp().to_millis().unwrap_or_default();
    Some(Record {
        position: Position::new(at.topic, at.partition, offset),
        timestamp: Timestamp(timestamp),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: headers(message),
    })
}

/// The headers of a message. A header whose name is not UTF-8 is omitted: carbon-ml does not use such names, but any
/// producer can send one, and rdkafka panics on it.
fn headers(message: &BorrowedMessage<'_>) -> Vec<(String, Vec<u8>)> {
    let Some(headers) = message.headers() else { return Vec::new() };
    let header = |index| {
        let header = catch_unwind(AssertUnwindSafe(|| headers.try_get(index)));
        let header = header.ok().flatten()?;
        Some((header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
    };
    (0..headers.count()).filter_map(header).collect()
}

/// Owns the idle clients that read ranges. A client is a consumer without a group that is assigned one partition at a
/// time.
pub(super) struct ReaderPool {
    options: Arc<KafkaOptions>,
    metadata: MetadataClient,
    idle: Mutex<Vec<BaseConsumer<TracingContext>>>,
    closed: CancellationToken,
}

impl ReaderPool {
    /// An empty pool. After `closed` is cancelled it keeps no client.
    pub fn new(options: Arc<KafkaOptions>, metadata: MetadataClient, closed: CancellationToken) -> Self {
        Self { options, metadata, idle: Mutex::default(), closed }
    }

    /// Reads up to `max` records of a partition, from offset `from` to the partition's current end.
    pub async fn read(&self, at: &TopicPartition, from: u64, max: usize) -> Result<Vec<Record>, LogError> {
        let end = self.metadata.end_offsets(std::slice::from_ref(at)).await?.next(at);
        self.read_below(at, from, end, max).await
    }

    /// The end offset of a partition, if there is no record from offset `from` on.
    pub async fn end_without_records(&self, at: &TopicPartition, from: u64) -> Result<Option<u64>, LogError> {
        let end = self.metadata.end_offsets(std::slice::from_ref(at)).await?.next(at);
        Ok(self.read_below(at, from, end, 1).await?.is_empty().then_some(end))
    }

    async fn read_below(&self, at: &TopicPartition, from: u64, end: u64, max: usize) -> Result<Vec<Record>, LogError> {
        if from >= end || max == 0 {
            return Ok(Vec::new());
        }
        let idle = lock(&self.idle).pop();
        let reader: BaseConsumer<TracingContext> = match idle {
            Some(reader) => reader,
            None => {
                let created = self.options.reader().create_with_context(TracingContext);
                created.map_err(|error| unavailable("creating a reader failed", &error))?
            }
        };
        let at = at.clone();
        let (reader, records) = blocking(move || {
            let records = read_range(&reader, &at, from, end, max)?;
            Ok((reader, records))
        })
        .await?;
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE && !self.closed.is_cancelled() {
            idle.push(reader);
        }
        Ok(records)
    }

    /// Closes the idle clients.
    pub fn close(&self) {
        lock(&self.idle).clear();
    }
}

/// Reads up to `max` records of `[from, end)`. Returns earlier at the partition's end. Fails if nothing arrives for
/// [`REQUEST_TIMEOUT`].
fn read_range(
    reader: &BaseConsumer<TracingContext>,
    at: &TopicPartition,
    from: u64,
    end: u64,
    max: usize,
) -> Result<Vec<Record>, LogError> {
    let failed = |error: &KafkaError| topic_error(&at.topic, "reading records failed", error);
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(at.topic.as_str(), partition_number(at.partition), kafka_offset(from))
        .and_then(|()| reader.assign(&assignment))
        .map_err(|error| failed(&error))?;
    let mut records = Vec::new();
    let mut last_message = Instant::now();
    loop {
        match reader.poll(POLL_TIMEOUT) {
            Some(Ok(message)) => {
                last_message = Instant::now();
                let Some(record) = record(&message) else { continue };
                let offset = record.position.offset;
                if offset < end {
                    records.push(record);
                }
                if offset + 1 >= end || records.len() >= max {
                    break;
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) if last_message.elapsed() > REQUEST_TIMEOUT || error.rdkafka_error_code().is_none() => {
                return Err(failed(&error));
            }
            Some(Err(_)) => {}
            None if last_message.elapsed() > REQUEST_TIMEOUT => {
                return Err(LogError::Unavailable(format!("kafka: reading {at} failed: no answer in time")));
            }
            None => {}
        }
    }
    reader.unassign().map_err(|error| failed(&error))?;
    Ok(records)
}

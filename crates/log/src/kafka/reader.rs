//! Reading without a group: ranges at once, and followers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carbon_core::{Position, Timestamp, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Inner;
use super::client::{PATIENCE, Quiet, at, blocking, number, of_topic, unavailable};
use crate::error::LogError;
use crate::record::Record;

/// How many readers are kept for the next question.
const KEPT: usize = 4;

/// Takes a message out of the client's hands. `None`: of a topic whose name cannot be ours.
pub(super) fn record(message: &BorrowedMessage<'_>) -> Option<Record> {
    let at = at(message.topic(), message.partition())?;
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

/// The headers whose names are text. The client library panics on one that is not, and any producer can send
/// that; such a header says nothing to us.
fn headers(message: &BorrowedMessage<'_>) -> Vec<(String, Vec<u8>)> {
    let Some(headers) = message.headers() else { return Vec::new() };
    let one = |index| {
        let header = catch_unwind(AssertUnwindSafe(|| headers.try_get(index)));
        let header = header.ok().flatten()?;
        Some((header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
    };
    (0..headers.count()).filter_map(one).collect()
}

impl Inner {
    /// Reads up to `max` records of a partition from an offset on, up to the end that it has now.
    pub(super) async fn read(&self, at: &TopicPartition, from: u64, max: usize) -> Result<Vec<Record>, LogError> {
        let end = self.ends_of(std::slice::from_ref(at)).await?.next(at);
        self.read_below(at, from, end, max).await
    }

    /// The partition's end, if no record lies between an offset and it.
    pub(super) async fn end_of_nothing(&self, at: &TopicPartition, from: u64) -> Result<Option<u64>, LogError> {
        let end = self.ends_of(std::slice::from_ref(at)).await?.next(at);
        Ok(self.read_below(at, from, end, 1).await?.is_empty().then_some(end))
    }

    async fn read_below(&self, at: &TopicPartition, from: u64, end: u64, max: usize) -> Result<Vec<Record>, LogError> {
        if from >= end || max == 0 {
            return Ok(Vec::new());
        }
        let reader = self.readers().pop();
        let reader: BaseConsumer<Quiet> = match reader {
            Some(reader) => reader,
            None => {
                let made = self.options.reader().create_with_context(Quiet);
                made.map_err(|error| unavailable("a reader cannot be made", &error))?
            }
        };
        let at = at.clone();
        let (reader, records) = blocking(move || {
            let records = read_range(&reader, &at, from, end, max)?;
            Ok((reader, records))
        })
        .await?;
        let mut readers = self.readers();
        if readers.len() < KEPT && !self.closed.is_cancelled() {
            readers.push(reader);
        }
        Ok(records)
    }
}

fn read_range(
    reader: &BaseConsumer<Quiet>,
    at: &TopicPartition,
    from: u64,
    end: u64,
    max: usize,
) -> Result<Vec<Record>, LogError> {
    let fault = |error: &KafkaError| of_topic(&at.topic, "records cannot be read", error);
    let mut assignment = TopicPartitionList::new();
    let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
    assignment
        .add_partition_offset(at.topic.as_str(), number(at.partition), offset)
        .and_then(|()| reader.assign(&assignment))
        .map_err(|error| fault(&error))?;
    let mut records = Vec::new();
    let mut heard = Instant::now();
    loop {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
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
            Some(Err(error)) if heard.elapsed() > PATIENCE || error.rdkafka_error_code().is_none() => {
                return Err(fault(&error));
            }
            Some(Err(_)) => {}
            None if heard.elapsed() > PATIENCE => {
                return Err(LogError::Unavailable(format!("kafka: {at} does not answer")));
            }
            None => {}
        }
    }
    reader.unassign().map_err(|error| fault(&error))?;
    Ok(records)
}

//! What both logs check before they take a record.

use carbon_core::{Partitioner, TopicName};
use carbon_schemas::MAX_RECORD_BYTES;

use crate::error::LogError;
use crate::record::{NewRecord, Placement};

/// Key and headers have some room of their own, so that a value at its limit passes.
const ROOM: usize = 64 * 1024;

/// The partition that a record goes to.
pub(crate) fn partition(record: &NewRecord, partitioner: Partitioner, partitions: u32) -> Result<u32, LogError> {
    match &record.placement {
        Placement::ByKey(key) => Ok(partitioner.partition(key, partitions)),
        Placement::Partition(partition) if *partition < partitions => Ok(*partition),
        Placement::Partition(partition) => {
            Err(LogError::NoPartition { topic: record.topic.clone(), partition: *partition, partitions })
        }
    }
}

/// Refuses a body that is too large for its frame.
pub(crate) fn check_body(topic: &TopicName, avro: &[u8]) -> Result<(), LogError> {
    // The longer of the two frames, so that both logs take the same records.
    let bytes = avro.len() + 10;
    match bytes > MAX_RECORD_BYTES {
        true => Err(LogError::TooLarge { topic: topic.clone(), bytes, max: MAX_RECORD_BYTES }),
        false => Ok(()),
    }
}

/// Refuses a record that is too large.
pub(crate) fn check_size(
    topic: &TopicName,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: usize,
) -> Result<(), LogError> {
    let value = value.map_or(0, <[u8]>::len);
    let bytes = key.map_or(0, <[u8]>::len) + value + headers;
    if value > MAX_RECORD_BYTES || bytes > MAX_RECORD_BYTES + ROOM {
        return Err(LogError::TooLarge { topic: topic.clone(), bytes, max: MAX_RECORD_BYTES });
    }
    Ok(())
}

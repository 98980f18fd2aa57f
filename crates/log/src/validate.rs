//! Checks that both logs run before they accept a record.

use carbon_core::{Partitioner, TopicName};
use carbon_schemas::MAX_RECORD_BYTES;

use crate::error::LogError;
use crate::record::{NewRecord, Placement};

/// Maximum size of key and headers together beside a value of the maximum size: 64 KiB.
const MAX_KEY_AND_HEADER_BYTES: usize = 64 * 1024;

/// The partition of a record. Fails if the record names a partition that does not exist.
pub(crate) fn partition(record: &NewRecord, partitioner: Partitioner, partitions: u32) -> Result<u32, LogError> {
    match &record.placement {
        Placement::ByKey(key) => Ok(partitioner.partition(key, partitions)),
        Placement::Partition(partition) if *partition < partitions => Ok(*partition),
        Placement::Partition(partition) => {
            Err(LogError::NoPartition { topic: record.topic.clone(), partition: *partition, partitions })
        }
    }
}

/// Bytes of the longer of the two frames, single-object encoding. Both logs count with it, so that they accept the same
/// records.
const MAX_FRAME_BYTES: usize = 10;

/// Fails if a body with its frame would exceed the maximum size.
pub(crate) fn check_body(topic: &TopicName, avro: &[u8]) -> Result<(), LogError> {
    let bytes = avro.len() + MAX_FRAME_BYTES;
    match bytes > MAX_RECORD_BYTES {
        true => Err(LogError::TooLarge { topic: topic.clone(), bytes, max: MAX_RECORD_BYTES }),
        false => Ok(()),
    }
}

/// Fails if a record exceeds the maximum size. `headers` is the size of all headers in bytes.
pub(crate) fn check_size(
    topic: &TopicName,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: usize,
) -> Result<(), LogError> {
    let value = value.map_or(0, <[u8]>::len);
    let bytes = key.map_or(0, <[u8]>::len) + value + headers;
    if value > MAX_RECORD_BYTES || bytes > MAX_RECORD_BYTES + MAX_KEY_AND_HEADER_BYTES {
        return Err(LogError::TooLarge { topic: topic.clone(), bytes, max: MAX_RECORD_BYTES });
    }
    Ok(())
}

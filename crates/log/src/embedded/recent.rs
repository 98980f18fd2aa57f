//! A cache of the newest records. Most readers are caught up, so they need no query.

use std::collections::{HashMap, VecDeque};

use carbon_core::TopicPartition;

use crate::record::Record;

/// Maximum size of the cached keys and values of all partitions: 8 MiB.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Owns the newest records of all partitions.
#[derive(Default)]
pub(super) struct RecentRecords {
    /// The records of each partition, without gaps.
    partitions: HashMap<TopicPartition, VecDeque<Record>>,
    /// Partition and size of each record, in the order of arrival.
    order: VecDeque<(TopicPartition, usize)>,
    bytes: usize,
}

impl RecentRecords {
    /// Adds the next record of its partition, and evicts the oldest records if the cache is full.
    pub fn push(&mut self, record: Record) {
        let (at, size) = (record.position.topic_partition(), record.bytes());
        self.partitions.entry(at.clone()).or_default().push_back(record);
        self.order.push_back((at, size));
        self.bytes += size;
        while self.bytes > MAX_BYTES {
            let Some((at, size)) = self.order.pop_front() else { break };
            self.bytes -= size;
            if let Some(records) = self.partitions.get_mut(&at) {
                records.pop_front();
            }
        }
    }

    /// The records of `[from, end)`, at most `max` records or about `bytes`, but at least one. `None` if the record at
    /// `from` is not cached.
    pub fn read(&self, at: &TopicPartition, from: u64, end: u64, max: usize, bytes: usize) -> Option<Vec<Record>> {
        let records = self.partitions.get(at)?;
        let first = records.front()?.position.offset;
        let skipped = usize::try_from(from.checked_sub(first)?).ok()?;
        let mut size = 0;
        let mut found = Vec::new();
        for record in records.iter().skip(skipped).take(max) {
            if record.position.offset >= end || size >= bytes {
                break;
            }
            size += record.bytes();
            found.push(record.clone());
        }
        found.first().is_some_and(|record| record.position.offset == from).then_some(found)
    }

    /// Evicts all records. Called when the file may differ from the cache.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use carbon_core::{Position, Timestamp, TopicName};

    use super::*;

    fn record(partition: u32, offset: u64, size: usize) -> Record {
        let position = Position::new(TopicName::parse("ml.run.logged.v1").unwrap(), partition, offset);
        let value = Some(Bytes::from(vec![0; size]));
        Record { position, timestamp: Timestamp(0), key: None, value, headers: Vec::new() }
    }

    #[test]
    fn a_range_is_returned_only_if_its_start_is_cached() {
        let mut recent = RecentRecords::default();
        let at = |partition| record(partition, 0, 0).position.topic_partition();
        for offset in 5..9 {
            recent.push(record(0, offset, 10));
            recent.push(record(1, offset + 100, 10));
        }
        let read = |recent: &RecentRecords, from, end, max, bytes| -> Option<Vec<u64>> {
            let found = recent.read(&at(0), from, end, max, bytes)?;
            Some(found.iter().map(|record| record.position.offset).collect())
        };
        assert_eq!(read(&recent, 5, 9, 100, 1000), Some(vec![5, 6, 7, 8]));
        assert_eq!(read(&recent, 6, 8, 100, 1000), Some(vec![6, 7]));
        assert_eq!(read(&recent, 6, 9, 1, 1000), Some(vec![6]));
        assert_eq!(read(&recent, 5, 9, 100, 1), Some(vec![5]), "at least one record");
        assert_eq!([4, 9].map(|from| read(&recent, from, 100, 100, 1000)), [None, None]);
        assert_eq!(recent.read(&at(2), 0, 9, 100, 1000), None);
        // The oldest records of all partitions are evicted first.
        recent.push(record(1, 109, MAX_BYTES - 45));
        assert_eq!(read(&recent, 5, 9, 100, 1000), None);
        assert_eq!(read(&recent, 7, 9, 100, 1000), Some(vec![7, 8]));
        recent.clear();
        assert_eq!(read(&recent, 8, 9, 100, 1000), None);
    }
}

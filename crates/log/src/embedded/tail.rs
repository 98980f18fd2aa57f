//! The newest records, in memory: what was just appended is what nearly every reader wants, and the file need not be asked.

use std::collections::{HashMap, VecDeque};

use carbon_core::TopicPartition;

use crate::record::Record;

/// Of all partitions together.
const BYTES: usize = 8 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Tail {
    /// By partition, without gaps.
    partitions: HashMap<TopicPartition, VecDeque<Record>>,
    /// As they came: the partition and size of each.
    order: VecDeque<(TopicPartition, usize)>,
    bytes: usize,
}

impl Tail {
    /// Takes the next record of its partition.
    pub fn push(&mut self, record: Record) {
        let (at, size) = (record.position.topic_partition(), record.bytes());
        self.partitions.entry(at.clone()).or_default().push_back(record);
        self.order.push_back((at, size));
        self.bytes += size;
        while self.bytes > BYTES {
            let Some((at, size)) = self.order.pop_front() else { break };
            self.bytes -= size;
            if let Some(records) = self.partitions.get_mut(&at) {
                records.pop_front();
            }
        }
    }

    /// The records from `from` on, below `end`, at most `max` or `bytes`; `None` where they are not all here.
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

    /// What lies in the file may differ now.
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
    fn it_answers_only_where_it_holds_all() {
        let mut tail = Tail::default();
        let at = |partition| record(partition, 0, 0).position.topic_partition();
        for offset in 5..9 {
            tail.push(record(0, offset, 10));
            tail.push(record(1, offset + 100, 10));
        }
        let read = |tail: &Tail, from, end, max, bytes| -> Option<Vec<u64>> {
            let found = tail.read(&at(0), from, end, max, bytes)?;
            Some(found.iter().map(|record| record.position.offset).collect())
        };
        assert_eq!(read(&tail, 5, 9, 100, 1000), Some(vec![5, 6, 7, 8]));
        assert_eq!(read(&tail, 6, 8, 100, 1000), Some(vec![6, 7]));
        assert_eq!(read(&tail, 6, 9, 1, 1000), Some(vec![6]));
        assert_eq!(read(&tail, 5, 9, 100, 1), Some(vec![5]), "one at the least");
        assert_eq!([4, 9].map(|from| read(&tail, from, 100, 100, 1000)), [None, None]);
        assert_eq!(tail.read(&at(2), 0, 9, 100, 1000), None);
        // The oldest of all go first.
        tail.push(record(1, 109, BYTES - 45));
        assert_eq!(read(&tail, 5, 9, 100, 1000), None);
        assert_eq!(read(&tail, 7, 9, 100, 1000), Some(vec![7, 8]));
        tail.clear();
        assert_eq!(read(&tail, 8, 9, 100, 1000), None);
    }
}

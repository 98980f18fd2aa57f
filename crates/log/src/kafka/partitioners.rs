//! The partitioners of topics that do not use murmur2. Kafka has no such topic setting, and with another partitioner
//! every record would become a dead letter. So this program stores them in a compacted topic of its own, which it
//! creates only if a topic needs it.

use std::collections::BTreeMap;

use carbon_core::{Cleanup, Partitioner, Retention, TopicName, TopicPartition, TopicSpec};

use super::producer::FramedRecord;
use super::topic_cache::PartitionCounts;
use super::topics::TopicAdmin;
use crate::error::LogError;
use crate::topics::partitioner_name;

/// The topic of partitioners: key = topic name, value = partitioner name.
pub(super) const TOPIC: &str = "carbon.partitioners";

fn topic() -> Result<TopicName, LogError> {
    TopicName::parse(TOPIC).map_err(|error| LogError::Corrupt(error.to_string()))
}

impl TopicAdmin {
    /// The stored partitioners by topic. Empty if the topic of partitioners does not exist.
    pub async fn stored_partitioners(
        &self,
        counts: &PartitionCounts,
    ) -> Result<BTreeMap<TopicName, Partitioner>, LogError> {
        let topic = topic()?;
        if !counts.contains_key(&topic) {
            return Ok(BTreeMap::new());
        }
        let records = self.readers.read(&TopicPartition::new(topic, 0), 0, usize::MAX).await?;
        let entry = |record: &crate::Record| {
            let name = TopicName::parse(std::str::from_utf8(record.key.as_deref()?).ok()?).ok()?;
            let value = record.value.as_deref()?;
            let partitioners = [Partitioner::Murmur2, Partitioner::Crc32].into_iter();
            let partitioner = partitioners.into_iter().find(|found| partitioner_name(*found).as_bytes() == value)?;
            Some((name, partitioner))
        };
        Ok(records.iter().filter_map(entry).collect())
    }

    /// Stores the partitioners of topics that are about to be created. The default is not stored.
    pub(super) async fn store_partitioners(&self, specs: &[&TopicSpec]) -> Result<(), LogError> {
        let others: Vec<_> = specs.iter().filter(|spec| spec.partitioner != Partitioner::default()).collect();
        if others.is_empty() {
            return Ok(());
        }
        let topic = topic()?;
        if !self.topics.contains(&topic) {
            let (partitioner, retention) = (Partitioner::default(), Retention::default());
            let spec =
                TopicSpec { name: topic.clone(), partitions: 1, cleanup: Cleanup::Compact, partitioner, retention };
            self.create(&[&spec]).await?;
        }
        let record = |spec: &&&TopicSpec| FramedRecord {
            at: TopicPartition::new(topic.clone(), 0),
            key: Some(spec.name.as_str().as_bytes().to_vec()),
            value: Some(partitioner_name(spec.partitioner).as_bytes().to_vec()),
            headers: Vec::new(),
        };
        self.producer.send(others.iter().map(record).collect()).await.map(drop)
    }
}

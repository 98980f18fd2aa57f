//! The cache of topic metadata: partition counts and partitioners.

use std::collections::BTreeMap;
use std::sync::Mutex;

use carbon_core::{Partitioner, Positions, TopicName, TopicPartition};
use rdkafka::metadata::MetadataPartition;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::client::{lock, partition_number};
use super::metadata::MetadataClient;
use crate::error::LogError;

/// The number of partitions of each topic.
pub(super) type PartitionCounts = BTreeMap<TopicName, u32>;

/// Owns what this process remembers about the cluster's topics. A miss refreshes all partition counts.
pub(super) struct TopicCache {
    metadata: MetadataClient,
    counts: Mutex<PartitionCounts>,
    /// The partitioners that differ from the default.
    partitioners: Mutex<BTreeMap<TopicName, Partitioner>>,
}

impl TopicCache {
    /// An empty cache.
    pub fn new(metadata: MetadataClient) -> Self {
        Self { metadata, counts: Mutex::default(), partitioners: Mutex::default() }
    }

    /// Queries the cluster for its topics, and caches and returns their partition counts.
    pub async fn refresh(&self) -> Result<PartitionCounts, LogError> {
        let count = |partitions: &[MetadataPartition]| u32::try_from(partitions.len()).ok().filter(|count| *count > 0);
        let counts = self.metadata.topics(count).await?;
        *lock(&self.counts) = counts.clone();
        Ok(counts)
    }

    /// Evicts all partition counts.
    pub fn evict(&self) {
        lock(&self.counts).clear();
    }

    /// True if the topic's partition count is cached. Queries nothing.
    pub fn contains(&self, topic: &TopicName) -> bool {
        lock(&self.counts).contains_key(topic)
    }

    /// The number of partitions of a topic.
    pub async fn partition_count(&self, topic: &TopicName) -> Result<u32, LogError> {
        if let Some(count) = lock(&self.counts).get(topic) {
            return Ok(*count);
        }
        let counts = self.refresh().await?;
        counts.get(topic).copied().ok_or_else(|| LogError::UnknownTopic(topic.clone()))
    }

    /// All partitions of a topic.
    pub async fn partitions(&self, topic: &TopicName) -> Result<Vec<TopicPartition>, LogError> {
        let count = self.partition_count(topic).await?;
        Ok((0..count).map(|partition| TopicPartition::new(topic.clone(), partition)).collect())
    }

    /// All partitions of all topics, without the topics that Kafka itself uses. Queries the cluster.
    pub async fn all_partitions(&self) -> Result<TopicPartitionList, LogError> {
        let mut all = TopicPartitionList::new();
        for (topic, partitions) in self.refresh().await?.iter().filter(|(topic, _)| !topic.as_str().starts_with("__")) {
            all.add_partition_range(topic.as_str(), 0, partition_number(*partitions) - 1);
        }
        Ok(all)
    }

    /// Fails if one of these partitions does not exist.
    pub async fn check(&self, positions: &Positions) -> Result<(), LogError> {
        for (at, _) in positions.iter() {
            let partitions = self.partition_count(&at.topic).await?;
            if at.partition >= partitions {
                return Err(LogError::NoPartition { topic: at.topic.clone(), partition: at.partition, partitions });
            }
        }
        Ok(())
    }

    /// The partitioner of a topic.
    pub fn partitioner(&self, topic: &TopicName) -> Partitioner {
        lock(&self.partitioners).get(topic).copied().unwrap_or_default()
    }

    /// Replaces the cached partitioners. `partitioners` holds those that differ from the default.
    pub fn set_partitioners(&self, partitioners: BTreeMap<TopicName, Partitioner>) {
        *lock(&self.partitioners) = partitioners;
    }
}

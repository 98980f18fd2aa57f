//! Which topics are partitioned by another hash than murmur2. Kafka keeps no such setting, and a change of it
//! would make a dead letter of every record, so it is remembered in a compacted topic of our own. That topic
//! is there only where it is needed.

use std::collections::BTreeMap;

use carbon_core::{Cleanup, Partitioner, Retention, TopicName, TopicPartition, TopicSpec};

use super::Inner;
use super::producer::Placed;
use super::topics::Counts;
use crate::error::LogError;
use crate::topics::partitioner_name;

pub(super) const TOPIC: &str = "carbon.partitioners";

fn topic() -> Result<TopicName, LogError> {
    TopicName::parse(TOPIC).map_err(|error| LogError::Corrupt(error.to_string()))
}

pub(super) async fn read(inner: &Inner, counts: &Counts) -> Result<BTreeMap<TopicName, Partitioner>, LogError> {
    let topic = topic()?;
    if !counts.contains_key(&topic) {
        return Ok(BTreeMap::new());
    }
    let records = inner.read(&TopicPartition::new(topic, 0), 0, usize::MAX).await?;
    let entry = |record: &crate::Record| {
        let name = TopicName::parse(std::str::from_utf8(record.key.as_deref()?).ok()?).ok()?;
        let value = record.value.as_deref()?;
        let partitioners = [Partitioner::Murmur2, Partitioner::Crc32].into_iter();
        let partitioner = partitioners.into_iter().find(|found| partitioner_name(*found).as_bytes() == value)?;
        Some((name, partitioner))
    };
    Ok(records.iter().filter_map(entry).collect())
}

/// Remembers the partitioners of topics that are about to be made.
pub(super) async fn write(inner: &Inner, specs: &[&TopicSpec]) -> Result<(), LogError> {
    let others: Vec<_> = specs.iter().filter(|spec| spec.partitioner != Partitioner::default()).collect();
    if others.is_empty() {
        return Ok(());
    }
    let topic = topic()?;
    if !inner.topics().contains_key(&topic) {
        let (partitioner, retention) = (Partitioner::default(), Retention::default());
        let own = TopicSpec { name: topic.clone(), partitions: 1, cleanup: Cleanup::Compact, partitioner, retention };
        inner.create(&[&own]).await?;
    }
    let record = |spec: &&&TopicSpec| Placed {
        at: TopicPartition::new(topic.clone(), 0),
        key: Some(spec.name.as_str().as_bytes().to_vec()),
        value: Some(partitioner_name(spec.partitioner).as_bytes().to_vec()),
        headers: Vec::new(),
    };
    inner.send(others.iter().map(record).collect()).await.map(drop)
}

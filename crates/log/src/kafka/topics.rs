//! Topics: what the cluster has, what the topology wants, and how one becomes the other.

use std::collections::BTreeMap;

use carbon_core::{Cleanup, Partitioner, Positions, Retention, TopicName, TopicPartition, TopicSpec};
use rdkafka::admin::{
    AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::consumer::Consumer as _;
use rdkafka::metadata::MetadataPartition;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::client::{PATIENCE, blocking, list, of_topic, unavailable};
use super::options::MAX_MESSAGE_BYTES;
use super::{Inner, partitioners};
use crate::error::LogError;
use crate::event_log::TopicDescription;
use crate::topics::refuse_difference;

/// The cluster's topics with their partition counts, as they were last seen.
pub(super) type Counts = BTreeMap<TopicName, u32>;

/// A topic of the cluster.
pub(super) struct FoundTopic {
    pub spec: TopicSpec,
    /// What was set for it alone.
    own: BTreeMap<String, String>,
    min_in_sync: u32,
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// Kafka's own topics, and ours that are no events.
fn internal(name: &TopicName) -> bool {
    name.as_str().starts_with("__") || name.as_str() == partitioners::TOPIC
}

/// A topic's settings in Kafka's names.
fn settings(spec: &TopicSpec, replication: i32) -> BTreeMap<&'static str, String> {
    let policy = if spec.cleanup == Cleanup::Compact { "compact" } else { "delete" };
    let kept = match spec.cleanup {
        Cleanup::Delete => spec.retention.retention_ms.unwrap_or(-1),
        Cleanup::Keep | Cleanup::Compact => -1,
    };
    let in_sync = if replication >= 3 { "2" } else { "1" };
    BTreeMap::from([
        ("cleanup.policy", policy.to_owned()),
        ("retention.ms", kept.to_string()),
        ("retention.bytes", "-1".to_owned()),
        ("min.compaction.lag.ms", spec.retention.min_compaction_lag_ms.to_string()),
        ("delete.retention.ms", spec.retention.delete_retention_ms.to_string()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
        ("min.insync.replicas", in_sync.to_owned()),
    ])
}

/// What a topic's settings mean.
fn spec(name: TopicName, partitions: u32, partitioner: Partitioner, found: &BTreeMap<String, String>) -> TopicSpec {
    let ms = |key: &str| found.get(key).and_then(|value| value.parse::<i64>().ok());
    let kept = ms("retention.ms").filter(|ms| *ms >= 0);
    let cleanup = match (found.get("cleanup.policy").map(String::as_str), kept) {
        (Some(policy), _) if policy.contains("compact") => Cleanup::Compact,
        (_, Some(_)) => Cleanup::Delete,
        (_, None) => Cleanup::Keep,
    };
    let retention = Retention {
        retention_ms: if cleanup == Cleanup::Delete { kept } else { None },
        min_compaction_lag_ms: ms("min.compaction.lag.ms").unwrap_or_default(),
        delete_retention_ms: ms("delete.retention.ms").unwrap_or_default(),
    };
    TopicSpec { name, partitions, cleanup, partitioner, retention }
}

impl Inner {
    /// Asks the cluster which topics it has, and something of the partitions of each.
    async fn topics_with<T: Send + 'static>(
        &self,
        of: impl Fn(&[MetadataPartition]) -> Option<T> + Send + 'static,
    ) -> Result<BTreeMap<TopicName, T>, LogError> {
        let client = self.client.clone();
        blocking(move || {
            let metadata = client.client().fetch_metadata(None, PATIENCE);
            let metadata = metadata.map_err(|error| unavailable("topics cannot be listed", &error))?;
            let there = metadata.topics().iter().filter(|topic| topic.error().is_none());
            Ok(there
                .filter_map(|topic| Some((TopicName::parse(topic.name()).ok()?, of(topic.partitions())?)))
                .collect())
        })
        .await
    }

    /// Asks the cluster which topics it has.
    pub(super) async fn refresh(&self) -> Result<Counts, LogError> {
        let count = |partitions: &[MetadataPartition]| u32::try_from(partitions.len()).ok().filter(|count| *count > 0);
        let counts = self.topics_with(count).await?;
        *self.topics() = counts.clone();
        Ok(counts)
    }

    /// The number of a topic's partitions.
    pub(super) async fn partitions(&self, topic: &TopicName) -> Result<u32, LogError> {
        if let Some(count) = self.topics().get(topic) {
            return Ok(*count);
        }
        let counts = self.refresh().await?;
        counts.get(topic).copied().ok_or_else(|| LogError::UnknownTopic(topic.clone()))
    }

    /// All partitions of a topic.
    pub(super) async fn partitions_of(&self, topic: &TopicName) -> Result<Vec<TopicPartition>, LogError> {
        let count = self.partitions(topic).await?;
        Ok((0..count).map(|partition| TopicPartition::new(topic.clone(), partition)).collect())
    }

    /// Checks that each of these partitions is there.
    pub(super) async fn check(&self, positions: &Positions) -> Result<(), LogError> {
        for (at, _) in positions.iter() {
            let partitions = self.partitions(&at.topic).await?;
            if at.partition >= partitions {
                return Err(LogError::NoPartition { topic: at.topic.clone(), partition: at.partition, partitions });
            }
        }
        Ok(())
    }

    /// The topics of the cluster as they are, without Kafka's own.
    pub(super) async fn found_topics(&self) -> Result<Vec<FoundTopic>, LogError> {
        let counts = self.refresh().await?;
        let names: Vec<TopicName> = counts.keys().filter(|name| !internal(name)).cloned().collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name.as_str())).collect();
        let described = self.admin.describe_configs(&resources, &options()).await;
        let described = described.map_err(|error| unavailable("topics cannot be described", &error))?;
        let partitioners = partitioners::read(self, &counts).await?;
        let mut found = Vec::with_capacity(described.len());
        for resource in described {
            // One that was deleted meanwhile.
            let Ok(ConfigResource { specifier: OwnedResourceSpecifier::Topic(name), entries }) = resource else {
                continue;
            };
            let Ok(name) = TopicName::parse(&name) else { continue };
            let own = entries.iter().filter(|entry| matches!(entry.source, ConfigSource::DynamicTopic));
            let own = own.filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect();
            let entries =
                entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect::<BTreeMap<_, _>>();
            let partitioner = partitioners.get(&name).copied().unwrap_or_default();
            let Some(partitions) = counts.get(&name) else { continue };
            let min_in_sync = entries.get("min.insync.replicas").and_then(|value| value.parse().ok()).unwrap_or(1);
            found.push(FoundTopic { spec: spec(name, *partitions, partitioner, &entries), own, min_in_sync });
        }
        Ok(found)
    }

    /// What the cluster lacks of these topics, in words. Production demands copies (law 14).
    pub(super) async fn complaints(&self, wanted: &[TopicSpec], production: bool) -> Result<Vec<String>, LogError> {
        let found = self.found_topics().await?.into_iter();
        let found: BTreeMap<_, _> = found.map(|found| (found.spec.name.clone(), found)).collect();
        let copies = if production { self.copies().await? } else { BTreeMap::new() };
        let mut complaints = Vec::new();
        for spec in wanted {
            let name = &spec.name;
            let Some(known) = found.get(name) else {
                complaints.push(format!("topic {name} is missing"));
                continue;
            };
            if let Err(error) = refuse_difference(&known.spec, spec) {
                complaints.push(error.to_string());
            }
            if production && (copies.get(name).is_none_or(|copies| *copies < 3) || known.min_in_sync < 2) {
                complaints.push(format!(
                    "topic {name} has {} copies and min.insync.replicas {}, production wants 3 and 2",
                    copies.get(name).copied().unwrap_or_default(),
                    known.min_in_sync
                ));
            }
        }
        Ok(complaints)
    }

    /// The fewest copies that any partition of a topic has.
    async fn copies(&self) -> Result<BTreeMap<TopicName, usize>, LogError> {
        self.topics_with(|partitions| partitions.iter().map(|partition| partition.replicas().len()).min()).await
    }

    pub(super) async fn describe_topics(&self) -> Result<Vec<TopicDescription>, LogError> {
        let specs: Vec<_> = self.found_topics().await?.into_iter().map(|found| found.spec).collect();
        let all: Vec<_> = specs
            .iter()
            .flat_map(|spec| (0..spec.partitions).map(|partition| TopicPartition::new(spec.name.clone(), partition)))
            .collect();
        let (starts, ends) = (self.starts(&all).await?, self.ends_of(&all).await?);
        let describe = |spec: TopicSpec| TopicDescription {
            starts: starts.of_topic(&spec.name),
            ends: ends.of_topic(&spec.name),
            spec,
        };
        Ok(specs.into_iter().map(describe).collect())
    }

    /// Makes what is missing and changes what may change, after everything was found to be allowed.
    pub(super) async fn make_topics(&self, wanted: &[TopicSpec]) -> Result<(), LogError> {
        let found = self.found_topics().await?.into_iter();
        let found: BTreeMap<_, _> = found.map(|found| (found.spec.name.clone(), found)).collect();
        let (mut missing, mut changed) = (Vec::new(), Vec::new());
        for spec in wanted {
            match found.get(&spec.name) {
                None => missing.push(spec),
                Some(known) => {
                    refuse_difference(&known.spec, spec)?;
                    if !self.is_as_wanted(&known.spec, spec) {
                        changed.push((spec, known.own.clone()));
                    }
                }
            }
        }
        partitioners::write(self, &missing).await?;
        self.create(&missing).await?;
        let wanted: Vec<&TopicSpec> = changed.iter().map(|(spec, _)| *spec).collect();
        for (spec, mut all) in changed {
            // What is not named would fall back to the cluster's default: an operator's own settings stay.
            let ours = settings(spec, self.options.replication).into_iter();
            all.extend(ours.map(|(key, value)| (key.to_owned(), value)));
            let mut config = AlterConfig::new(ResourceSpecifier::Topic(spec.name.as_str()));
            for (key, value) in &all {
                config = config.set(key, value);
            }
            let answers = self.admin.alter_configs(&[config], &options()).await;
            let answers = answers.map_err(|error| of_topic(&spec.name, "the topic cannot be changed", &error))?;
            for answer in answers {
                answer.map_err(|(_, code)| {
                    LogError::Unavailable(format!("kafka: topic {} cannot be changed: {code}", spec.name))
                })?;
            }
        }
        self.until_changed(&wanted).await
    }

    /// Whether nothing that Kafka keeps differs.
    fn is_as_wanted(&self, known: &TopicSpec, wanted: &TopicSpec) -> bool {
        let copies = self.options.replication;
        known.name == wanted.name && settings(known, copies) == settings(wanted, copies)
    }

    /// A change is told by the brokers a moment after the controller has taken it.
    async fn until_changed(&self, wanted: &[&TopicSpec]) -> Result<(), LogError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !wanted.is_empty() {
            let found = self.found_topics().await?;
            let Some(late) = wanted.iter().find(|spec| !found.iter().any(|found| self.is_as_wanted(&found.spec, spec)))
            else {
                break;
            };
            if tokio::time::Instant::now() > deadline {
                return Err(LogError::Unavailable(format!("kafka: topic {} was not changed in time", late.name)));
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Makes topics, and waits until each of them can be read.
    pub(super) async fn create(&self, specs: &[&TopicSpec]) -> Result<(), LogError> {
        if specs.is_empty() {
            return Ok(());
        }
        let settings: Vec<_> = specs.iter().map(|spec| settings(spec, self.options.replication)).collect();
        let topics: Vec<_> = specs
            .iter()
            .zip(&settings)
            .map(|(spec, settings)| {
                let replication = TopicReplication::Fixed(self.options.replication);
                let topic = NewTopic::new(spec.name.as_str(), super::client::number(spec.partitions), replication);
                settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let answers = self.admin.create_topics(&topics, &options()).await;
        for answer in answers.map_err(|error| unavailable("topics cannot be made", &error))? {
            match answer {
                // Another process was quicker; what it made is looked at the next time.
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(LogError::Unavailable(format!("kafka: topic {name} cannot be made: {code}")));
                }
            }
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let counts = self.refresh().await?;
            let missing = specs.iter().find(|spec| !counts.contains_key(&spec.name));
            let Some(missing) = missing else { return Ok(()) };
            if tokio::time::Instant::now() > deadline {
                let name = &missing.name;
                return Err(LogError::Unavailable(format!("kafka: topic {name} was made, but has no leader")));
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn delete_below(&self, before: &Positions) -> Result<(), LogError> {
        // Kafka refuses an offset below the start; that is no reason to fail.
        let all: Vec<_> = before.iter().map(|(at, _)| at.clone()).collect();
        let starts = self.starts(&all).await?;
        let higher: Positions =
            before.iter().filter(|(at, next)| *next > starts.next(at)).map(|(at, next)| (at.clone(), next)).collect();
        if higher.is_empty() {
            return Ok(());
        }
        let answer = self.admin.delete_records(&list(&higher)?, &options()).await;
        let answer = answer.map_err(|error| unavailable("records cannot be deleted", &error))?;
        for element in answer.elements() {
            element.error().map_err(|error| unavailable("records cannot be deleted", &error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_were_written() {
        for (cleanup, retention_ms) in [(Cleanup::Keep, None), (Cleanup::Compact, None), (Cleanup::Delete, Some(5))] {
            let retention = Retention { retention_ms, min_compaction_lag_ms: 7, delete_retention_ms: 8 };
            let name = TopicName::parse("t").unwrap_or_else(|_| unreachable!());
            let partitioner = Partitioner::Murmur2;
            let wanted = TopicSpec { name: name.clone(), partitions: 3, cleanup, partitioner, retention };
            let written = settings(&wanted, 3).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            assert_eq!(spec(name, 3, partitioner, &written), wanted);
        }
    }
}

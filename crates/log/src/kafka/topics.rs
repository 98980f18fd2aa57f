//! Administration of topics: describes them, compares them with the topology, and creates and changes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Cleanup, Partitioner, Positions, Retention, TopicName, TopicPartition, TopicSpec};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewTopic, OwnedResourceSpecifier,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::client::{REQUEST_TIMEOUT, TracingContext, partition_list, partition_number, topic_error, unavailable};
use super::metadata::MetadataClient;
use super::options::MAX_MESSAGE_BYTES;
use super::partitioners;
use super::producer::IdempotentProducer;
use super::reader::ReaderPool;
use super::topic_cache::TopicCache;
use crate::error::LogError;
use crate::event_log::TopicDescription;
use crate::topics::reject_difference;

/// How long to wait for the brokers to apply a creation or change, and the pause between two checks.
const APPLY_TIMEOUT: Duration = REQUEST_TIMEOUT;
const APPLY_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Replication that production requires (law 14).
const PRODUCTION_REPLICAS: usize = 3;
const PRODUCTION_MIN_IN_SYNC: usize = 2;

/// A topic of the cluster.
struct ExistingTopic {
    spec: TopicSpec,
    /// The settings that were made for this topic, without the defaults of the cluster.
    own_settings: BTreeMap<String, String>,
    /// The setting `min.insync.replicas`.
    min_in_sync: usize,
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

/// True for topics that hold no events: Kafka's own, and the topic of partitioners.
fn is_internal(name: &TopicName) -> bool {
    name.as_str().starts_with("__") || name.as_str() == partitioners::TOPIC
}

/// The Kafka settings of a topic.
fn settings(spec: &TopicSpec, replication: i32) -> BTreeMap<&'static str, String> {
    let policy = if spec.cleanup == Cleanup::Compact { "compact" } else { "delete" };
    let retention_ms = match spec.cleanup {
        Cleanup::Delete => spec.retention.retention_ms.unwrap_or(-1),
        Cleanup::Keep | Cleanup::Compact => -1,
    };
    let min_in_sync = if replication >= 3 { "2" } else { "1" };
    BTreeMap::from([
        ("cleanup.policy", policy.to_owned()),
        ("retention.ms", retention_ms.to_string()),
        ("retention.bytes", "-1".to_owned()),
        ("min.compaction.lag.ms", spec.retention.min_compaction_lag_ms.to_string()),
        ("delete.retention.ms", spec.retention.delete_retention_ms.to_string()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
        ("min.insync.replicas", min_in_sync.to_owned()),
    ])
}

/// The spec of a topic that has these Kafka settings.
fn spec(name: TopicName, partitions: u32, partitioner: Partitioner, found: &BTreeMap<String, String>) -> TopicSpec {
    let ms = |key: &str| found.get(key).and_then(|value| value.parse::<i64>().ok());
    let retention_ms = ms("retention.ms").filter(|ms| *ms >= 0);
    let cleanup = match (found.get("cleanup.policy").map(String::as_str), retention_ms) {
        (Some(policy), _) if policy.contains("compact") => Cleanup::Compact,
        (_, Some(_)) => Cleanup::Delete,
        (_, None) => Cleanup::Keep,
    };
    let retention = Retention {
        retention_ms: if cleanup == Cleanup::Delete { retention_ms } else { None },
        min_compaction_lag_ms: ms("min.compaction.lag.ms").unwrap_or_default(),
        delete_retention_ms: ms("delete.retention.ms").unwrap_or_default(),
    };
    TopicSpec { name, partitions, cleanup, partitioner, retention }
}

/// Owns the client that administers topics.
pub(super) struct TopicAdmin {
    client: AdminClient<TracingContext>,
    /// Number of replicas of each partition of a new topic.
    replication: i32,
    metadata: MetadataClient,
    pub(super) topics: Arc<TopicCache>,
    pub(super) readers: Arc<ReaderPool>,
    pub(super) producer: Arc<IdempotentProducer>,
}

impl TopicAdmin {
    pub fn new(
        client: AdminClient<TracingContext>,
        replication: i32,
        metadata: MetadataClient,
        topics: Arc<TopicCache>,
        readers: Arc<ReaderPool>,
        producer: Arc<IdempotentProducer>,
    ) -> Self {
        Self { client, replication, metadata, topics, readers, producer }
    }

    /// Refreshes the cached partition counts and partitioners.
    pub async fn refresh_cache(&self) -> Result<(), LogError> {
        let counts = self.topics.refresh().await?;
        self.topics.set_partitioners(self.stored_partitioners(&counts).await?);
        Ok(())
    }

    /// The topics of the cluster that hold events.
    async fn existing_topics(&self) -> Result<Vec<ExistingTopic>, LogError> {
        let counts = self.topics.refresh().await?;
        let names: Vec<TopicName> = counts.keys().filter(|name| !is_internal(name)).cloned().collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name.as_str())).collect();
        let described = self.client.describe_configs(&resources, &options()).await;
        let described = described.map_err(|error| unavailable("describing topics failed", &error))?;
        let partitioners = self.stored_partitioners(&counts).await?;
        let mut found = Vec::with_capacity(described.len());
        for resource in described {
            // A topic may have been deleted since the refresh.
            let Ok(ConfigResource { specifier: OwnedResourceSpecifier::Topic(name), entries }) = resource else {
                continue;
            };
            let Ok(name) = TopicName::parse(&name) else { continue };
            let own = entries.iter().filter(|entry| matches!(entry.source, ConfigSource::DynamicTopic));
            let own_settings = own.filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect();
            let entries =
                entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect::<BTreeMap<_, _>>();
            let partitioner = partitioners.get(&name).copied().unwrap_or_default();
            let Some(partitions) = counts.get(&name) else { continue };
            let min_in_sync = entries.get("min.insync.replicas").and_then(|value| value.parse().ok()).unwrap_or(1);
            let spec = spec(name, *partitions, partitioner, &entries);
            found.push(ExistingTopic { spec, own_settings, min_in_sync });
        }
        Ok(found)
    }

    /// The differences between the cluster's topics and `wanted`, one message each. In production this includes a
    /// replication that is too low (law 14).
    pub async fn differences(&self, wanted: &[TopicSpec], production: bool) -> Result<Vec<String>, LogError> {
        let existing = self.existing_by_name().await?;
        let replicas = if production { self.replicas().await? } else { BTreeMap::new() };
        let mut differences = Vec::new();
        for spec in wanted {
            let name = &spec.name;
            let Some(topic) = existing.get(name) else {
                differences.push(format!("topic {name} is missing"));
                continue;
            };
            if let Err(error) = reject_difference(&topic.spec, spec) {
                differences.push(error.to_string());
            }
            let replicas = replicas.get(name).copied().unwrap_or_default();
            if production && (replicas < PRODUCTION_REPLICAS || topic.min_in_sync < PRODUCTION_MIN_IN_SYNC) {
                differences.push(format!(
                    "topic {name} has {replicas} replicas and min.insync.replicas {}, production requires \
                     {PRODUCTION_REPLICAS} and {PRODUCTION_MIN_IN_SYNC}",
                    topic.min_in_sync
                ));
            }
        }
        Ok(differences)
    }

    async fn existing_by_name(&self) -> Result<BTreeMap<TopicName, ExistingTopic>, LogError> {
        let existing = self.existing_topics().await?.into_iter();
        Ok(existing.map(|topic| (topic.spec.name.clone(), topic)).collect())
    }

    /// The number of replicas of each topic: that of its least replicated partition.
    async fn replicas(&self) -> Result<BTreeMap<TopicName, usize>, LogError> {
        self.metadata.topics(|partitions| partitions.iter().map(|partition| partition.replicas().len()).min()).await
    }

    /// The topics that hold events, with their offsets.
    pub async fn describe(&self) -> Result<Vec<TopicDescription>, LogError> {
        let specs: Vec<_> = self.existing_topics().await?.into_iter().map(|found| found.spec).collect();
        let all: Vec<_> = specs
            .iter()
            .flat_map(|spec| (0..spec.partitions).map(|partition| TopicPartition::new(spec.name.clone(), partition)))
            .collect();
        let (starts, ends) = (self.metadata.start_offsets(&all).await?, self.metadata.end_offsets(&all).await?);
        let describe = |spec: TopicSpec| TopicDescription {
            starts: starts.of_topic(&spec.name),
            ends: ends.of_topic(&spec.name),
            spec,
        };
        Ok(specs.into_iter().map(describe).collect())
    }

    /// Creates the missing topics, and changes the settings of the others. Fails before the first change if a
    /// difference is not allowed.
    pub async fn ensure(&self, wanted: &[TopicSpec]) -> Result<(), LogError> {
        let existing = self.existing_by_name().await?;
        let (mut missing, mut changed) = (Vec::new(), Vec::new());
        for spec in wanted {
            match existing.get(&spec.name) {
                None => missing.push(spec),
                Some(topic) => {
                    reject_difference(&topic.spec, spec)?;
                    if !self.has_settings_of(&topic.spec, spec) {
                        changed.push((spec, topic.own_settings.clone()));
                    }
                }
            }
        }
        self.store_partitioners(&missing).await?;
        self.create(&missing).await?;
        let wanted: Vec<&TopicSpec> = changed.iter().map(|(spec, _)| *spec).collect();
        for (spec, mut all_settings) in changed {
            // The request replaces all settings of the topic, so it includes those that an operator has made.
            let wanted_settings = settings(spec, self.replication).into_iter();
            all_settings.extend(wanted_settings.map(|(key, value)| (key.to_owned(), value)));
            let mut config = AlterConfig::new(ResourceSpecifier::Topic(spec.name.as_str()));
            for (key, value) in &all_settings {
                config = config.set(key, value);
            }
            let answers = self.client.alter_configs(&[config], &options()).await;
            let answers = answers.map_err(|error| topic_error(&spec.name, "changing a topic failed", &error))?;
            for answer in answers {
                answer.map_err(|(_, code)| {
                    LogError::Unavailable(format!("kafka: changing topic {} failed: {code}", spec.name))
                })?;
            }
        }
        self.wait_for_settings(&wanted).await
    }

    /// True if both specs name the same topic with the same Kafka settings.
    fn has_settings_of(&self, existing: &TopicSpec, wanted: &TopicSpec) -> bool {
        let replication = self.replication;
        existing.name == wanted.name && settings(existing, replication) == settings(wanted, replication)
    }

    /// Waits until the brokers report the wanted settings. They do so shortly after the controller has accepted them.
    async fn wait_for_settings(&self, wanted: &[&TopicSpec]) -> Result<(), LogError> {
        let deadline = tokio::time::Instant::now() + APPLY_TIMEOUT;
        while !wanted.is_empty() {
            let existing = self.existing_topics().await?;
            let applied = |spec: &TopicSpec| existing.iter().any(|topic| self.has_settings_of(&topic.spec, spec));
            let Some(late) = wanted.iter().find(|spec| !applied(spec)) else { break };
            if tokio::time::Instant::now() > deadline {
                return Err(LogError::Unavailable(format!("kafka: topic {} was not changed in time", late.name)));
            }
            tokio::time::sleep(APPLY_CHECK_INTERVAL).await;
        }
        Ok(())
    }

    /// Creates topics, and waits until each of them is readable.
    pub(super) async fn create(&self, specs: &[&TopicSpec]) -> Result<(), LogError> {
        if specs.is_empty() {
            return Ok(());
        }
        let settings: Vec<_> = specs.iter().map(|spec| settings(spec, self.replication)).collect();
        let topics: Vec<_> = specs
            .iter()
            .zip(&settings)
            .map(|(spec, settings)| {
                let replication = TopicReplication::Fixed(self.replication);
                let topic = NewTopic::new(spec.name.as_str(), partition_number(spec.partitions), replication);
                settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let answers = self.client.create_topics(&topics, &options()).await;
        for answer in answers.map_err(|error| unavailable("creating topics failed", &error))? {
            match answer {
                // Another process created the topic first. The next check compares the settings.
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(LogError::Unavailable(format!("kafka: creating topic {name} failed: {code}")));
                }
            }
        }
        let deadline = tokio::time::Instant::now() + APPLY_TIMEOUT;
        loop {
            let counts = self.topics.refresh().await?;
            let missing = specs.iter().find(|spec| !counts.contains_key(&spec.name));
            let Some(missing) = missing else { return Ok(()) };
            if tokio::time::Instant::now() > deadline {
                let name = &missing.name;
                return Err(LogError::Unavailable(format!("kafka: topic {name} was created, but has no leader yet")));
            }
            tokio::time::sleep(APPLY_CHECK_INTERVAL).await;
        }
    }

    /// Deletes the records below these offsets.
    pub async fn delete_records(&self, before: &Positions) -> Result<(), LogError> {
        // Kafka rejects an offset below the start. Those records are deleted already, so the partition is skipped.
        let all: Vec<_> = before.iter().map(|(at, _)| at.clone()).collect();
        let starts = self.metadata.start_offsets(&all).await?;
        let higher: Positions =
            before.iter().filter(|(at, next)| *next > starts.next(at)).map(|(at, next)| (at.clone(), next)).collect();
        if higher.is_empty() {
            return Ok(());
        }
        let answer = self.client.delete_records(&partition_list(&higher)?, &options()).await;
        let answer = answer.map_err(|error| unavailable("deleting records failed", &error))?;
        for element in answer.elements() {
            element.error().map_err(|error| unavailable("deleting records failed", &error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_the_conversion_to_settings_and_back() {
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

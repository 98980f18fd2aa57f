//! Queries about the cluster: its id, topics, partition offsets and consumer groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use carbon_core::{Positions, Timestamp, TopicName, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::MetadataPartition;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::client::{
    REQUEST_TIMEOUT, TracingContext, back_off, blocking, partition_number, positions, topic_error, unavailable,
};
use super::options::{KafkaOptions, PLACEHOLDER_GROUP};
use crate::error::LogError;
use crate::event_log::Group;

/// Owns the client that queries the cluster. The client is a consumer because only consumers can list offsets. It
/// belongs to no group. Clones share it.
#[derive(Clone)]
pub(super) struct MetadataClient {
    consumer: Arc<BaseConsumer<TracingContext>>,
}

impl MetadataClient {
    pub fn new(options: &KafkaOptions) -> KafkaResult<Self> {
        let mut config = options.consumer(PLACEHOLDER_GROUP);
        config.remove("group.id");
        Ok(Self { consumer: Arc::new(config.create_with_context(TracingContext)?) })
    }

    /// The id of the cluster. Fails if no broker answers within [`REQUEST_TIMEOUT`].
    pub async fn cluster_id(&self, brokers: &str) -> Result<String, LogError> {
        let (consumer, brokers) = (self.consumer.clone(), brokers.to_owned());
        blocking(move || {
            let metadata = consumer.client().fetch_metadata(None, REQUEST_TIMEOUT);
            metadata.map_err(|error| unavailable(&format!("no cluster at {brokers}"), &error))?;
            let id = consumer.client().fetch_cluster_id(REQUEST_TIMEOUT);
            id.ok_or_else(|| LogError::Unavailable("kafka: the cluster did not report its id".into()))
        })
        .await
    }

    /// The topics of the cluster, with what `describe` returns for the partitions of each. A topic is omitted if
    /// `describe` returns `None`, or if the name is not valid here.
    pub async fn topics<T: Send + 'static>(
        &self,
        describe: impl Fn(&[MetadataPartition]) -> Option<T> + Send + 'static,
    ) -> Result<BTreeMap<TopicName, T>, LogError> {
        let consumer = self.consumer.clone();
        blocking(move || {
            let metadata = consumer.client().fetch_metadata(None, REQUEST_TIMEOUT);
            let metadata = metadata.map_err(|error| unavailable("listing topics failed", &error))?;
            let existing = metadata.topics().iter().filter(|topic| topic.error().is_none());
            Ok(existing
                .filter_map(|topic| Some((TopicName::parse(topic.name()).ok()?, describe(topic.partitions())?)))
                .collect())
        })
        .await
    }

    /// The first offset of each partition.
    pub async fn start_offsets(&self, partitions: &[TopicPartition]) -> Result<Positions, LogError> {
        Ok(positions(&self.list_offsets(partitions, Offset::Beginning).await?, |_| Some(0)))
    }

    /// The end offset of each partition. It is the last stable offset: records of open transactions lie beyond it.
    pub async fn end_offsets(&self, partitions: &[TopicPartition]) -> Result<Positions, LogError> {
        Ok(positions(&self.list_offsets(partitions, Offset::End).await?, |_| Some(0)))
    }

    /// The first offset of each partition whose record is not older than `time`, or the end offset if all are older.
    pub async fn offsets_for_time(
        &self,
        partitions: &[TopicPartition],
        time: Timestamp,
    ) -> Result<Positions, LogError> {
        let found = self.list_offsets(partitions, Offset::Offset(time.0.max(0))).await?;
        let ends = self.end_offsets(partitions).await?;
        Ok(positions(&found, |at| ends.get(at)))
    }

    /// Kafka's `ListOffsets` request. `time` is a timestamp in milliseconds, `Offset::Beginning` or `Offset::End`. The
    /// client is `read_committed`, so the answer to `End` is the last stable offset. Retries for up to
    /// [`REQUEST_TIMEOUT`] while partitions change their leaders.
    async fn list_offsets(&self, partitions: &[TopicPartition], time: Offset) -> Result<TopicPartitionList, LogError> {
        let mut request = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            request
                .add_partition_offset(at.topic.as_str(), partition_number(at.partition), time)
                .map_err(|error| unavailable("timestamp rejected by the client", &error))?;
        }
        if partitions.is_empty() {
            return Ok(request);
        }
        let consumer = self.consumer.clone();
        blocking(move || {
            let started = Instant::now();
            loop {
                let answer = consumer.offsets_for_times(request.clone(), REQUEST_TIMEOUT);
                let failure = match &answer {
                    Err(error) => Some((None, error.clone())),
                    Ok(answer) => answer.elements().iter().find_map(|element| {
                        let error = element.error().err()?;
                        Some((Some(TopicName::parse(element.topic()).ok()?), error))
                    }),
                };
                match failure {
                    None => return answer.map_err(|error| unavailable("listing offsets failed", &error)),
                    Some((_, error)) if is_transient(&error) && started.elapsed() < REQUEST_TIMEOUT => {
                        // The request refreshes the client's list of leaders.
                        drop(consumer.client().fetch_metadata(None, REQUEST_TIMEOUT));
                        back_off();
                    }
                    Some((Some(topic), error)) => return Err(topic_error(&topic, "listing offsets failed", &error)),
                    Some((None, error)) => return Err(unavailable("listing offsets failed", &error)),
                }
            }
        })
        .await
    }

    /// The groups of carbon-ml that the brokers know, each with its number of members.
    pub async fn groups(&self) -> Result<Vec<(Group, usize)>, LogError> {
        let consumer = self.consumer.clone();
        blocking(move || {
            let groups = consumer.client().fetch_group_list(None, REQUEST_TIMEOUT);
            let groups = groups.map_err(|error| match error.rdkafka_error_code() {
                // A coordinator is being elected.
                Some(Code::Partial) => LogError::Unavailable("kafka: not every broker listed its groups".into()),
                _ => unavailable("listing groups failed", &error),
            })?;
            let own =
                groups.groups().iter().filter_map(|group| Some((Group::parse(group.name())?, group.members().len())));
            Ok(own.collect())
        })
        .await
    }
}

/// True for the errors of a partition or coordinator that is being moved or elected. A retry succeeds soon.
fn is_transient(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::ReplicaNotAvailable
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                | Code::OffsetNotAvailable
                | Code::NotCoordinator
                | Code::KafkaStorageError
        )
    )
}

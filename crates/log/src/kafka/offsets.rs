//! Where partitions begin and end, and how far groups are.

use std::sync::Arc;
use std::time::Instant;

use carbon_core::{Positions, Timestamp, TopicName, TopicPartition};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::Inner;
use super::client::{PATIENCE, Quiet, blocking, breathe, list, number, of_topic, positions, unavailable};
use crate::error::LogError;
use crate::event_log::{Group, GroupDescription};

/// How many groups are asked about at a time.
const AT_ONCE: usize = 8;

fn is_passing(error: &KafkaError) -> bool {
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

impl Inner {
    /// Asks for offsets by times; `Beginning` and `End` are Kafka's own questions for both ends. The end that
    /// a `read_committed` client is told is the last stable offset.
    async fn ask(&self, partitions: &[TopicPartition], time: Offset) -> Result<TopicPartitionList, LogError> {
        let mut question = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            question
                .add_partition_offset(at.topic.as_str(), number(at.partition), time)
                .map_err(|error| unavailable("offsets cannot be asked for", &error))?;
        }
        if partitions.is_empty() {
            return Ok(question);
        }
        let client = self.client.clone();
        blocking(move || {
            let began = Instant::now();
            loop {
                let answer = client.offsets_for_times(question.clone(), PATIENCE);
                let failed = match &answer {
                    Err(error) => Some((None, error.clone())),
                    Ok(answer) => answer.elements().iter().find_map(|element| {
                        let error = element.error().err()?;
                        Some((Some(TopicName::parse(element.topic()).ok()?), error))
                    }),
                };
                match failed {
                    None => return answer.map_err(|error| unavailable("offsets cannot be told", &error)),
                    // A leader that is just being elected, or one that has moved.
                    Some((_, error)) if is_passing(&error) && began.elapsed() < PATIENCE => {
                        drop(client.client().fetch_metadata(None, PATIENCE));
                        breathe();
                    }
                    Some((Some(topic), error)) => return Err(of_topic(&topic, "offsets cannot be told", &error)),
                    Some((None, error)) => return Err(unavailable("offsets cannot be told", &error)),
                }
            }
        })
        .await
    }

    pub(super) async fn starts(&self, partitions: &[TopicPartition]) -> Result<Positions, LogError> {
        Ok(positions(&self.ask(partitions, Offset::Beginning).await?, |_| Some(0)))
    }

    pub(super) async fn ends_of(&self, partitions: &[TopicPartition]) -> Result<Positions, LogError> {
        Ok(positions(&self.ask(partitions, Offset::End).await?, |_| Some(0)))
    }

    pub(super) async fn at_time(&self, topic: &TopicName, time: Timestamp) -> Result<Positions, LogError> {
        let all = self.partitions_of(topic).await?;
        let found = self.ask(&all, Offset::Offset(time.0.max(0))).await?;
        let ends = self.ends_of(&all).await?;
        // Where no record is young enough, the answer is the end.
        Ok(positions(&found, |at| ends.get(at)))
    }

    /// The client that asks for a group's offsets, where no member of it is here.
    pub(super) fn asker(&self, group: &Group) -> Result<Arc<BaseConsumer<Quiet>>, LogError> {
        let mut askers = self.askers();
        if let Some(asker) = askers.get(group) {
            return Ok(asker.clone());
        }
        let asker = Arc::new(self.new_asker(group)?);
        askers.insert(group.clone(), asker.clone());
        Ok(asker)
    }

    fn new_asker(&self, group: &Group) -> Result<BaseConsumer<Quiet>, LogError> {
        let made = self.options.consumer(group.as_str()).create_with_context(Quiet);
        made.map_err(|error| unavailable("a client cannot be made", &error))
    }

    pub(super) async fn committed(&self, group: &Group) -> Result<Positions, LogError> {
        let question = self.all_partitions().await?;
        self.committed_of(group, question).await
    }

    async fn all_partitions(&self) -> Result<TopicPartitionList, LogError> {
        let mut all = TopicPartitionList::new();
        for (topic, partitions) in self.refresh().await?.iter().filter(|(topic, _)| !topic.as_str().starts_with("__")) {
            all.add_partition_range(topic.as_str(), 0, number(*partitions) - 1);
        }
        Ok(all)
    }

    /// The stable offsets of a group: what a transaction under way will move is waited for, also where the brokers have
    /// to end one of a dead process first.
    pub(super) async fn committed_of(
        &self,
        group: &Group,
        question: TopicPartitionList,
    ) -> Result<Positions, LogError> {
        self.committed_by(self.asker(group)?, question).await
    }

    async fn committed_by(
        &self,
        asker: Arc<BaseConsumer<Quiet>>,
        question: TopicPartitionList,
    ) -> Result<Positions, LogError> {
        blocking(move || {
            // Errors that nobody takes would pile up.
            drop(asker.poll(std::time::Duration::ZERO));
            let answer = asker.committed_offsets(question, PATIENCE * 3);
            let answer = answer.map_err(|error| unavailable("a group's offsets cannot be read", &error))?;
            Ok(positions(&answer, |_| None))
        })
        .await
    }

    pub(super) async fn commit(&self, group: &Group, positions: &Positions) -> Result<(), LogError> {
        let list = list(positions)?;
        let member = self.member(group);
        let asker = if member.is_none() { Some(self.asker(group)?) } else { None };
        blocking(move || {
            let outcome = match (&member, &asker) {
                (Some(member), _) => member.commit(&list),
                (None, Some(asker)) => asker.commit(&list, CommitMode::Sync),
                (None, None) => Ok(()),
            };
            outcome.map_err(|error| unavailable("a group's offsets cannot be committed", &error))
        })
        .await
    }

    /// The groups of this platform that the brokers know.
    pub(super) async fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        let client = self.client.clone();
        let listed = blocking(move || {
            let groups = client.client().fetch_group_list(None, PATIENCE);
            let groups = groups.map_err(|error| match error.rdkafka_error_code() {
                // A coordinator that is just being elected.
                Some(Code::Partial) => LogError::Unavailable("kafka: not every broker told its groups".into()),
                _ => unavailable("groups cannot be listed", &error),
            })?;
            let ours =
                groups.groups().iter().filter_map(|group| Some((Group::parse(group.name())?, group.members().len())));
            Ok(ours.collect::<Vec<_>>())
        })
        .await?;
        let all = self.all_partitions().await?;
        let describe = |(group, members): (Group, usize)| {
            let all = all.clone();
            async move {
                // Groups of instances that are gone stay for days: their clients are not kept.
                let known = self.askers().get(&group).cloned();
                let asker = known.map_or_else(|| self.new_asker(&group).map(Arc::new), Ok)?;
                let positions = self.committed_by(asker, all).await?;
                Ok(GroupDescription { group, members, positions })
            }
        };
        stream::iter(listed).map(describe).buffered(AT_ONCE).try_collect().await
    }
}

//! Consumer groups: the members of this process, and the committed offsets of all groups.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carbon_core::Positions;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::client::{REQUEST_TIMEOUT, TracingContext, blocking, lock, partition_list, positions, unavailable};
use super::member::Member;
use super::metadata::MetadataClient;
use super::options::KafkaOptions;
use super::topic_cache::TopicCache;
use crate::error::LogError;
use crate::event_log::{Group, GroupDescription};

/// Number of groups whose offsets are queried concurrently.
const CONCURRENT_QUERIES: usize = 8;

/// Owns the group members of this process, and one client per group that reads and commits offsets.
pub(super) struct ConsumerGroups {
    options: Arc<KafkaOptions>,
    metadata: MetadataClient,
    topics: Arc<TopicCache>,
    /// All members that this process has had. The next member of a group evicts those that have left.
    members: Mutex<HashMap<Group, Vec<Arc<Member>>>>,
    /// Clients that are not members.
    offset_clients: Mutex<HashMap<Group, Arc<BaseConsumer<TracingContext>>>>,
}

impl ConsumerGroups {
    pub fn new(options: Arc<KafkaOptions>, metadata: MetadataClient, topics: Arc<TopicCache>) -> Self {
        Self { options, metadata, topics, members: Mutex::default(), offset_clients: Mutex::default() }
    }

    /// Adds a member of this process, and evicts the members that have left the group.
    pub fn add_member(&self, group: &Group, member: Arc<Member>) {
        let mut members = lock(&self.members);
        let own = members.entry(group.clone()).or_default();
        own.retain(|member| member.is_alive());
        own.push(member);
    }

    /// The members of this process; `None` if this process never joined the group.
    pub fn members(&self, group: &Group) -> Option<Vec<Arc<Member>>> {
        lock(&self.members).get(group).cloned()
    }

    /// The newest member of this process that has not left the group.
    fn current_member(&self, group: &Group) -> Option<Arc<Member>> {
        self.members(group)?.into_iter().rev().find(|member| member.is_alive())
    }

    /// The client that reads and commits the group's offsets without being a member. Creates the client if needed.
    pub fn offset_client(&self, group: &Group) -> Result<Arc<BaseConsumer<TracingContext>>, LogError> {
        let mut clients = lock(&self.offset_clients);
        if let Some(client) = clients.get(group) {
            return Ok(client.clone());
        }
        let client = Arc::new(self.new_offset_client(group)?);
        clients.insert(group.clone(), client.clone());
        Ok(client)
    }

    fn new_offset_client(&self, group: &Group) -> Result<BaseConsumer<TracingContext>, LogError> {
        let client = self.options.consumer(group.as_str()).create_with_context(TracingContext);
        client.map_err(|error| unavailable("creating a client failed", &error))
    }

    /// The committed offsets of a group, for the partitions of all topics.
    pub async fn committed(&self, group: &Group) -> Result<Positions, LogError> {
        let partitions = self.topics.all_partitions().await?;
        self.committed_of(group, partitions).await
    }

    /// The committed offsets of a group. Waits for the end of an open transaction that commits offsets of the group,
    /// also if its process is dead and the brokers have to abort the transaction.
    pub async fn committed_of(&self, group: &Group, partitions: TopicPartitionList) -> Result<Positions, LogError> {
        committed_offsets(self.offset_client(group)?, partitions).await
    }

    /// Commits offsets: in the name of the current member, or without a member if this process has none.
    pub async fn commit(&self, group: &Group, positions: &Positions) -> Result<(), LogError> {
        let list = partition_list(positions)?;
        let member = self.current_member(group);
        let client = if member.is_none() { Some(self.offset_client(group)?) } else { None };
        blocking(move || {
            let outcome = match (&member, &client) {
                (Some(member), _) => member.commit(&list),
                (None, Some(client)) => client.commit(&list, CommitMode::Sync),
                (None, None) => Ok(()),
            };
            outcome.map_err(|error| unavailable("committing the offsets of a group failed", &error))
        })
        .await
    }

    /// The groups of carbon-ml that the brokers know, with their members and committed offsets.
    pub async fn describe(&self) -> Result<Vec<GroupDescription>, LogError> {
        let listed = self.metadata.groups().await?;
        let partitions = self.topics.all_partitions().await?;
        let describe = |(group, members): (Group, usize)| {
            let partitions = partitions.clone();
            async move {
                // A new client is not cached: the brokers list the groups of dead processes for days.
                let cached = lock(&self.offset_clients).get(&group).cloned();
                let client = cached.map_or_else(|| self.new_offset_client(&group).map(Arc::new), Ok)?;
                let positions = committed_offsets(client, partitions).await?;
                Ok(GroupDescription { group, members, positions })
            }
        };
        stream::iter(listed).map(describe).buffered(CONCURRENT_QUERIES).try_collect().await
    }

    /// Closes the clients that are not members.
    pub fn close(&self) {
        lock(&self.offset_clients).clear();
    }
}

/// The committed offsets of the client's group.
async fn committed_offsets(
    client: Arc<BaseConsumer<TracingContext>>,
    partitions: TopicPartitionList,
) -> Result<Positions, LogError> {
    blocking(move || {
        // The poll empties the client's queue of errors, which would grow without bound.
        drop(client.poll(Duration::ZERO));
        let answer = client.committed_offsets(partitions, REQUEST_TIMEOUT * 3);
        let answer = answer.map_err(|error| unavailable("reading the offsets of a group failed", &error))?;
        Ok(positions(&answer, |_| None))
    })
    .await
}

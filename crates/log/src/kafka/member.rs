//! A group member of this process, as seen by the code that commits in its name.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use carbon_core::TopicPartition;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::client::lock;
use super::subscription::SubscriptionContext;

/// The partitions that a member owns.
#[derive(Default)]
pub(super) struct Ownership {
    /// Changes with every rebalance callback. No two members of a process have the same epoch.
    pub epoch: u64,
    pub partitions: BTreeSet<TopicPartition>,
}

impl Ownership {
    /// Draws a new epoch.
    pub fn renew_epoch(&mut self) {
        static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);
        self.epoch = NEXT_EPOCH.fetch_add(1, Ordering::Relaxed);
    }
}

/// Owns the ownership of one group member, and a weak reference to its consumer. The polling thread owns the consumer.
#[derive(Default)]
pub(super) struct Member {
    consumer: Mutex<Weak<BaseConsumer<SubscriptionContext>>>,
    ownership: Mutex<Ownership>,
}

impl Member {
    pub fn set_consumer(&self, consumer: &Arc<BaseConsumer<SubscriptionContext>>) {
        *lock(&self.consumer) = Arc::downgrade(consumer);
    }

    pub fn ownership(&self) -> MutexGuard<'_, Ownership> {
        lock(&self.ownership)
    }

    /// True until the polling thread drops the consumer, which then leaves the group.
    pub fn is_alive(&self) -> bool {
        lock(&self.consumer).strong_count() > 0
    }

    /// The member's current id and generation. They are read from the consumer, because a rebalance changes them before
    /// the polling thread runs its callback.
    ///
    /// `None` if the member has left the group, or was removed from it. The metadata of a removed member looks like
    /// that of a client that never joined, which the brokers do not fence.
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        let consumer = lock(&self.consumer).upgrade()?;
        let metadata = consumer.group_metadata();
        if consumer.assignment_lost() { None } else { metadata }
    }

    /// Commits offsets in the member's name, and waits for the answer. Blocks.
    pub fn commit(&self, offsets: &TopicPartitionList) -> KafkaResult<()> {
        let consumer = lock(&self.consumer).upgrade().ok_or(KafkaError::Canceled)?;
        consumer.commit(offsets, CommitMode::Sync)
    }
}

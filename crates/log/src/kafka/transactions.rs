//! Appending as a stage: the outputs and the input position are committed in one transaction (law 5; KIP-447). The
//! transaction carries the member's id and generation, so the brokers fence a member that has lost its partitions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use carbon_core::{Position, Positions, TopicPartition};
use rdkafka::consumer::{Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::client::{
    REQUEST_TIMEOUT, RETRY_PAUSE, TracingContext, back_off, blocking, lock, partition_list, partition_number, reason,
    unavailable,
};
use super::groups::ConsumerGroups;
use super::options::KafkaOptions;
use super::producer::{FramedRecord, ProducerClient, acknowledged, enqueue};
use crate::error::LogError;
use crate::event_log::Group;

/// How long one step of a transaction is retried. After that the outcome is unknown, and the next attempt opens a new
/// producer, which ends the transaction.
const STEP_RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// Owns the transactional producers of this process, one per group.
pub(super) struct TransactionalProducers {
    options: Arc<KafkaOptions>,
    groups: Arc<ConsumerGroups>,
    producers: StdMutex<HashMap<Group, Arc<Mutex<GroupProducer>>>>,
}

/// Owns the transactional producer of one group. Its lock serialises the group's transactions.
#[derive(Default)]
struct GroupProducer {
    /// `None` before the first transaction, and after one whose outcome is unknown.
    client: Option<ProducerClient>,
    /// The group's offsets that this process committed, with the ownership epoch of that time. Valid in this epoch
    /// only: until the next rebalance no other process can commit them.
    committed: Option<(u64, Positions)>,
}

/// The member in whose name a transaction commits offsets.
struct Committer {
    /// The member's ownership epoch; `None` if this process never joined the group.
    epoch: Option<u64>,
    metadata: ConsumerGroupMetadata,
}

/// The outcome of one attempt, and what the next attempt needs. The inner error means that the attempt was fenced; the
/// code is the brokers', if they fenced it.
struct Attempt {
    producer: OwnedMutexGuard<GroupProducer>,
    records: Vec<FramedRecord>,
    outcome: Result<Vec<Position>, Option<Code>>,
}

enum Failure {
    /// The transaction was aborted: nothing was written.
    Aborted(KafkaError),
    /// The transaction may be committed or not. The producer cannot be used again.
    Unknown(KafkaError),
}

impl TransactionalProducers {
    pub fn new(options: Arc<KafkaOptions>, groups: Arc<ConsumerGroups>) -> Self {
        Self { options, groups, producers: StdMutex::default() }
    }

    fn producer(&self, group: &Group) -> Arc<Mutex<GroupProducer>> {
        lock(&self.producers).entry(group.clone()).or_default().clone()
    }

    /// Evicts the remembered offsets of a group. Must be called before the group's offsets are committed otherwise.
    pub async fn evict_offsets(&self, group: &Group) {
        self.producer(group).lock().await.committed = None;
    }

    /// Appends records and moves the group's offsets from `from` to `upto`, in one transaction. Fails with
    /// [`LogError::Fenced`] if this process does not own the partitions, or the offsets are not at `from`.
    pub async fn append_and_advance(
        &self,
        group: &Group,
        records: Vec<FramedRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<Position>, LogError> {
        let mut producer = self.producer(group).lock_owned().await;
        let (mut records, started) = (records, Instant::now());
        loop {
            let attempt = self.attempt(group, producer, records, from, upto).await?;
            (producer, records) = (attempt.producer, attempt.records);
            match attempt.outcome {
                Ok(positions) => return Ok(positions),
                // A rebalance happened during the attempt. The next attempt checks the ownership again.
                Err(Some(Code::IllegalGeneration)) if started.elapsed() < REQUEST_TIMEOUT => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(_) => break,
            }
        }
        drop(producer);
        let actual = self.groups.committed(group).await?;
        Err(LogError::Fenced { group: group.to_string(), actual })
    }

    /// Attempts the transaction once.
    async fn attempt(
        &self,
        group: &Group,
        mut producer: OwnedMutexGuard<GroupProducer>,
        records: Vec<FramedRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Attempt, LogError> {
        let client = match producer.client.take() {
            Some(client) => client,
            None => {
                producer.committed = None;
                self.open_client(group).await?
            }
        };
        // The order matters: first the member's metadata, then the ownership, then the offsets. A rebalance between
        // them makes the metadata outdated, and the brokers fence the transaction.
        let Some(committer) = self.committer(group, upto).await? else {
            producer.client = Some(client);
            return Ok(Attempt { producer, records, outcome: Err(None) });
        };
        let current = match (&producer.committed, committer.epoch) {
            (Some((epoch, committed)), Some(now))
                if *epoch == now && upto.iter().all(|(at, _)| committed.get(at).is_some()) =>
            {
                committed.clone()
            }
            _ => {
                let mut partitions = TopicPartitionList::new();
                for (at, _) in upto.iter() {
                    partitions.add_partition(at.topic.as_str(), partition_number(at.partition));
                }
                self.groups.committed_of(group, partitions).await?
            }
        };
        if upto.iter().any(|(at, _)| current.next(at) != from.next(at)) {
            producer.client = Some(client);
            producer.committed = None;
            return Ok(Attempt { producer, records, outcome: Err(None) });
        }
        let Committer { epoch, metadata } = committer;
        let (offsets, handle) = (partition_list(upto)?, Handle::current());
        // The blocking call runs to its end, also if the caller is cancelled.
        let (mut producer, records, outcome) = blocking(move || {
            let outcome = transact(&handle, &client, &records, &offsets, &metadata);
            if !matches!(outcome, Err(Failure::Unknown(_))) {
                producer.client = Some(client);
            }
            Ok((producer, records, outcome))
        })
        .await?;
        match outcome {
            Ok(positions) => {
                producer.committed = epoch.map(|epoch| {
                    let mut committed =
                        producer.committed.take().filter(|(then, _)| *then == epoch).unwrap_or_default().1;
                    committed.merge(upto);
                    (epoch, committed)
                });
                Ok(Attempt { producer, records, outcome: Ok(positions) })
            }
            Err(Failure::Aborted(error)) => {
                producer.committed = None;
                match is_fenced(&error) {
                    true => Ok(Attempt { producer, records, outcome: Err(error.rdkafka_error_code()) }),
                    false => Err(unavailable("a transaction was aborted", &error)),
                }
            }
            Err(Failure::Unknown(error)) => Err(unavailable("the outcome of a transaction is unknown", &error)),
        }
    }

    /// Creates the group's transactional producer. The brokers end a transaction that an earlier producer of the same
    /// `transactional.id` left open.
    async fn open_client(&self, group: &Group) -> Result<ProducerClient, LogError> {
        let config = self.options.transactional(group);
        let client: ProducerClient = config
            .create_with_context(TracingContext)
            .map_err(|error| unavailable("creating a transactional producer failed", &error))?;
        blocking(move || {
            retry_step(|| client.init_transactions(REQUEST_TIMEOUT))
                .map_err(|error| unavailable("initialising transactions failed", &error))?;
            Ok(client)
        })
        .await
    }

    /// The member of this process that owns all partitions of `upto`; `None` if there is none.
    async fn committer(&self, group: &Group, upto: &Positions) -> Result<Option<Committer>, LogError> {
        let (groups, group, upto) = (self.groups.clone(), group.clone(), upto.clone());
        blocking(move || {
            let Some(members) = groups.members(&group) else {
                // This process never joined the group: it is a tool or a test.
                let metadata = groups.offset_client(&group)?.group_metadata();
                let metadata = metadata.ok_or_else(|| LogError::Corrupt(format!("group {group} has no metadata")))?;
                return Ok(Some(Committer { epoch: None, metadata }));
            };
            Ok(members.iter().find_map(|member| {
                let metadata = member.metadata()?;
                let ownership = member.ownership();
                let owned = upto.iter().all(|(at, _)| ownership.partitions.contains(at));
                owned.then_some(Committer { epoch: Some(ownership.epoch), metadata })
            }))
        })
        .await
    }
}

/// Runs one transaction: records and offsets. Blocks.
fn transact(
    handle: &Handle,
    client: &ProducerClient,
    records: &[FramedRecord],
    offsets: &TopicPartitionList,
    metadata: &ConsumerGroupMetadata,
) -> Result<Vec<Position>, Failure> {
    retry_step(|| client.begin_transaction()).map_err(Failure::Unknown)?;
    let outcome = send_records(handle, client, records).and_then(|positions| {
        retry_step(|| client.send_offsets_to_transaction(offsets, metadata, REQUEST_TIMEOUT))?;
        Ok(positions)
    });
    let committed = outcome.and_then(|positions| {
        retry_step(|| client.commit_transaction(REQUEST_TIMEOUT))?;
        Ok(positions)
    });
    committed.map_err(|error| {
        let fatal = matches!(&error, KafkaError::Transaction(error) if error.is_fatal());
        let timed_out = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
        if fatal || timed_out {
            return Failure::Unknown(error);
        }
        match retry_step(|| client.abort_transaction(REQUEST_TIMEOUT)) {
            Ok(()) => Failure::Aborted(error),
            Err(abort) => {
                tracing::warn!(error = %reason(&abort), "aborting a transaction failed; its outcome is unknown");
                Failure::Unknown(error)
            }
        }
    })
}

/// Sends a transaction's records, and waits until the broker has acknowledged each.
fn send_records(handle: &Handle, client: &ProducerClient, records: &[FramedRecord]) -> KafkaResult<Vec<Position>> {
    handle.block_on(async {
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            deliveries.push((record, enqueue(client, record).await?));
        }
        let mut positions = Vec::with_capacity(records.len());
        for (record, delivery) in deliveries {
            let at: &TopicPartition = &record.at;
            positions.push(acknowledged(at, delivery).await?);
        }
        Ok(positions)
    })
}

/// Retries a step of a transaction while librdkafka reports a retriable error, for up to [`STEP_RETRY_TIMEOUT`].
fn retry_step(step: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    let started = Instant::now();
    loop {
        match step() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && started.elapsed() < STEP_RETRY_TIMEOUT => {
                back_off();
            }
            outcome => return outcome,
        }
    }
}

/// True if the brokers fenced the member or its producer: another one has taken its place.
fn is_fenced(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::FencedInstanceId
                | Code::Fenced
                | Code::ProducerFenced
                | Code::InvalidProducerEpoch
        )
    )
}

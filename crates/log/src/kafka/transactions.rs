//! A stage's outputs and its input position, as one (law 5; KIP-447): the transaction carries the member's id
//! and generation, so that the brokers refuse those of a member whose partitions have moved on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use carbon_core::{Position, Positions, TopicPartition};
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Inner;
use super::client::{PATIENCE, Quiet, blocking, breathe, list, number, reason, unavailable};
use super::producer::{Placed, Producer, delivered, enqueue};
use crate::error::LogError;
use crate::event_log::Group;

/// How long a step is tried again before the outcome is left to the next attempt.
const STUBBORN: Duration = Duration::from_secs(30);

/// The transactional producer of one group, and what it knows. Transactions of a group follow each other.
#[derive(Default)]
pub(super) struct Transactions {
    producer: Option<Producer>,
    /// Where the group stands, as of this member's own commits in this epoch: nobody else can move it meanwhile.
    known: Option<(u64, Positions)>,
}

impl Transactions {
    pub fn forget_positions(&mut self) {
        self.known = None;
    }
}

/// In whose name a transaction moves the group.
struct Permit {
    epoch: Option<u64>,
    metadata: ConsumerGroupMetadata,
}

/// The lock and the records come back, for the next attempt.
type Attempt = (OwnedMutexGuard<Transactions>, Vec<Placed>, Result<Vec<Position>, Option<Code>>);

enum Failure {
    /// Nothing was written.
    Aborted(KafkaError),
    /// Nobody can tell; the producer is not to be used again.
    Unknown(KafkaError),
}

impl Inner {
    pub(super) async fn append_and_advance(
        self: &Arc<Self>,
        group: &Group,
        records: Vec<Placed>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<Position>, LogError> {
        let mut transactions = self.transactions(group).lock_owned().await;
        let (mut records, began) = (records, Instant::now());
        loop {
            let attempt;
            (transactions, records, attempt) = self.attempt(group, transactions, records, from, upto).await?;
            match attempt {
                Ok(positions) => return Ok(positions),
                // A rebalance came between. Whose the partitions are now is looked up again.
                Err(Some(Code::IllegalGeneration)) if began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(_) => break,
            }
        }
        drop(transactions);
        let actual = self.committed(group).await?;
        Err(LogError::Fenced { group: group.to_string(), actual })
    }

    /// Tries once. An error of the inner kind: it is fenced, and by which word of the brokers, if it was theirs.
    async fn attempt(
        self: &Arc<Self>,
        group: &Group,
        mut transactions: OwnedMutexGuard<Transactions>,
        records: Vec<Placed>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Attempt, LogError> {
        let producer = match transactions.producer.take() {
            Some(producer) => producer,
            None => {
                transactions.known = None;
                self.open_transactional(group).await?
            }
        };
        // The metadata is taken before it is looked whose the partitions are, and that before the offsets are.
        let Some(permit) = self.permit(group, upto).await? else {
            transactions.producer = Some(producer);
            return Ok((transactions, records, Err(None)));
        };
        let stands = match (&transactions.known, permit.epoch) {
            (Some((epoch, known)), Some(now))
                if *epoch == now && upto.iter().all(|(at, _)| known.get(at).is_some()) =>
            {
                known.clone()
            }
            _ => {
                let mut question = TopicPartitionList::new();
                for (at, _) in upto.iter() {
                    question.add_partition(at.topic.as_str(), number(at.partition));
                }
                self.committed_of(group, question).await?
            }
        };
        if upto.iter().any(|(at, _)| stands.next(at) != from.next(at)) {
            transactions.producer = Some(producer);
            transactions.known = None;
            return Ok((transactions, records, Err(None)));
        }
        let Permit { epoch, metadata } = permit;
        let (offsets, handle) = (list(upto)?, Handle::current());
        // Goes on to its end even where nobody waits for it any more.
        let (mut transactions, records, outcome) = blocking(move || {
            let outcome = transact(&handle, &producer, &records, &offsets, &metadata);
            if !matches!(outcome, Err(Failure::Unknown(_))) {
                transactions.producer = Some(producer);
            }
            Ok((transactions, records, outcome))
        })
        .await?;
        match outcome {
            Ok(positions) => {
                transactions.known = epoch.map(|epoch| {
                    let mut known = transactions.known.take().filter(|(then, _)| *then == epoch).unwrap_or_default().1;
                    known.merge(upto);
                    (epoch, known)
                });
                Ok((transactions, records, Ok(positions)))
            }
            Err(Failure::Aborted(error)) => {
                transactions.known = None;
                match is_fenced(&error) {
                    true => Ok((transactions, records, Err(error.rdkafka_error_code()))),
                    false => Err(unavailable("a transaction was aborted", &error)),
                }
            }
            Err(Failure::Unknown(error)) => Err(unavailable("a transaction did not end", &error)),
        }
    }

    /// Ends what a producer of this name before left open.
    async fn open_transactional(&self, group: &Group) -> Result<Producer, LogError> {
        let config = self.options.transactional(group);
        let producer: Producer =
            config.create_with_context(Quiet).map_err(|error| unavailable("a producer cannot be made", &error))?;
        blocking(move || {
            stubborn(|| producer.init_transactions(PATIENCE))
                .map_err(|error| unavailable("transactions cannot be opened", &error))?;
            Ok(producer)
        })
        .await
    }

    /// Whether these partitions are this process's to move; `None` where they are not.
    async fn permit(self: &Arc<Self>, group: &Group, upto: &Positions) -> Result<Option<Permit>, LogError> {
        let (inner, group, upto) = (self.clone(), group.clone(), upto.clone());
        blocking(move || {
            let Some(members) = inner.members_of(&group) else {
                // Nobody of this process ever joined the group: a tool, or a test.
                let metadata = inner.asker(&group)?.group_metadata();
                let metadata = metadata.ok_or_else(|| LogError::Corrupt(format!("group {group} has no metadata")))?;
                return Ok(Some(Permit { epoch: None, metadata }));
            };
            Ok(members.iter().find_map(|member| {
                let metadata = member.metadata()?;
                let grant = member.grant();
                let owned = upto.iter().all(|(at, _)| grant.owned.contains(at));
                owned.then_some(Permit { epoch: Some(grant.epoch), metadata })
            }))
        })
        .await
    }
}

fn transact(
    handle: &Handle,
    producer: &Producer,
    records: &[Placed],
    offsets: &TopicPartitionList,
    metadata: &ConsumerGroupMetadata,
) -> Result<Vec<Position>, Failure> {
    stubborn(|| producer.begin_transaction()).map_err(Failure::Unknown)?;
    let outcome = fill(handle, producer, records).and_then(|positions| {
        stubborn(|| producer.send_offsets_to_transaction(offsets, metadata, PATIENCE))?;
        Ok(positions)
    });
    let committed = outcome.and_then(|positions| {
        stubborn(|| producer.commit_transaction(PATIENCE))?;
        Ok(positions)
    });
    committed.map_err(|error| {
        let fatal = matches!(&error, KafkaError::Transaction(error) if error.is_fatal());
        let timed_out = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
        if fatal || timed_out {
            return Failure::Unknown(error);
        }
        match stubborn(|| producer.abort_transaction(PATIENCE)) {
            Ok(()) => Failure::Aborted(error),
            Err(abort) => {
                tracing::warn!(error = %reason(&abort), "transaction could not be aborted");
                Failure::Unknown(error)
            }
        }
    })
}

/// Sends a transaction's records, and waits until each is taken.
fn fill(handle: &Handle, producer: &Producer, records: &[Placed]) -> KafkaResult<Vec<Position>> {
    handle.block_on(async {
        let mut deliveries = Vec::with_capacity(records.len());
        for placed in records {
            deliveries.push((placed, enqueue(producer, placed).await?));
        }
        let mut positions = Vec::with_capacity(records.len());
        for (placed, delivery) in deliveries {
            let at: &TopicPartition = &placed.at;
            positions.push(delivered(at, delivery).await?);
        }
        Ok(positions)
    })
}

/// Tries a step again for as long as the library says that it may yet succeed.
fn stubborn(step: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    let began = Instant::now();
    loop {
        match step() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && began.elapsed() < STUBBORN => {
                breathe();
            }
            outcome => return outcome,
        }
    }
}

/// Whether the brokers say that somebody else has taken over.
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

/// The lock of one group's transactions.
pub(super) type Shared = Arc<Mutex<Transactions>>;

//! What a subscription delivers.

use carbon_core::{Positions, TopicPartition};
use tokio::sync::{mpsc, oneshot};

use crate::error::LogError;
use crate::record::Record;

/// One message of a subscription.
#[derive(Debug)]
pub enum Delivery {
    /// These partitions are now this member's. `start` is answered with the next offset of each, from
    /// the sink's own checkpoint; a partition left out starts at the group's committed offset, or at 0.
    Assigned { partitions: Vec<TopicPartition>, start: oneshot::Sender<Positions> },
    /// Records, in log order within each partition.
    Records(Vec<Record>),
    /// The end of a partition was seen: everything below `next` has been delivered (law 4).
    Ended { at: TopicPartition, next: u64 },
    /// These partitions are no longer this member's: finish, then acknowledge.
    Revoked { partitions: Vec<TopicPartition>, done: oneshot::Sender<()> },
}

/// The stream of a subscription. Dropping it leaves the group.
#[derive(Debug)]
pub struct RecordStream {
    deliveries: mpsc::Receiver<Result<Delivery, LogError>>,
}

impl RecordStream {
    /// Makes a stream of these deliveries, for implementations of [`EventLog`](crate::EventLog) outside this crate.
    pub fn new(deliveries: mpsc::Receiver<Result<Delivery, LogError>>) -> Self {
        Self { deliveries }
    }

    /// The next message; `None` when the log is closed. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Delivery, LogError>> {
        self.deliveries.recv().await
    }

    /// A message that is already there.
    pub fn try_next(&mut self) -> Option<Result<Delivery, LogError>> {
        self.deliveries.try_recv().ok()
    }
}

//! The deliveries of a subscription.

use carbon_core::{Positions, TopicPartition};
use tokio::sync::{mpsc, oneshot};

use crate::error::LogError;
use crate::record::Record;

/// One delivery of a subscription.
#[derive(Debug)]
pub enum Delivery {
    /// The group assigned these partitions to this member. The subscriber must answer `start` with the offset to read
    /// next for each, from its own checkpoint. A partition without an answer starts at the group's committed offset, or
    /// at 0.
    Assigned { partitions: Vec<TopicPartition>, start: oneshot::Sender<Positions> },
    /// Records, in log order within each partition.
    Records(Vec<Record>),
    /// The reader has reached the end of a partition: all records below `next` were delivered (law 4).
    Ended { at: TopicPartition, next: u64 },
    /// The group revokes these partitions. The subscriber finishes its work on them, and then acknowledges with `done`.
    Revoked { partitions: Vec<TopicPartition>, done: oneshot::Sender<()> },
}

/// The stream of a subscription. Dropping it leaves the group.
#[derive(Debug)]
pub struct RecordStream {
    deliveries: mpsc::Receiver<Result<Delivery, LogError>>,
}

impl RecordStream {
    /// A stream of these deliveries. Public for implementations of [`EventLog`](crate::EventLog) outside this crate.
    pub fn new(deliveries: mpsc::Receiver<Result<Delivery, LogError>>) -> Self {
        Self { deliveries }
    }

    /// The next delivery; `None` when the log is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Delivery, LogError>> {
        self.deliveries.recv().await
    }

    /// The next delivery if one is buffered. Does not wait.
    pub fn try_next(&mut self) -> Option<Result<Delivery, LogError>> {
        self.deliveries.try_recv().ok()
    }
}

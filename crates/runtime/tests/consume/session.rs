//! A membership from the log's side: what it is assigned, delivered and revoked.

use std::sync::Arc;

use carbon_core::{Positions, TopicPartition};
use carbon_log::{Delivery, LogError};
use tokio::sync::{mpsc, oneshot};

use super::PATIENCE;
use super::script::ScriptedLog;

/// Serves every member that joins from now on: assigns the partitions and delivers all that they hold, and what comes.
/// Dropped, it stops.
pub struct Served(tokio::task::JoinHandle<()>);

impl Served {
    pub fn start(log: &Arc<ScriptedLog>, partitions: &[TopicPartition]) -> Self {
        let (log, partitions) = (log.clone(), partitions.to_vec());
        Self(tokio::spawn(async move {
            loop {
                let mut session = log.joined_at_any_time().await;
                if session.try_assign(&partitions).await.is_none() {
                    continue;
                }
                session.follow(&partitions).await;
            }
        }))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One membership, from the log's side.
pub struct Session {
    log: Arc<ScriptedLog>,
    deliveries: mpsc::Sender<Result<Delivery, LogError>>,
    /// Where each assigned partition is read on.
    pub next: Positions,
}

impl Session {
    pub(super) fn new(log: Arc<ScriptedLog>, deliveries: mpsc::Sender<Result<Delivery, LogError>>) -> Self {
        Self { log, deliveries, next: Positions::new() }
    }

    /// Assigns partitions; answers where the member starts them, or nothing if it left.
    pub async fn try_assign(&mut self, partitions: &[TopicPartition]) -> Option<Positions> {
        let (start, answer) = oneshot::channel();
        let delivery = Delivery::Assigned { partitions: partitions.to_vec(), start };
        self.deliveries.send(Ok(delivery)).await.ok()?;
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an assignment is answered").ok()?;
        answer.iter().for_each(|(at, next)| self.next.set(at.clone(), next));
        Some(answer)
    }

    pub async fn assign(&mut self, partitions: &[TopicPartition]) -> Positions {
        self.try_assign(partitions).await.expect("the member left")
    }

    /// Delivers the next `count` stored offsets of a partition; false when the member left.
    pub async fn deliver(&mut self, at: &TopicPartition, count: u64) -> bool {
        let from = self.next.next(at);
        let records = self.log.stored(at, from, from + count);
        self.next.set(at.clone(), (from + count).min(self.log.end(at)));
        records.is_empty() || self.deliveries.send(Ok(Delivery::Records(records))).await.is_ok()
    }

    /// Delivers everything that is stored of a partition, and its end.
    pub async fn deliver_all(&mut self, at: &TopicPartition) -> bool {
        self.deliver(at, u64::MAX / 2).await && self.end(at).await
    }

    /// Delivers all that partitions hold, and what comes, until the member leaves.
    pub async fn follow(&mut self, partitions: &[TopicPartition]) {
        let mut held = self.log.held.subscribe();
        let mut ended = Positions::new();
        loop {
            held.borrow_and_update();
            for at in partitions {
                if !self.deliver(at, u64::MAX / 2).await {
                    return;
                }
                let end = self.next.next(at);
                if ended.get(at) != Some(end) && !self.end_at(at, end).await {
                    return;
                }
                ended.set(at.clone(), end);
            }
            let deliveries = self.deliveries.clone();
            tokio::select! {
                changed = held.changed() => changed.unwrap(),
                () = deliveries.closed() => return,
            }
        }
    }

    /// Says that the partition ends where it does.
    pub async fn end(&self, at: &TopicPartition) -> bool {
        self.end_at(at, self.log.end(at)).await
    }

    pub async fn end_at(&self, at: &TopicPartition, next: u64) -> bool {
        self.deliveries.send(Ok(Delivery::Ended { at: at.clone(), next })).await.is_ok()
    }

    /// Revokes partitions; the receiver resolves when the member has acknowledged, or left.
    pub async fn revoke(&mut self, partitions: &[TopicPartition]) -> oneshot::Receiver<()> {
        let (done, acknowledged) = oneshot::channel();
        partitions.iter().for_each(|at| self.next.remove(at));
        let _ = self.deliveries.send(Ok(Delivery::Revoked { partitions: partitions.to_vec(), done })).await;
        acknowledged
    }

    pub async fn fail(self, error: LogError) {
        let _ = self.deliveries.send(Err(error)).await;
    }

    pub fn has_left(&self) -> bool {
        self.deliveries.is_closed()
    }

    /// Waits until the member leaves.
    pub async fn left(&self) {
        let left = tokio::time::timeout(PATIENCE, self.deliveries.closed()).await;
        left.expect("the member does not leave");
    }
}

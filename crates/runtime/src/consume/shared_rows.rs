//! A read model that several processes fold in turn, as one of them sees it: how far its rows are, whoever wrote them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use carbon_core::{GenerationId, Positions, TopicPartition};
use carbon_log::{EventLog, Group};
use carbon_store::{Checkpoint, Namespace};
use carbon_topology::Topic;
use tokio::sync::watch;
use tokio::time::Instant;

use super::progress::{Phase, ProcessorView, Progress, end_offsets};
use super::state::STALLED_AFTER;
use crate::Shutdown;
use crate::supervisor::{Policy, Supervisor};

/// Polling interval of the checkpoint, in case a NOTIFY is missed.
const POLL: Duration = Duration::from_millis(50);
/// Polling interval of the end offsets, while the checkpoint does not move.
const LAG_POLL: Duration = Duration::from_secs(1);

/// When a checkpoint moved last, and when its lag was asked for last.
struct Moves {
    moved_at: Instant,
    asked_at: Instant,
}

/// What is watched.
pub struct SharedRows {
    pub name: String,
    pub generation: GenerationId,
    pub group: Group,
    /// The topics that are folded.
    pub topics: Vec<Topic>,
    pub namespace: Namespace,
    pub log: Arc<dyn EventLog>,
    /// This process's own fold, where it has one.
    pub own: Option<ProcessorView>,
    pub shutdown: Shutdown,
}

impl SharedRows {
    /// Follows the checkpoint, as a supervised task; the view's progress is that of the rows.
    pub fn follow(self, supervisor: &Supervisor) -> ProcessorView {
        let (sender, progress) = watch::channel(Progress::default());
        let topics = self.topics.iter().map(|topic| topic.spec.name.clone()).collect();
        // The rows say how far all of it is, so the view is not of a share.
        let mut view = ProcessorView::new(self.name.clone(), self.group.clone(), topics, progress);
        view.generation = Some(self.generation.clone());
        view.fill = self.own.as_ref().map(|own| own.fill.clone()).unwrap_or_default();
        let (task, rows) = (format!("checkpoint of {}", self.generation), Arc::new(self));
        supervisor.spawn(task, Policy::Restart, move || {
            let (rows, sender) = (rows.clone(), sender.clone());
            async move {
                rows.run(sender).await;
                Ok::<(), Infallible>(())
            }
        });
        view
    }

    async fn run(&self, sender: watch::Sender<Progress>) {
        let mut commits = self.namespace.commits();
        let mut own = self.own.as_ref().map(|view| view.progress.clone());
        let mut moves = Moves { moved_at: Instant::now(), asked_at: Instant::now() };
        while !self.shutdown.is_cancelled() {
            let read = self.namespace.checkpoint().await;
            let mut now = own.as_mut().map(|own| own.borrow_and_update().clone()).unwrap_or_default();
            match read {
                Ok(checkpoint) => now.positions = self.positions(&checkpoint),
                Err(error) => {
                    tracing::warn!(read_model = %self.name, %error, "checkpoint unavailable; retrying");
                    now.positions = sender.borrow().positions.clone();
                    now.phase = Phase::Retrying { error: error.to_string(), attempt: 1 };
                }
            }
            // A process that has no part of the fold at present still sees the rows.
            if now.phase == Phase::Starting && !now.positions.is_empty() {
                now.phase = Phase::Running;
            }
            let moved = sender.borrow().positions != now.positions;
            now.busy_since = self.stands_since(&mut moves, moved, &now.positions).await;
            let changed = |was: &mut Progress| {
                let changed = was.positions != now.positions || was.phase != now.phase || was.halted != now.halted;
                *was = now;
                changed
            };
            sender.send_if_modified(changed);
            let notified = async {
                match &mut commits {
                    Some(commits) => commits.next(POLL).await,
                    None => tokio::time::sleep(POLL).await,
                }
            };
            tokio::select! {
                () = notified => {}
                Ok(()) = changed_of(&mut own) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
        sender.send_modify(|now| now.phase = Phase::Stopped);
    }

    /// Since when the checkpoint has not moved although records wait; whichever process folds them.
    async fn stands_since(&self, moves: &mut Moves, moved: bool, positions: &Positions) -> Option<Instant> {
        let now = Instant::now();
        if moved {
            moves.moved_at = now;
        }
        if moves.moved_at.elapsed() < STALLED_AFTER {
            return None;
        }
        if moves.asked_at.elapsed() >= LAG_POLL {
            moves.asked_at = now;
            let names: Vec<_> = self.topics.iter().map(|topic| topic.spec.name.clone()).collect();
            if let Ok(ends) = end_offsets(&*self.log, &names).await
                && positions.covers(&ends)
            {
                moves.moved_at = now;
                return None;
            }
        }
        Some(moves.moved_at)
    }

    /// Where every partition stands; nowhere, while the rows are of another log (law 4).
    fn positions(&self, checkpoint: &Checkpoint) -> Positions {
        if checkpoint.log.as_deref().is_some_and(|log| log != self.log.identity()) {
            return Positions::new();
        }
        let partitions = self.topics.iter().flat_map(|topic| {
            (0..topic.spec.partitions).map(|partition| TopicPartition::new(topic.spec.name.clone(), partition))
        });
        partitions
            .map(|at| {
                let next = checkpoint.positions.next(&at);
                (at, next)
            })
            .collect()
    }
}

async fn changed_of(own: &mut Option<watch::Receiver<Progress>>) -> Result<(), watch::error::RecvError> {
    match own {
        Some(own) => own.changed().await,
        None => std::future::pending().await,
    }
}

//! A read model that several processes fold in turn, as one of them sees it: how far its rows are, whoever wrote them.

use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Positions, TopicPartition};
use carbon_log::{EventLog, Group};
use carbon_store::{Checkpoint, Namespace};
use carbon_topology::Topic;
use tokio::sync::watch;

use super::progress::{Phase, ProcessorView, Progress};
use crate::Shutdown;

/// A commit is told of, and looked for in any case.
const LOOK: Duration = Duration::from_millis(50);

/// What is watched.
pub struct SharedRows {
    pub name: String,
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
    /// Follows the checkpoint; the view's progress is that of the rows.
    pub fn follow(self) -> ProcessorView {
        let (sender, progress) = watch::channel(Progress::default());
        let view = ProcessorView {
            name: self.name.clone(),
            group: self.group.clone(),
            topics: self.topics.iter().map(|topic| topic.spec.name.clone()).collect(),
            // The rows say how far all of it is.
            shared: false,
            progress,
        };
        tokio::spawn(self.run(sender));
        view
    }

    async fn run(mut self, sender: watch::Sender<Progress>) {
        let mut commits = self.namespace.commits();
        let mut own = self.own.take().map(|view| view.progress);
        while !self.shutdown.is_cancelled() {
            let read = self.namespace.checkpoint().await;
            let mut now = own.as_mut().map(|own| own.borrow_and_update().clone()).unwrap_or_default();
            match read {
                Ok(checkpoint) => now.positions = self.positions(&checkpoint),
                Err(error) => {
                    tracing::warn!(read_model = %self.name, %error, "the checkpoint cannot be read; trying again");
                    now.positions = sender.borrow().positions.clone();
                    now.phase = Phase::Retrying { error: error.to_string(), attempt: 1 };
                }
            }
            // Who has no part of the fold at present still sees the rows.
            if now.phase == Phase::Starting && !now.positions.is_empty() {
                now.phase = Phase::Running;
            }
            let changed = |was: &mut Progress| {
                let changed = was.positions != now.positions || was.phase != now.phase || was.halted != now.halted;
                *was = now;
                changed
            };
            sender.send_if_modified(changed);
            let told = async {
                match &mut commits {
                    Some(commits) => commits.next(LOOK).await,
                    None => tokio::time::sleep(LOOK).await,
                }
            };
            tokio::select! {
                () = told => {}
                Ok(()) = changed_of(&mut own) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
        sender.send_modify(|now| now.phase = Phase::Stopped);
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

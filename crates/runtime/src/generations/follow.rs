//! Follows `ml.generation.changed.v1` in memory, from offset 0: no group, file or generation of its own.

use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Positions, TopicPartition};
use carbon_log::{Delivery, EventLog, LogError, NewRecord, Record};
use carbon_schemas::events::GenerationChanged;
use carbon_schemas::{DecodeError, Decoded, Decoder, Event};
use carbon_topology::{Topic, Topology};
use tokio::sync::watch;

use super::fold::Generations;
use crate::consume::ProcessorError;
use crate::failpoints::{Injected, failpoint};
use crate::supervisor::{Policy, Supervisor, TaskState};

/// The name of the task that follows the topic.
const TASK: &str = "generations";

/// How often a schema that is not there yet is asked for.
const SCHEMA_RETRY: Duration = Duration::from_millis(500);
/// How long an append waits for the fold.
const FOLDED_WITHIN: Duration = Duration::from_secs(10);

/// What was folded so far.
#[derive(Clone, Debug, Default)]
struct Folded {
    /// The next offset.
    next: u64,
    /// Whether the end that the topic had at the start was seen.
    caught_up: bool,
    generations: Generations,
}

/// The generations of all read models, with the task that follows them.
#[derive(Clone)]
pub struct GenerationLog {
    log: Arc<dyn EventLog>,
    folded: watch::Receiver<Folded>,
}

/// Why the fold does not go on.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Injected(#[from] Injected),
    #[error("the log ended the stream of generations")]
    Ended,
}

struct Follower {
    log: Arc<dyn EventLog>,
    topic: Topic,
    folded: watch::Sender<Folded>,
    supervisor: Supervisor,
}

impl GenerationLog {
    /// Starts to follow the topic, as a supervised task. What is not folded yet is not there: see [`Self::caught_up`].
    pub fn start(log: Arc<dyn EventLog>, topology: &Topology, supervisor: &Supervisor) -> Result<Self, ProcessorError> {
        let topic = topology.topics.get(GenerationChanged::NAME).cloned();
        let topic = topic.ok_or_else(|| ProcessorError::internal("the topology has no topic for generations"))?;
        let (sender, folded) = watch::channel(Folded::default());
        let follower = Arc::new(Follower { log: log.clone(), topic, folded: sender, supervisor: supervisor.clone() });
        supervisor.spawn(TASK, Policy::Restart, move || {
            let follower = follower.clone();
            async move { follower.follow().await }
        });
        Ok(Self { log, folded })
    }

    /// Waits until everything that the topic held at the start is folded.
    pub async fn caught_up(&self) {
        let mut folded = self.folded.clone();
        if folded.wait_for(|folded| folded.caught_up).await.is_err() {
            // Only a shutdown ends the follower.
            std::future::pending::<()>().await;
        }
    }

    pub fn now(&self) -> Generations {
        self.folded.borrow().generations.clone()
    }

    /// Announces changes: see [`Changes::next`].
    pub fn changes(&self) -> Changes {
        Changes(self.folded.clone())
    }

    /// Appends a change, and waits until it is folded here.
    pub async fn append(&self, event: &GenerationChanged) -> Result<(), ProcessorError> {
        let positions = self.log.append(vec![NewRecord::event(event)?]).await?;
        let end = positions.last().map_or(0, |position| position.offset + 1);
        let mut folded = self.folded.clone();
        match tokio::time::timeout(FOLDED_WITHIN, folded.wait_for(|folded| folded.next >= end)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ProcessorError::unavailable(
                "the change of a generation is durable, but was not folded within 10 s",
            )),
        }
    }
}

/// A view of the changes.
pub struct Changes(watch::Receiver<Folded>);

impl Changes {
    /// Waits for a change since the last call.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Follower {
    async fn follow(&self) -> Result<(), FollowError> {
        let spec = &self.topic.spec;
        let mut decoder = Decoder::<GenerationChanged>::new(spec.partitions, spec.partitioner);
        let from: Positions =
            [(TopicPartition::new(spec.name.clone(), 0), self.folded.borrow().next)].into_iter().collect();
        let mut stream = self.log.follow(&from).await?;
        let shutdown = self.supervisor.shutdown().clone();
        loop {
            let delivery = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                delivery = stream.next() => delivery,
            };
            failpoint("generations::follow").await?;
            match delivery {
                Some(Ok(Delivery::Records(records))) => {
                    for record in records {
                        self.fold(&mut decoder, &record).await;
                    }
                }
                Some(Ok(Delivery::Ended { .. })) => {
                    self.folded.send_if_modified(|folded| !std::mem::replace(&mut folded.caught_up, true));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None if shutdown.is_cancelled() => return Ok(()),
                None => return Err(FollowError::Ended),
            }
        }
    }

    /// Folds a record. A schema that cannot be fetched yet is waited for; a record of a newer program halts the fold.
    async fn fold(&self, decoder: &mut Decoder<GenerationChanged>, record: &Record) {
        let mut said = false;
        loop {
            match decoder.decode(&record.raw()) {
                Ok(Decoded::Event { event, .. }) => {
                    self.folded.send_modify(|folded| {
                        folded.generations.fold(event, &record.position, record.timestamp);
                        folded.next = record.position.offset + 1;
                    });
                    return;
                }
                Ok(other) => {
                    tracing::warn!(position = %record.position, poison = ?other.poison(), "record of generations is poison");
                    self.folded.send_modify(|folded| folded.next = record.position.offset + 1);
                    return;
                }
                Err(DecodeError::NeedSchema(id)) => match self.log.schema(id).await {
                    Ok(json) => decoder.learn(id, json.as_deref()),
                    Err(error) => {
                        if !said {
                            tracing::warn!(%error, position = %record.position, "schema unavailable; retrying");
                            said = true;
                        }
                        self.supervisor.set(TASK, TaskState::Retrying { error: error.to_string() });
                        tokio::time::sleep(SCHEMA_RETRY).await;
                        self.supervisor.set(TASK, TaskState::Running);
                    }
                },
                Err(DecodeError::Newer { position, needs }) => {
                    tracing::error!(%position, needs, "halted: a newer program wrote this record");
                    self.supervisor.set(TASK, TaskState::Halted { why: format!("at {position}: needs {needs}") });
                    // Nothing here can read on; the process still serves what it has.
                    self.supervisor.shutdown().cancelled().await;
                    return;
                }
            }
        }
    }
}

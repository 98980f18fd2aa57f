//! Sinks: events to a read model that owns its position (law 4).

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use carbon_core::{Positions, TopicPartition};
use carbon_log::{EventLog, Group, NewRecord};
use carbon_schemas::Feed;
use carbon_store::{Checkpoint, CheckpointError};

use super::batch::{Worker, WorkerError};
use super::error::ProcessorError;

/// Folds events into a read model whose rows and checkpoint commit together.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// The records that it takes.
    type In: Feed;

    /// The checkpoint that lies with the rows.
    async fn checkpoint(&self) -> Result<Checkpoint, ProcessorError>;

    /// Throws rows and checkpoint away: they are of another log. The checkpoint is asked for again after it.
    async fn reset(&self) -> Result<(), ProcessorError>;

    /// Quarantines a record whose event the decoder had to let pass, such as a vector of another dimension than this
    /// generation's. By constants of the generation alone (law 10).
    fn check(&self, record: Self::In) -> Self::In {
        record
    }

    /// The end of a partition was seen at `upto`, with no record between. Moves the checkpoint, and says so, where others
    /// have nothing else to tell them that all before it is folded.
    async fn pass(&self, _log: &str, _from: &Positions, _upto: &Positions) -> Result<bool, SinkError> {
        Ok(false)
    }

    /// Applies a batch, in log order within each partition, and moves the checkpoint from `from` to `upto`
    /// in the same transaction. Answers the notices to be appended after the commit.
    async fn apply(
        &self,
        log: &str,
        batch: &[Self::In],
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, SinkError>;
}

/// Why a batch did not land.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Somebody else moved the checkpoint: read it again and go on from there.
    #[error("the checkpoint stands at {actual}, not where this batch begins")]
    Moved { actual: Positions },
    #[error(transparent)]
    Failed(#[from] ProcessorError),
}

impl From<CheckpointError> for SinkError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Moved { actual } => Self::Moved { actual },
            CheckpointError::Store(error) => Self::Failed(error.into()),
        }
    }
}

pub(super) struct SinkWorker<S: Sink> {
    pub sink: S,
    pub log: Arc<dyn EventLog>,
    pub group: Group,
    /// Below these, dead letters were reported before: a rebuild reports none again.
    reported: Mutex<Positions>,
}

impl<S: Sink> SinkWorker<S> {
    pub fn new(sink: S, log: Arc<dyn EventLog>, group: Group) -> Self {
        Self { sink, log, group, reported: Mutex::default() }
    }
}

#[async_trait]
impl<S: Sink> Worker for SinkWorker<S> {
    type In = S::In;
    type Ready = Arc<Vec<S::In>>;
    const PREPARES: bool = false;

    async fn start(&self, assigned: &[TopicPartition]) -> Result<(Positions, Option<String>), ProcessorError> {
        let mut checkpoint = self.sink.checkpoint().await?;
        let mut rebuilt = None;
        if let Some(log) = &checkpoint.log
            && let Some(foreign) = self.log.recognise(log, &checkpoint.positions).await?
        {
            tracing::warn!(group = %self.group, reason = %foreign, "checkpoint is of another log; rebuilding the read model");
            self.sink.reset().await?;
            rebuilt = Some(foreign.to_string());
            checkpoint = self.sink.checkpoint().await?;
        }
        let reported = self.log.committed(&self.group).await?;
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = reported;
        let start = assigned.iter().map(|at| (at.clone(), checkpoint.positions.next(at))).collect();
        Ok((start, rebuilt))
    }

    fn check(&self, record: S::In) -> S::In {
        self.sink.check(record)
    }

    fn reports(&self, position: &carbon_core::Position) -> bool {
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        position.offset >= reported.next(&position.topic_partition())
    }

    fn ready(&self, batch: &Arc<Vec<S::In>>) -> Option<Self::Ready> {
        Some(batch.clone())
    }

    async fn prepare(&self, batch: &Arc<Vec<S::In>>) -> Result<Self::Ready, ProcessorError> {
        Ok(batch.clone())
    }

    async fn commit(
        &self,
        batch: &Self::Ready,
        dead_letters: &mut Vec<NewRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, WorkerError> {
        self.log.append(dead_letters.clone()).await.map_err(ProcessorError::from)?;
        dead_letters.clear();
        match self.sink.apply(self.log.identity(), batch, from, upto).await {
            Ok(notices) => Ok(notices),
            Err(SinkError::Moved { actual }) => Err(WorkerError::Lost { actual }),
            Err(SinkError::Failed(error)) => Err(error.into()),
        }
    }

    async fn pass(&self, from: &Positions, upto: &Positions) -> Result<bool, WorkerError> {
        match self.sink.pass(self.log.identity(), from, upto).await {
            Ok(moved) => Ok(moved),
            Err(SinkError::Moved { actual }) => Err(WorkerError::Lost { actual }),
            Err(SinkError::Failed(error)) => Err(error.into()),
        }
    }

    fn owes_advice(&self, start: &Positions) -> bool {
        let told = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        start.iter().any(|(at, next)| next > told.next(at))
    }

    async fn advise(&self, positions: &Positions) -> Result<(), ProcessorError> {
        // Only advice: a member that is just being replaced may not give it, and the next one will.
        if let Err(error) = self.log.commit(&self.group, positions).await {
            tracing::debug!(group = %self.group, %error, "the log was not told how far this is");
        }
        Ok(())
    }
}

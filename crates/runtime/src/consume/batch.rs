//! What sinks and stages have in common, seen from the loop.

use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::{Position, Positions, TopicPartition};
use carbon_log::NewRecord;
use carbon_schemas::Feed;

use super::error::ProcessorError;

/// Why a batch did not land.
#[derive(Debug)]
pub(super) enum WorkerError {
    /// Another member has the partitions now, and moved the checkpoint.
    Lost {
        actual: Positions,
    },
    Failed(ProcessorError),
}

impl From<ProcessorError> for WorkerError {
    fn from(error: ProcessorError) -> Self {
        Self::Failed(error)
    }
}

/// A sink or a stage. The loop prepares the next batch while the last one lands, so both run on one worker at once.
#[async_trait]
pub(super) trait Worker: Send + Sync + 'static {
    /// The records that it takes.
    type In: Feed;
    /// A batch that is ready to land.
    type Ready: Send + Sync + 'static;
    /// Whether preparing a batch takes time. If not, records are held until the batch before has landed, so that a batch
    /// holds as many as it may.
    const PREPARES: bool;

    /// Where to start each assigned partition; and why the read model is rebuilt, if it is.
    async fn start(&self, assigned: &[TopicPartition]) -> Result<(Positions, Option<String>), ProcessorError>;

    /// Opens what the first batch needs, once an assignment is taken. A failure is harmless: the batch tries again.
    async fn open(&self) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// What the decoder cannot know, such as the dimension of a generation's vectors.
    fn check(&self, record: Self::In) -> Self::In {
        record
    }

    /// Whether a dead letter at this position is this worker's to report.
    fn reports(&self, position: &Position) -> bool;

    /// A batch that needs no preparing; `None` where it does.
    fn ready(&self, _batch: &Arc<Vec<Self::In>>) -> Option<Self::Ready> {
        None
    }

    /// What can be done before the batch before has landed.
    async fn prepare(&self, batch: &Arc<Vec<Self::In>>) -> Result<Self::Ready, ProcessorError>;

    /// Commits a batch; answers the notifications to append after it. Their derived ids make a repeat harmless. Dead letters
    /// that are durable are taken out, also when the commit fails: its next attempt does not append them again.
    async fn commit(
        &self,
        batch: &Self::Ready,
        dead_letters: &mut Vec<NewRecord>,
        from: &Positions,
        upto: &Positions,
    ) -> Result<Vec<NewRecord>, WorkerError>;

    /// The end was seen at `upto`, with no record between. Moves the position where it lies in the log itself or is shared,
    /// and answers true; a checkpoint of this process alone stays at the last record, which the end does not change.
    async fn pass(&self, from: &Positions, upto: &Positions) -> Result<bool, WorkerError>;

    /// True if the committed offset is behind our checkpoint: the previous owner died before it committed the offset.
    fn owes_advice(&self, _start: &Positions) -> bool {
        false
    }

    /// Commits the offsets of the group, where they are only advice.
    async fn advise(&self, positions: &Positions) -> Result<(), ProcessorError>;
}

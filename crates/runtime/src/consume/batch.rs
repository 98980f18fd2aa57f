//! What sinks and stages have in common, seen from the loop.

use std::sync::Arc;

use async_trait::async_trait;
use carbon_core::{Position, Positions, TopicPartition};
use carbon_log::NewRecord;
use carbon_schemas::Feed;

use super::error::ProcessorError;

/// What is left to do after a commit.
pub(super) struct Committed {
    pub notices: Vec<NewRecord>,
}

/// Why a batch did not land.
#[derive(Debug)]
pub(super) enum WorkerError {
    /// The partitions are somebody else's now.
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

/// The loop makes the next batch ready while the last one lands, so that both run on one worker.
#[async_trait]
pub(super) trait Worker: Send + Sync + 'static {
    /// The records that it takes.
    type In: Feed;
    /// A batch that is ready to land.
    type Ready: Send + Sync + 'static;
    /// Whether it takes time to make a batch ready. Where it takes none, records are held until the batch before has
    /// landed, so that a batch holds as many as it may.
    const PREPARES: bool;

    /// Where to start each assigned partition; and why the read model is rebuilt, if it is.
    async fn start(&self, assigned: &[TopicPartition]) -> Result<(Positions, Option<String>), ProcessorError>;

    /// What can be opened before the first batch comes, once an assignment is taken. It may fail: the batch tries again.
    async fn open(&self) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// What the decoder cannot know, such as the dimension of a generation's vectors.
    fn check(&self, record: Self::In) -> Self::In {
        record
    }

    /// Whether a dead letter at this position is this worker's to report.
    fn reports(&self, position: &Position) -> bool;

    /// What can be done before the batch before has landed.
    async fn prepare(&self, batch: &Arc<Vec<Self::In>>) -> Result<Self::Ready, ProcessorError>;

    async fn commit(
        &self,
        batch: &Self::Ready,
        dead_letters: &[NewRecord],
        from: &Positions,
        upto: &Positions,
    ) -> Result<Committed, WorkerError>;

    /// The end was seen at `upto`, with no record between. Moves the position where it lies in the log itself or is shared,
    /// and says so; a checkpoint of this process alone stays at the last record, which the end does not change.
    async fn pass(&self, from: &Positions, upto: &Positions) -> Result<bool, WorkerError>;

    /// What goes out after the commit; derived ids make a repeat harmless.
    async fn after_commit(&self, committed: Committed) -> Result<(), ProcessorError>;

    /// Whether the log knows less than where an assignment starts: who came before was gone before it had told.
    fn owes_advice(&self, _start: &Positions) -> bool {
        false
    }

    /// Tells the log how far this worker is, where that is only advice.
    async fn advise(&self, positions: &Positions) -> Result<(), ProcessorError>;
}

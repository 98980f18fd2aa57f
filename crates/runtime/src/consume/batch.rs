//! What sinks and stages have in common, seen from the loop.

use async_trait::async_trait;
use carbon_core::{Position, Positions, TopicPartition};
use carbon_log::NewRecord;
use carbon_schemas::{Event, Poison, Recorded};

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

#[async_trait]
pub(super) trait Worker: Send + 'static {
    type In: Event;

    /// Where to start each assigned partition; and why the read model is rebuilt, if it is.
    async fn start(&mut self, assigned: &[TopicPartition]) -> Result<(Positions, Option<String>), ProcessorError>;

    /// What the decoder cannot know, such as the dimension of a generation's vectors.
    fn check(&self, event: &Self::In) -> Result<(), Poison>;

    /// Whether a dead letter at this position is this worker's to report.
    fn reports(&self, position: &Position) -> bool;

    async fn commit(
        &mut self,
        batch: &[Recorded<Self::In>],
        dead_letters: &[NewRecord],
        from: &Positions,
        upto: &Positions,
    ) -> Result<Committed, WorkerError>;

    /// The end was seen at `upto`, with no record between. Moves the position where it lies in the log itself, and
    /// says so; a checkpoint stays at the last record, which the end does not change.
    async fn pass(&mut self, from: &Positions, upto: &Positions) -> Result<bool, WorkerError>;

    /// What goes out after the commit; derived ids make a repeat harmless.
    async fn after_commit(&mut self, committed: Committed) -> Result<(), ProcessorError>;

    /// Tells the log how far this worker is, where that is only advice.
    async fn advise(&mut self, positions: &Positions) -> Result<(), ProcessorError>;
}

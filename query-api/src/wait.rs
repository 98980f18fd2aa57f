//! Read-your-writes: a read waits until its read model has applied the positions of `X-Min-Position`.

use carbon_core::{Positions, TopicSpec};
use carbon_http::{Problem, ReadAfter};
use carbon_runtime::consume::ProcessorView;
use carbon_schemas::Event as _;
use carbon_schemas::events::EntityChanged;
use tokio::time::Instant;

use crate::state::{AppState, SearchIndex};

impl AppState {
    fn entity_topic(&self) -> Result<&TopicSpec, Problem> {
        let topic = self.dependencies.topology.topics.get(EntityChanged::NAME);
        topic.map(|topic| &topic.spec).ok_or_else(|| Problem::internal("the topology has no topic for entities"))
    }

    /// Rejects positions that are not in the topic of entities, before the read model is looked up.
    pub fn check_positions(&self, read: &ReadAfter) -> Result<(), Problem> {
        read.positions_of(self.entity_topic()?).map(drop)
    }

    /// Waits until the index has applied the caller's positions in the topic of entities.
    pub async fn wait_for_index(&self, search: &SearchIndex, read: &ReadAfter) -> Result<(), Problem> {
        let Some(positions) = read.positions_of(self.entity_topic()?)? else { return Ok(()) };
        match search.index.reached(&search.generation, positions, read.deadline()).await? {
            true => Ok(()),
            false => Err(behind("the index")),
        }
    }

    /// Waits until the catalog has applied the caller's positions in the topic of entities.
    pub async fn wait_for_catalog(&self, catalog: &ProcessorView, read: &ReadAfter) -> Result<(), Problem> {
        let positions = read.positions_of(self.entity_topic()?)?;
        wait_for_fold("the catalog", catalog, positions, read).await
    }
}

/// Waits until a fold has applied `positions`; returns at once if there are none. `read_model` is its name in the error.
pub(crate) async fn wait_for_fold(
    read_model: &str,
    fold: &ProcessorView,
    positions: Option<&Positions>,
    read: &ReadAfter,
) -> Result<(), Problem> {
    let Some(positions) = positions else { return Ok(()) };
    match fold.reached(positions, read.deadline().saturating_duration_since(Instant::now())).await {
        true => Ok(()),
        false => Err(behind(read_model)),
    }
}

fn behind(read_model: &str) -> Problem {
    Problem::unavailable(format!("{read_model} has not reached x-min-position within x-timeout-ms; retry"))
}

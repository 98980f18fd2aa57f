//! Read-your-writes: a read waits until its read model has applied what the caller has written.

use carbon_core::{Positions, TopicSpec};
use carbon_http::{Problem, ReadAfter};
use carbon_runtime::consume::ProcessorView;
use carbon_schemas::Event as _;
use carbon_schemas::events::EntityChanged;
use tokio::time::Instant;

use crate::{App, SearchIndex};

impl App {
    fn entity_topic(&self) -> Result<&TopicSpec, Problem> {
        let topic = self.parts.topology.topics.get(EntityChanged::NAME);
        topic.map(|topic| &topic.spec).ok_or_else(|| Problem::internal("the topology has no topic for entities"))
    }

    /// Refuses positions that no wait would ever reach; before anything else, since it is the caller's mistake.
    pub fn check_positions(&self, read: &ReadAfter) -> Result<(), Problem> {
        read.positions_of(self.entity_topic()?).map(drop)
    }

    /// Waits for the index's view, in the positions of entities.
    pub async fn index_has(&self, search: &SearchIndex, read: &ReadAfter) -> Result<(), Problem> {
        let Some(positions) = read.positions_of(self.entity_topic()?)? else { return Ok(()) };
        match search.index.reached(&search.generation, positions, read.deadline()).await? {
            true => Ok(()),
            false => Err(behind("the index")),
        }
    }

    pub async fn catalog_has(&self, catalog: &ProcessorView, read: &ReadAfter) -> Result<(), Problem> {
        let positions = read.positions_of(self.entity_topic()?)?;
        self.reached("the catalog", catalog, positions, read).await
    }

    /// Waits for a fold, where there is something to wait for.
    pub async fn reached(
        &self,
        what: &str,
        fold: &ProcessorView,
        positions: Option<&Positions>,
        read: &ReadAfter,
    ) -> Result<(), Problem> {
        let Some(positions) = positions else { return Ok(()) };
        match fold.reached(positions, read.deadline().saturating_duration_since(Instant::now())).await {
            true => Ok(()),
            false => Err(behind(what)),
        }
    }
}

fn behind(what: &str) -> Problem {
    Problem::unavailable(format!("{what} has not reached x-min-position within x-timeout-ms; try again"))
}

//! Writes: an event is appended, folded, and answered with the fold's verdict at its position (law 9).

use std::time::Duration;

use carbon_core::Positions;
use carbon_log::NewRecord;
use carbon_read_models::registry::{Conflict, verdict};
use carbon_runtime::consume::Phase;
use carbon_schemas::Event;

use super::call::Call;
use super::error::MlflowError;

/// How long an answer may wait for the fold.
const PATIENCE: Duration = Duration::from_secs(20);

impl Call {
    /// Appends; the conflict, where the event changed nothing.
    pub async fn append<E: Event>(&self, event: &E) -> Result<Option<Conflict>, MlflowError> {
        let registry = self.registry()?;
        // What the decoder would call poison is the caller's mistake.
        event.check().map_err(MlflowError::invalid)?;
        event.key().map_err(MlflowError::invalid)?;
        // A fold that stands still would refuse after the append what it can refuse before.
        let (stands, halted) = {
            let progress = registry.view.progress.borrow();
            (matches!(progress.phase, Phase::Retrying { .. } | Phase::Stopped), !progress.halted.is_empty())
        };
        if stands || halted {
            return Err(MlflowError::unavailable("the registry does not follow the log at present; try again later"));
        }
        let mut record = NewRecord::event(event).map_err(|error| MlflowError::of(&error))?;
        if let Some(trace) = &self.traceparent {
            record = record.with_header("traceparent", trace.as_str());
        }
        let positions = self.parts.log.append(vec![record]).await.map_err(|error| MlflowError::of(&error))?;
        let Some(position) = positions.first() else {
            return Err(MlflowError::internal("the log answered an append without a position"));
        };
        let mut done = Positions::new();
        done.advance_past(position);
        if !registry.view.reached(&done, PATIENCE).await {
            return Err(MlflowError::unavailable(
                "the write is durable, but the registry has not folded it yet; look whether it took effect before trying again",
            ));
        }
        Ok(verdict(&registry.namespace, position).await?)
    }

    /// Appends; a conflict is an error.
    pub async fn write<E: Event>(&self, event: &E) -> Result<(), MlflowError> {
        match self.append(event).await? {
            None => Ok(()),
            Some(conflict) => Err(MlflowError::conflict(conflict)),
        }
    }
}

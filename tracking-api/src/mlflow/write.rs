//! Writes: an event is appended, folded, and answered with the fold's verdict at its position (law 9).

use std::sync::Arc;
use std::time::Duration;

use carbon_core::{Position, Positions};
use carbon_log::NewRecord;
use carbon_read_models::registry::queries::promotion_effect;
use carbon_read_models::registry::standing::Effect;
use carbon_read_models::registry::{Conflict, verdict};
use carbon_runtime::Rows;
use carbon_schemas::Event;
use carbon_schemas::events::ModelPromoted;
use carbon_store::Dialect;
use tokio::time::Instant;

use super::call::Call;
use super::error::MlflowError;

/// How long an answer may wait for the fold.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it waits for a generation that is not served.
const SIBLING_PATIENCE: Duration = Duration::from_secs(2);

impl Call {
    /// Appends; the conflict, where the event changed nothing.
    pub async fn append<E: Event>(&self, event: &E) -> Result<Option<Conflict>, MlflowError> {
        Ok(self.append_at(event).await?.1)
    }

    /// Appends, and says where.
    async fn append_at<E: Event>(&self, event: &E) -> Result<(Position, Option<Conflict>), MlflowError> {
        let rows = &self.registry()?.rows;
        // What the decoder would call poison is the caller's mistake.
        event.check().map_err(MlflowError::invalid)?;
        event.key().map_err(MlflowError::invalid)?;
        // A fold that does not move would reject after the append what can be rejected before.
        let state = rows.view.state();
        if !state.moves() {
            return Err(MlflowError::unavailable(format!("nothing was written: the registry's fold is {state}")));
        }
        let mut record = NewRecord::event(event).map_err(|error| MlflowError::of(&error))?;
        if let Some(trace) = &self.traceparent {
            record = record.with_header("traceparent", trace.as_str());
        }
        let positions = self.parts.log.append(vec![record]).await.map_err(|error| MlflowError::of(&error))?;
        let Some(position) = positions.into_iter().next() else {
            return Err(MlflowError::internal("the log answered an append without a position"));
        };
        let mut done = Positions::new();
        done.advance_past(&position);
        if !self.folded(rows, &done).await {
            return Err(MlflowError::unavailable(
                "the write is durable, but the registry has not folded it yet; look whether it took effect before trying again",
            ));
        }
        let verdict = verdict(&rows.namespace, &position).await?;
        Ok((position, verdict))
    }

    /// Waits until a write is folded by the generation of this call, and by whichever the next call may read: the
    /// generations may be switched meanwhile. False when the time is over.
    async fn folded(&self, rows: &Arc<Rows>, done: &Positions) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let left = || deadline.saturating_duration_since(Instant::now());
        if !rows.view.reached(done, left()).await {
            return false;
        }
        let Some(handle) = self.parts.read_models.get("registry") else { return true };
        // Other processes notice a switch of the shared rows a moment earlier or later than this one.
        if rows.namespace.dialect() == Dialect::Postgres {
            for sibling in handle.siblings().iter().filter(|sibling| sibling.state().moves()) {
                sibling.reached(done, SIBLING_PATIENCE.min(left())).await;
            }
        }
        let mut seen = rows.clone();
        while !handle.is_current(&seen) {
            let Ok(current) = handle.get() else { return false };
            if !current.view.reached(done, left()).await {
                return false;
            }
            seen = current;
        }
        true
    }

    /// Appends; a conflict is an error.
    pub async fn write<E: Event>(&self, event: &E) -> Result<(), MlflowError> {
        match self.append(event).await? {
            None => Ok(()),
            Some(conflict) => Err(MlflowError::conflict(conflict)),
        }
    }

    /// Appends a promotion; that it promoted nothing is an error: what it names went away in the meantime.
    pub async fn promote(&self, event: &ModelPromoted) -> Result<Position, MlflowError> {
        let (position, conflict) = self.append_at(event).await?;
        if let Some(conflict) = conflict {
            return Err(MlflowError::conflict(conflict));
        }
        match promotion_effect(self.rows()?, &position).await? {
            Some(Effect::Applied) => Ok(position),
            effect => {
                let (name, effect) = (&event.model_name, effect.map_or("not folded", Effect::as_str));
                let version = event.version.map_or_else(|| "none".to_owned(), |version| version.to_string());
                Err(MlflowError::does_not_exist(format!(
                    "Model Version (name={name}, version={version}) not found: {effect}"
                )))
            }
        }
    }
}

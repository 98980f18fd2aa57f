//! Writes: appends an event, waits for the fold, and answers with the fold's verdict at the event's position (law 9).

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

/// Maximum time that a write waits for the fold.
const FOLD_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum time that a write waits for each generation that is not served.
const SIBLING_TIMEOUT: Duration = Duration::from_secs(2);

impl Call {
    /// Appends an event and waits for the fold. Returns the conflict if the event had no effect.
    pub async fn append<E: Event>(&self, event: &E) -> Result<Option<Conflict>, MlflowError> {
        Ok(self.append_at(event).await?.1)
    }

    /// Like [`Self::append`]; also returns the position of the event.
    async fn append_at<E: Event>(&self, event: &E) -> Result<(Position, Option<Conflict>), MlflowError> {
        let rows = &self.registry()?.rows;
        // An event that the decoder would treat as poison is an invalid request.
        event.check().map_err(MlflowError::invalid)?;
        event.key().map_err(MlflowError::invalid)?;
        // Without a running fold the write could not be answered, so it is rejected before the append.
        let state = rows.view.state();
        if !state.moves() {
            return Err(MlflowError::unavailable(format!("nothing was written: the registry's fold is {state}")));
        }
        let mut record = NewRecord::event(event).map_err(|error| MlflowError::of(&error))?;
        if let Some(trace) = &self.traceparent {
            record = record.with_header("traceparent", trace.as_str());
        }
        let positions = self.dependencies.log.append(vec![record]).await.map_err(|error| MlflowError::of(&error))?;
        let Some(position) = positions.into_iter().next() else {
            return Err(MlflowError::internal("the log returned no position for an append"));
        };
        let mut done = Positions::new();
        done.advance_past(&position);
        if !self.wait_for_fold(rows, &done).await {
            return Err(MlflowError::unavailable(
                "the write is durable, but the registry has not folded it yet; check whether it took effect before retrying",
            ));
        }
        let verdict = verdict(&rows.namespace, &position).await?;
        Ok((position, verdict))
    }

    /// Waits until the generation of this call has folded a write, and every generation that the next call may read, since
    /// generations can be switched in the meantime. Returns false on timeout.
    async fn wait_for_fold(&self, rows: &Arc<Rows>, done: &Positions) -> bool {
        let deadline = Instant::now() + FOLD_TIMEOUT;
        let left = || deadline.saturating_duration_since(Instant::now());
        if !rows.view.reached(done, left()).await {
            return false;
        }
        let Some(handle) = self.dependencies.read_models.get("registry") else { return true };
        // On Postgres, processes share the rows of a generation and notice a switch at different moments. Another process
        // may already serve a generation that this one does not serve yet.
        if rows.namespace.dialect() == Dialect::Postgres {
            for sibling in handle.siblings().iter().filter(|sibling| sibling.state().moves()) {
                sibling.reached(done, SIBLING_TIMEOUT.min(left())).await;
            }
        }
        let mut folded = rows.clone();
        while !handle.is_current(&folded) {
            let Ok(current) = handle.get() else { return false };
            if !current.view.reached(done, left()).await {
                return false;
            }
            folded = current;
        }
        true
    }

    /// Appends an event and waits for the fold. A conflict is an error.
    pub async fn write<E: Event>(&self, event: &E) -> Result<(), MlflowError> {
        match self.append(event).await? {
            None => Ok(()),
            Some(conflict) => Err(MlflowError::conflict(conflict)),
        }
    }

    /// Appends a promotion and waits for the fold. An error if the promotion had no effect, because the model or version was
    /// deleted in the meantime.
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

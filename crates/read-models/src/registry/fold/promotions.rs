//! `ml.model.promoted.v1`. A promotion is stored as it arrives; `standings` computes its outcome at the end of the
//! batch.

use carbon_core::Position;
use carbon_schemas::events::ModelPromoted;
use carbon_store::Tables;

use super::standings::Touched;
use crate::projection::FoldError;
use crate::registry::standing::Effect;

/// Applies one event.
pub(super) async fn apply(
    tables: &mut Tables<'_>,
    touched: &mut Touched,
    position: &Position,
    event: &ModelPromoted,
) -> Result<(), FoldError> {
    carbon_store::query(
        "INSERT INTO promotions (\"offset\", tenant_id, event_id, model_name, registration_id, version, version_id, \
         run_id, stage, alias, archive_existing, previous, promoted_by, occurred_at, effect) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(position.offset as i64)
    .bind(event.tenant_id.as_str())
    .bind(event.event_id.to_string())
    .bind(&event.model_name)
    .bind(event.registration_id.map(|id| id.to_string()))
    .bind(event.version)
    .bind(event.version_id.map(|id| id.to_string()))
    .bind(&event.run_id)
    .bind(&event.stage)
    .bind(&event.alias)
    .bind(event.archive_existing)
    .bind(event.previous)
    .bind(&event.promoted_by)
    .bind(event.occurred_at.0)
    .bind(Effect::NoSuchModel.as_str())
    .execute(tables.connection())
    .await?;
    match event.registration_id {
        Some(id) => touched.model(event.tenant_id.as_str(), &id.to_string()),
        None => touched.name(event.tenant_id.as_str(), &event.model_name),
    }
    Ok(())
}

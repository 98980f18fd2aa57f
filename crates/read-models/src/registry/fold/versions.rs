//! Versions of registered models: a number is claimed once per registration.

use carbon_schemas::events::{ModelKind, ModelRegistered};
use carbon_store::{IntoValue as _, Tables, Value};

use super::models::{Registration, tag};
use super::tags::VERSION_TAGS;
use crate::projection::FoldError;
use crate::registry::verdict::{Conflict, ConflictCode};

/// Applies one event of a version. Returns the conflict if the event changes nothing.
pub(super) async fn apply(
    tables: &mut Tables<'_>,
    event: &ModelRegistered,
    own: &Registration,
) -> Result<Option<Conflict>, FoldError> {
    let version = event.version.unwrap_or_default();
    if event.kind == ModelKind::VersionCreated {
        return created(tables, event, own, version).await;
    }
    let row = carbon_store::query(
        "SELECT version_id FROM model_versions \
         WHERE tenant_id = $1 AND registration_id = $2 AND version = $3 AND deleted_at IS NULL",
    )
    .bind(event.tenant_id.as_str())
    .bind(&own.id)
    .bind(version)
    .fetch_optional(tables.connection())
    .await?;
    let stored: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
    let asked = event.version_id.map(|id| id.to_string());
    // The number may belong to another version: an event that refers to the loser of a race changes nothing.
    if stored.is_none() || (asked.is_some() && asked != stored) {
        let message = format!("Model Version (name={}, version={version}) not found", own.name);
        return Ok(Some(Conflict::new(ConflictCode::DoesNotExist, message)));
    }
    match event.kind {
        ModelKind::VersionTagged => {
            tag(tables, VERSION_TAGS, &owner(event, own, version), event).await?;
            return Ok(None);
        }
        ModelKind::VersionDescribed => {
            let description = event.description.as_deref().unwrap_or_default();
            carbon_store::query(
                "UPDATE model_versions SET description = $4, updated_at = $5 \
                 WHERE tenant_id = $1 AND registration_id = $2 AND version = $3",
            )
            .bind(event.tenant_id.as_str())
            .bind(&own.id)
            .bind(version)
            .bind(description)
            .bind(event.occurred_at.0)
            .execute(tables.connection())
            .await?;
        }
        _ => {
            carbon_store::query(
                "UPDATE model_versions SET deleted_at = $4 \
                 WHERE tenant_id = $1 AND registration_id = $2 AND version = $3",
            )
            .bind(event.tenant_id.as_str())
            .bind(&own.id)
            .bind(version)
            .bind(event.occurred_at.0)
            .execute(tables.connection())
            .await?;
            changed(tables, event, own).await?;
        }
    }
    Ok(None)
}

/// The owner of a version's tags.
fn owner(event: &ModelRegistered, own: &Registration, version: i64) -> [Value; 3] {
    [event.tenant_id.as_str().into_value(), (&own.id).into_value(), version.into_value()]
}

async fn created(
    tables: &mut Tables<'_>,
    event: &ModelRegistered,
    own: &Registration,
    version: i64,
) -> Result<Option<Conflict>, FoldError> {
    let manifest = serde_json::to_string(&event.manifest)?;
    let inserted = carbon_store::query(
        "INSERT INTO model_versions (tenant_id, registration_id, version, version_id, description, run_id, model_id, \
         source, storage, run_link, manifest, manifest_digest, stage, created_at, updated_at, last_updated) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'None', $13, $13, $13) ON CONFLICT DO NOTHING",
    )
    .bind(event.tenant_id.as_str())
    .bind(&own.id)
    .bind(version)
    .bind(event.version_id.unwrap_or_default().to_string())
    .bind(event.description.as_deref().unwrap_or_default())
    .bind(event.run_id.as_deref().unwrap_or_default())
    .bind(event.model_id.as_deref().unwrap_or_default())
    .bind(event.source.as_deref().unwrap_or_default())
    .bind(event.storage.as_deref().or(event.source.as_deref()).unwrap_or_default())
    .bind(event.run_link.as_deref().unwrap_or_default())
    .bind(manifest)
    .bind(&event.manifest_digest)
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    if inserted == 0 {
        let message = format!("Model Version (name={}, version={version}) already exists.", own.name);
        return Ok(Some(Conflict::new(ConflictCode::IdTaken, message)));
    }
    tag(tables, VERSION_TAGS, &owner(event, own, version), event).await?;
    changed(tables, event, own).await?;
    Ok(None)
}

/// A change of a version updates its registered model too.
async fn changed(tables: &mut Tables<'_>, event: &ModelRegistered, own: &Registration) -> Result<(), FoldError> {
    carbon_store::query("UPDATE registered_models SET updated_at = $3 WHERE tenant_id = $1 AND registration_id = $2")
        .bind(event.tenant_id.as_str())
        .bind(&own.id)
        .bind(event.occurred_at.0)
        .execute(tables.connection())
        .await?;
    Ok(())
}

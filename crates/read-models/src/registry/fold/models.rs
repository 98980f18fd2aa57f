//! `ml.model.registered.v1`. The topic has one partition, so names and version numbers are claimed in one order.

use carbon_core::Position;
use carbon_schemas::events::{ModelKind, ModelRegistered};
use carbon_store::{IntoValue as _, Tables, Value};

use super::standings::Touched;
use super::tags::{MODEL_TAGS, PairTable};
use super::versions;
use crate::projection::FoldError;
use crate::registry::verdict::{Conflict, ConflictCode};

/// The row of a registered model, as far as the fold needs it. Its id is stable; its name can change.
pub(super) struct Registration {
    pub id: String,
    pub name: String,
}

/// Applies one event. Returns the conflict if the event changes nothing.
pub(super) async fn apply(
    tables: &mut Tables<'_>,
    touched: &mut Touched,
    position: &Position,
    event: &ModelRegistered,
) -> Result<Option<Conflict>, FoldError> {
    if event.kind == ModelKind::Unknown {
        return Ok(None);
    }
    if event.kind == ModelKind::Created {
        return created(tables, touched, position, event).await;
    }
    let Some(own) = registration(tables, event).await? else { return Ok(Some(missing(&event.model_name))) };
    let conflict = match event.kind {
        ModelKind::Renamed => renamed(tables, touched, position, event, &own).await?,
        ModelKind::Described => described(tables, event, &own).await?,
        ModelKind::Tagged => {
            tag(tables, MODEL_TAGS, &owner(event, &own.id), event).await?;
            return Ok(None);
        }
        ModelKind::Deleted => deleted(tables, event, &own).await?,
        _ => versions::apply(tables, event, &own).await?,
    };
    // Tags change neither what promotions amount to nor the times of the model.
    if conflict.is_none() && event.kind != ModelKind::VersionTagged {
        touched.model(event.tenant_id.as_str(), &own.id);
    }
    Ok(conflict)
}

fn missing(name: &str) -> Conflict {
    Conflict::new(ConflictCode::DoesNotExist, format!("Registered Model with name={name} not found"))
}

fn taken(name: &str) -> Conflict {
    Conflict::new(ConflictCode::AlreadyExists, format!("Registered Model (name={name}) already exists."))
}

/// The registration that an event means, by its id or else by its name; `None` if it does not exist.
async fn registration(tables: &mut Tables<'_>, event: &ModelRegistered) -> Result<Option<Registration>, FoldError> {
    let column = if event.registration_id.is_some() { "registration_id" } else { "name" };
    let sql = format!(
        "SELECT registration_id, name FROM registered_models WHERE tenant_id = $1 AND {column} = $2 AND deleted_at IS NULL"
    );
    let asked = event.registration_id.map_or_else(|| event.model_name.clone(), |id| id.to_string());
    let row = carbon_store::query(sqlx::AssertSqlSafe(sql))
        .bind(event.tenant_id.as_str())
        .bind(asked)
        .fetch_optional(tables.connection())
        .await?;
    row.map(|row| Ok(Registration { id: row.try_get(0)?, name: row.try_get(1)? })).transpose()
}

async fn name_is_taken(tables: &mut Tables<'_>, event: &ModelRegistered, name: &str) -> Result<bool, FoldError> {
    let found: Option<i64> = carbon_store::query(
        "SELECT 1 FROM registered_models WHERE tenant_id = $1 AND name = $2 AND deleted_at IS NULL",
    )
    .bind(event.tenant_id.as_str())
    .bind(name)
    .scalar(tables.connection())
    .await?;
    Ok(found.is_some())
}

async fn created(
    tables: &mut Tables<'_>,
    touched: &mut Touched,
    position: &Position,
    event: &ModelRegistered,
) -> Result<Option<Conflict>, FoldError> {
    if name_is_taken(tables, event, &event.model_name).await? {
        return Ok(Some(taken(&event.model_name)));
    }
    // The decoder rejects an event without an id.
    let id = event.registration_id.unwrap_or_default().to_string();
    let inserted = carbon_store::query(
        "INSERT INTO registered_models (tenant_id, registration_id, name, description, created_at, updated_at, \
         last_updated) VALUES ($1, $2, $3, $4, $5, $5, $5) ON CONFLICT (tenant_id, registration_id) DO NOTHING",
    )
    .bind(event.tenant_id.as_str())
    .bind(&id)
    .bind(&event.model_name)
    .bind(&event.description)
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    if inserted == 0 {
        return Ok(Some(Conflict::new(ConflictCode::IdTaken, format!("registration id {id} is taken"))));
    }
    open(tables, event, position, &event.model_name, &id).await?;
    tag(tables, MODEL_TAGS, &owner(event, &id), event).await?;
    touched.model(event.tenant_id.as_str(), &id);
    Ok(None)
}

async fn renamed(
    tables: &mut Tables<'_>,
    touched: &mut Touched,
    position: &Position,
    event: &ModelRegistered,
    own: &Registration,
) -> Result<Option<Conflict>, FoldError> {
    let name = event.new_name.as_deref().unwrap_or_default();
    if name != own.name {
        if name_is_taken(tables, event, name).await? {
            return Ok(Some(taken(name)));
        }
        // Promotions by the old name may now mean another registration.
        touched.model(event.tenant_id.as_str(), &own.id);
        close(tables, event, own).await?;
        open(tables, event, position, name, &own.id).await?;
    }
    for sql in [
        "UPDATE registered_models SET name = $3, updated_at = $4 WHERE tenant_id = $1 AND registration_id = $2",
        "UPDATE model_versions SET updated_at = $4 \
         WHERE tenant_id = $1 AND registration_id = $2 AND deleted_at IS NULL AND $3 IS NOT NULL",
    ] {
        carbon_store::query(sql)
            .bind(event.tenant_id.as_str())
            .bind(&own.id)
            .bind(name)
            .bind(event.occurred_at.0)
            .execute(tables.connection())
            .await?;
    }
    Ok(None)
}

async fn described(
    tables: &mut Tables<'_>,
    event: &ModelRegistered,
    own: &Registration,
) -> Result<Option<Conflict>, FoldError> {
    carbon_store::query(
        "UPDATE registered_models SET description = $3, updated_at = $4 WHERE tenant_id = $1 AND registration_id = $2",
    )
    .bind(event.tenant_id.as_str())
    .bind(&own.id)
    .bind(&event.description)
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    Ok(None)
}

async fn deleted(
    tables: &mut Tables<'_>,
    event: &ModelRegistered,
    own: &Registration,
) -> Result<Option<Conflict>, FoldError> {
    close(tables, event, own).await?;
    for table in ["registered_models", "model_versions"] {
        let sql = format!(
            "UPDATE {table} SET deleted_at = $3 WHERE tenant_id = $1 AND registration_id = $2 AND deleted_at IS NULL"
        );
        carbon_store::query(sqlx::AssertSqlSafe(sql))
            .bind(event.tenant_id.as_str())
            .bind(&own.id)
            .bind(event.occurred_at.0)
            .execute(tables.connection())
            .await?;
    }
    Ok(None)
}

/// The registration has the name from now on.
async fn open(
    tables: &mut Tables<'_>,
    event: &ModelRegistered,
    position: &Position,
    name: &str,
    id: &str,
) -> Result<(), FoldError> {
    carbon_store::query(
        "INSERT INTO model_names (tenant_id, name, opened_offset, registration_id, opened_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(event.tenant_id.as_str())
    .bind(name)
    .bind(position.offset as i64)
    .bind(id)
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    Ok(())
}

/// The registration no longer has its name.
async fn close(tables: &mut Tables<'_>, event: &ModelRegistered, own: &Registration) -> Result<(), FoldError> {
    carbon_store::query(
        "UPDATE model_names SET closed_at = $3 WHERE tenant_id = $1 AND registration_id = $2 AND closed_at IS NULL",
    )
    .bind(event.tenant_id.as_str())
    .bind(&own.id)
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    Ok(())
}

/// Sets and removes the tags of an event.
pub(super) async fn tag(
    tables: &mut Tables<'_>,
    table: PairTable,
    owner: &[Value],
    event: &ModelRegistered,
) -> Result<(), FoldError> {
    table.remove(tables, owner, &event.removed_tags).await?;
    Ok(table.set(tables, owner, &event.tags).await?)
}

/// The owner of a registration's tags.
fn owner(event: &ModelRegistered, registration_id: &str) -> [Value; 2] {
    [event.tenant_id.as_str().into_value(), registration_id.into_value()]
}

//! `ml.logged_model.changed.v1`. The metrics of a logged model are points of runs, and are joined when they are read.

use std::collections::BTreeMap;

use carbon_schemas::events::{LoggedModelChanged, LoggedModelKind};
use carbon_store::{IntoValue, Tables, Value};

use super::tags::{LOGGED_MODEL_PARAMS, LOGGED_MODEL_TAGS};
use crate::projection::FoldError;
use crate::registry::verdict::{Conflict, ConflictCode};

/// Applies one event. Returns the conflict if the event changes nothing.
pub(super) async fn apply(tables: &mut Tables<'_>, event: &LoggedModelChanged) -> Result<Option<Conflict>, FoldError> {
    let deleted: Option<bool> =
        carbon_store::query("SELECT deleted FROM logged_models WHERE tenant_id = $1 AND model_id = $2")
            .bind(event.tenant_id.as_str())
            .bind(event.model_id.as_str())
            .scalar(tables.connection())
            .await?;
    match (event.kind, deleted) {
        (LoggedModelKind::Unknown, _) => Ok(None),
        (LoggedModelKind::Created, None) => created(tables, event).await,
        (LoggedModelKind::Created, Some(_)) => {
            let message = format!("logged model id {} is taken", event.model_id);
            Ok(Some(Conflict::new(ConflictCode::IdTaken, message)))
        }
        (_, None | Some(true)) => {
            let message = format!("Logged model with ID '{}' not found.", event.model_id);
            Ok(Some(Conflict::new(ConflictCode::DoesNotExist, message)))
        }
        (LoggedModelKind::Finalised, _) => {
            changed(tables, event, "status", event.status.as_deref().unwrap_or_default()).await
        }
        (LoggedModelKind::Deleted, _) => changed(tables, event, "deleted", true).await,
        (LoggedModelKind::Params, _) => params(tables, event).await,
        (LoggedModelKind::Tagged, _) => tagged(tables, event).await,
    }
}

/// The owner of a model's parameters and tags.
fn owner(event: &LoggedModelChanged) -> [Value; 2] {
    [event.tenant_id.as_str().into_value(), event.model_id.as_str().into_value()]
}

async fn created(tables: &mut Tables<'_>, event: &LoggedModelChanged) -> Result<Option<Conflict>, FoldError> {
    if let Some(conflict) = params_differ(event, &BTreeMap::new()) {
        return Ok(Some(conflict));
    }
    carbon_store::query(
        "INSERT INTO logged_models (tenant_id, model_id, experiment_id, name, model_type, source_run_id, artifact_uri, \
         status, deleted, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'PENDING', 0, $8, $8)",
    )
    .bind(event.tenant_id.as_str())
    .bind(event.model_id.as_str())
    .bind(event.experiment().unwrap_or_default())
    .bind(event.name.as_deref().unwrap_or_default())
    .bind(event.model_type.as_deref().unwrap_or_default())
    .bind(event.source_run_id.as_deref().unwrap_or_default())
    .bind(event.artifact_uri.as_deref().unwrap_or_default())
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    LOGGED_MODEL_PARAMS.set(tables, &owner(event), &event.params).await?;
    LOGGED_MODEL_TAGS.set(tables, &owner(event), &event.tags).await?;
    Ok(None)
}

/// Updates one column. `column` is a text of the program, never of a caller.
async fn changed(
    tables: &mut Tables<'_>,
    event: &LoggedModelChanged,
    column: &'static str,
    value: impl IntoValue + Send,
) -> Result<Option<Conflict>, FoldError> {
    let sql = format!("UPDATE logged_models SET updated_at = $3, {column} = $4 WHERE tenant_id = $1 AND model_id = $2");
    carbon_store::query(sqlx::AssertSqlSafe(sql))
        .bind(event.tenant_id.as_str())
        .bind(event.model_id.as_str())
        .bind(event.occurred_at.0)
        .bind(value)
        .execute(tables.connection())
        .await?;
    Ok(None)
}

/// The conflict of parameters that are set to another value: a parameter is set once (law 10), also within one event.
fn params_differ(event: &LoggedModelChanged, stored: &BTreeMap<String, String>) -> Option<Conflict> {
    let mut own: BTreeMap<&str, &str> = BTreeMap::new();
    let differs = event.params.iter().find(|param| {
        let before = stored.get(&param.key).map(String::as_str).or_else(|| own.get(param.key.as_str()).copied());
        own.insert(&param.key, &param.value);
        before.is_some_and(|before| before != param.value)
    })?;
    let message = format!(
        "Changing param values is not allowed. Param with key='{}' was already logged for model ID='{}'.",
        differs.key, event.model_id
    );
    Some(Conflict::new(ConflictCode::Refused, message))
}

async fn params(tables: &mut Tables<'_>, event: &LoggedModelChanged) -> Result<Option<Conflict>, FoldError> {
    let stored = LOGGED_MODEL_PARAMS.all(tables, &owner(event)).await?;
    if let Some(conflict) = params_differ(event, &stored) {
        return Ok(Some(conflict));
    }
    LOGGED_MODEL_PARAMS.set(tables, &owner(event), &event.params).await?;
    Ok(None)
}

async fn tagged(tables: &mut Tables<'_>, event: &LoggedModelChanged) -> Result<Option<Conflict>, FoldError> {
    let stored = LOGGED_MODEL_TAGS.all(tables, &owner(event)).await?;
    // An event is accepted whole or rejected whole: all tags are looked up before one is removed.
    if let Some(key) = event.removed_tags.iter().find(|key| !stored.contains_key(*key)) {
        let message = format!("No tag with key '{key}' found for model with ID '{}'.", event.model_id);
        return Ok(Some(Conflict::new(ConflictCode::DoesNotExist, message)));
    }
    LOGGED_MODEL_TAGS.remove(tables, &owner(event), &event.removed_tags).await?;
    LOGGED_MODEL_TAGS.set(tables, &owner(event), &event.tags).await?;
    Ok(None)
}

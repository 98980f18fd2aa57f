//! `ml.logged_model.changed.v1`. Its metrics are the runs', and are joined on read.

use std::collections::BTreeMap;

use carbon_schemas::events::{KeyValue, LoggedModelChanged, LoggedModelKind};
use carbon_store::{IntoValue, QueryBuilder, Tables};

use crate::projection::FoldError;
use crate::registry::verdict::{Conflict, ConflictCode};

/// Applies one record; the conflict, where it changes nothing.
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
    set(tables, event, "logged_model_params", &event.params).await?;
    set(tables, event, "logged_model_tags", &event.tags).await?;
    Ok(None)
}

/// `column` is the program's own, of the same type as its value.
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

/// A parameter is set once (law 10), within a record too.
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
    let stored = pairs(tables, event, "logged_model_params").await?;
    if let Some(conflict) = params_differ(event, &stored) {
        return Ok(Some(conflict));
    }
    set(tables, event, "logged_model_params", &event.params).await?;
    Ok(None)
}

async fn tagged(tables: &mut Tables<'_>, event: &LoggedModelChanged) -> Result<Option<Conflict>, FoldError> {
    let stored = pairs(tables, event, "logged_model_tags").await?;
    // Taken whole or refused whole: nothing is removed before everything is found.
    if let Some(key) = event.removed_tags.iter().find(|key| !stored.contains_key(*key)) {
        let message = format!("No tag with key '{key}' found for model with ID '{}'.", event.model_id);
        return Ok(Some(Conflict::new(ConflictCode::DoesNotExist, message)));
    }
    for key in &event.removed_tags {
        carbon_store::query("DELETE FROM logged_model_tags WHERE tenant_id = $1 AND model_id = $2 AND key = $3")
            .bind(event.tenant_id.as_str())
            .bind(event.model_id.as_str())
            .bind(key)
            .execute(tables.connection())
            .await?;
    }
    set(tables, event, "logged_model_tags", &event.tags).await?;
    Ok(None)
}

async fn pairs(
    tables: &mut Tables<'_>,
    event: &LoggedModelChanged,
    table: &'static str,
) -> Result<BTreeMap<String, String>, FoldError> {
    let sql = format!("SELECT key, value FROM {table} WHERE tenant_id = $1 AND model_id = $2");
    let query =
        carbon_store::query(sqlx::AssertSqlSafe(sql)).bind(event.tenant_id.as_str()).bind(event.model_id.as_str());
    let mut found = BTreeMap::new();
    for row in query.fetch_all(tables.connection()).await? {
        found.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(found)
}

async fn set(
    tables: &mut Tables<'_>,
    event: &LoggedModelChanged,
    table: &'static str,
    pairs: &[KeyValue],
) -> Result<(), FoldError> {
    // The last of a key wins, and one statement may write a row once only.
    let last: BTreeMap<&str, &str> = pairs.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
    if last.is_empty() {
        return Ok(());
    }
    let mut insert =
        QueryBuilder::new(tables.dialect(), format!("INSERT INTO {table} (tenant_id, model_id, key, value) "));
    insert.push_values(&last, |mut bind, (key, value)| {
        bind.push_bind(event.tenant_id.as_str()).push_bind(event.model_id.as_str()).push_bind(*key).push_bind(*value);
    });
    insert.push(" ON CONFLICT (tenant_id, model_id, key) DO UPDATE SET value = excluded.value");
    insert.build().execute(tables.connection()).await?;
    Ok(())
}

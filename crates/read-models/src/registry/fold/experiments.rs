//! `ml.experiment.changed.v1`: one partition, so that ids and names are claimed in one order.

use carbon_core::Timestamp;
use carbon_schemas::events::{ExperimentChanged, ExperimentKind, KeyValue};
use carbon_store::{QueryBuilder, Tables};

use crate::projection::FoldError;
use crate::registry::verdict::{Conflict, ConflictCode};

struct Known {
    name: String,
    deleted: bool,
}

/// Applies one record; the conflict, where it changes nothing.
pub(super) async fn apply(tables: &mut Tables<'_>, event: &ExperimentChanged) -> Result<Option<Conflict>, FoldError> {
    // The decoder has seen to it that this is a number.
    let Ok(id) = event.number() else { return Ok(None) };
    let own = known(tables, event, id).await?;
    let conflict = match (event.kind, own) {
        (ExperimentKind::Created, own) => return created(tables, event, id, own.is_some()).await,
        (ExperimentKind::Unknown, _) => None,
        (_, None) => Some(missing(id)),
        (ExperimentKind::Renamed, Some(own)) => renamed(tables, event, id, &own).await?,
        (ExperimentKind::Tagged, Some(own)) => tagged(tables, event, id, &own).await?,
        (ExperimentKind::Deleted, Some(own)) => marked(tables, event, id, &own, true).await?,
        (ExperimentKind::Restored, Some(own)) => marked(tables, event, id, &own, false).await?,
    };
    Ok(conflict)
}

fn missing(id: i64) -> Conflict {
    Conflict::new(ConflictCode::DoesNotExist, format!("No Experiment with id={id} exists"))
}

fn taken(name: &str) -> Conflict {
    Conflict::new(ConflictCode::AlreadyExists, format!("Experiment(name={name}) already exists."))
}

fn inactive(id: i64) -> Conflict {
    let message = format!("The experiment {id} must be in the 'active' state. Current state is deleted.");
    Conflict::new(ConflictCode::Refused, message)
}

async fn known(tables: &mut Tables<'_>, event: &ExperimentChanged, id: i64) -> Result<Option<Known>, FoldError> {
    let row = carbon_store::query("SELECT name, deleted FROM experiments WHERE tenant_id = $1 AND experiment_id = $2")
        .bind(event.tenant_id.as_str())
        .bind(id)
        .fetch_optional(tables.connection())
        .await?;
    Ok(row.map(|row| Ok::<_, sqlx::Error>(Known { name: row.try_get(0)?, deleted: row.try_get(1)? })).transpose()?)
}

/// Deleted experiments keep their names.
async fn has_name(tables: &mut Tables<'_>, event: &ExperimentChanged, name: &str) -> Result<bool, FoldError> {
    let found = carbon_store::query("SELECT 1 FROM experiments WHERE tenant_id = $1 AND name = $2")
        .bind(event.tenant_id.as_str())
        .bind(name)
        .fetch_optional(tables.connection())
        .await?;
    Ok(found.is_some())
}

async fn created(
    tables: &mut Tables<'_>,
    event: &ExperimentChanged,
    id: i64,
    id_taken: bool,
) -> Result<Option<Conflict>, FoldError> {
    let name = event.name.as_deref().unwrap_or_default();
    // The name first: a writer that lost both has nothing to gain by another number.
    if has_name(tables, event, name).await? {
        return Ok(Some(taken(name)));
    }
    if id_taken {
        return Ok(Some(Conflict::new(ConflictCode::IdTaken, format!("experiment id {id} is taken"))));
    }
    carbon_store::query(
        "INSERT INTO experiments (tenant_id, experiment_id, name, artifact_location, deleted, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, 0, $5, $5)",
    )
    .bind(event.tenant_id.as_str())
    .bind(id)
    .bind(name)
    .bind(event.artifact_location.as_deref().unwrap_or_default())
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    set_tags(tables, event, id, &event.tags).await?;
    Ok(None)
}

async fn renamed(
    tables: &mut Tables<'_>,
    event: &ExperimentChanged,
    id: i64,
    own: &Known,
) -> Result<Option<Conflict>, FoldError> {
    if own.deleted {
        return Ok(Some(Conflict::new(ConflictCode::Refused, "Cannot rename a non-active experiment.")));
    }
    let name = event.name.as_deref().unwrap_or_default();
    if name != own.name && has_name(tables, event, name).await? {
        return Ok(Some(taken(name)));
    }
    carbon_store::query(
        "UPDATE experiments SET name = $3, updated_at = $4 WHERE tenant_id = $1 AND experiment_id = $2",
    )
    .bind(event.tenant_id.as_str())
    .bind(id)
    .bind(name)
    .bind(event.occurred_at.0)
    .execute(tables.connection())
    .await?;
    Ok(None)
}

async fn tagged(
    tables: &mut Tables<'_>,
    event: &ExperimentChanged,
    id: i64,
    own: &Known,
) -> Result<Option<Conflict>, FoldError> {
    if own.deleted {
        return Ok(Some(inactive(id)));
    }
    for key in &event.removed_tags {
        // Taken whole or refused whole: nothing is removed before everything is found.
        let found = carbon_store::query(
            "SELECT 1 FROM experiment_tags WHERE tenant_id = $1 AND experiment_id = $2 AND key = $3",
        )
        .bind(event.tenant_id.as_str())
        .bind(id)
        .bind(key)
        .fetch_optional(tables.connection())
        .await?;
        if found.is_none() {
            let message = format!("No tag with name: {key} in experiment with id {id}");
            return Ok(Some(Conflict::new(ConflictCode::DoesNotExist, message)));
        }
    }
    for key in &event.removed_tags {
        carbon_store::query("DELETE FROM experiment_tags WHERE tenant_id = $1 AND experiment_id = $2 AND key = $3")
            .bind(event.tenant_id.as_str())
            .bind(id)
            .bind(key)
            .execute(tables.connection())
            .await?;
    }
    set_tags(tables, event, id, &event.tags).await?;
    touch(tables, event, id, event.occurred_at).await?;
    Ok(None)
}

/// Deleting what is deleted, or restoring what is not, names nothing that is there.
async fn marked(
    tables: &mut Tables<'_>,
    event: &ExperimentChanged,
    id: i64,
    own: &Known,
    deleted: bool,
) -> Result<Option<Conflict>, FoldError> {
    if own.deleted == deleted {
        return Ok(Some(missing(id)));
    }
    carbon_store::query("UPDATE experiments SET deleted = $3 WHERE tenant_id = $1 AND experiment_id = $2")
        .bind(event.tenant_id.as_str())
        .bind(id)
        .bind(deleted)
        .execute(tables.connection())
        .await?;
    touch(tables, event, id, event.occurred_at).await?;
    Ok(None)
}

async fn touch(tables: &mut Tables<'_>, event: &ExperimentChanged, id: i64, at: Timestamp) -> Result<(), FoldError> {
    carbon_store::query("UPDATE experiments SET updated_at = $3 WHERE tenant_id = $1 AND experiment_id = $2")
        .bind(event.tenant_id.as_str())
        .bind(id)
        .bind(at.0)
        .execute(tables.connection())
        .await?;
    Ok(())
}

async fn set_tags(
    tables: &mut Tables<'_>,
    event: &ExperimentChanged,
    id: i64,
    tags: &[KeyValue],
) -> Result<(), FoldError> {
    // The last of a key wins, and one statement may write a row once only.
    let last: std::collections::BTreeMap<&str, &str> =
        tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect();
    if last.is_empty() {
        return Ok(());
    }
    let mut insert =
        QueryBuilder::new(tables.dialect(), "INSERT INTO experiment_tags (tenant_id, experiment_id, key, value) ");
    insert.push_values(&last, |mut bind, (key, value)| {
        bind.push_bind(event.tenant_id.as_str()).push_bind(id).push_bind(*key).push_bind(*value);
    });
    insert.push(" ON CONFLICT (tenant_id, experiment_id, key) DO UPDATE SET value = excluded.value");
    insert.build().execute(tables.connection()).await?;
    Ok(())
}

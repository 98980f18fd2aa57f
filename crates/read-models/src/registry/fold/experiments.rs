//! `ml.experiment.changed.v1`. The topic has one partition, so ids and names are claimed in one order.

use carbon_core::Timestamp;
use carbon_schemas::events::{ExperimentChanged, ExperimentKind};
use carbon_store::{IntoValue as _, Tables, Value};

use super::tags::EXPERIMENT_TAGS;
use crate::projection::FoldError;
use crate::registry::verdict::{Conflict, ConflictCode};

/// The row of an experiment, as far as the fold needs it.
struct StoredExperiment {
    name: String,
    deleted: bool,
}

/// Applies one event. Returns the conflict if the event changes nothing.
pub(super) async fn apply(tables: &mut Tables<'_>, event: &ExperimentChanged) -> Result<Option<Conflict>, FoldError> {
    // The decoder rejects an id that is not a number.
    let Ok(id) = event.number() else { return Ok(None) };
    let own = stored(tables, event, id).await?;
    let conflict = match (event.kind, own) {
        (ExperimentKind::Created, own) => return created(tables, event, id, own.is_some()).await,
        (ExperimentKind::Unknown, _) => None,
        (_, None) => Some(missing(id)),
        (ExperimentKind::Renamed, Some(own)) => renamed(tables, event, id, &own).await?,
        (ExperimentKind::Tagged, Some(own)) => tagged(tables, event, id, &own).await?,
        (ExperimentKind::Deleted, Some(own)) => set_deleted(tables, event, id, &own, true).await?,
        (ExperimentKind::Restored, Some(own)) => set_deleted(tables, event, id, &own, false).await?,
    };
    Ok(conflict)
}

/// The owner of an experiment's tags.
fn owner(event: &ExperimentChanged, id: i64) -> [Value; 2] {
    [event.tenant_id.as_str().into_value(), id.into_value()]
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

async fn stored(
    tables: &mut Tables<'_>,
    event: &ExperimentChanged,
    id: i64,
) -> Result<Option<StoredExperiment>, FoldError> {
    let row = carbon_store::query("SELECT name, deleted FROM experiments WHERE tenant_id = $1 AND experiment_id = $2")
        .bind(event.tenant_id.as_str())
        .bind(id)
        .fetch_optional(tables.connection())
        .await?;
    Ok(row
        .map(|row| Ok::<_, sqlx::Error>(StoredExperiment { name: row.try_get(0)?, deleted: row.try_get(1)? }))
        .transpose()?)
}

/// Whether an experiment has the name. Deleted experiments keep theirs.
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
    // The name first: a writer that lost both gains nothing by trying the next id.
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
    EXPERIMENT_TAGS.set(tables, &owner(event, id), &event.tags).await?;
    Ok(None)
}

async fn renamed(
    tables: &mut Tables<'_>,
    event: &ExperimentChanged,
    id: i64,
    own: &StoredExperiment,
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
    own: &StoredExperiment,
) -> Result<Option<Conflict>, FoldError> {
    if own.deleted {
        return Ok(Some(inactive(id)));
    }
    for key in &event.removed_tags {
        // An event is accepted whole or rejected whole: all tags are looked up before one is removed.
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
    EXPERIMENT_TAGS.remove(tables, &owner(event, id), &event.removed_tags).await?;
    EXPERIMENT_TAGS.set(tables, &owner(event, id), &event.tags).await?;
    touch(tables, event, id, event.occurred_at).await?;
    Ok(None)
}

/// Deletes or restores. To delete a deleted experiment, or to restore an active one, is a conflict: it does not exist.
async fn set_deleted(
    tables: &mut Tables<'_>,
    event: &ExperimentChanged,
    id: i64,
    own: &StoredExperiment,
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

//! Logged models. Their metric values are the runs'.

use carbon_schemas::events::{KeyValue, LoggedModelChanged, LoggedModelKind};

use super::experiments::Target;
use super::report::Kind;
use super::sink::{List, at};
use super::store::{Bind, number, text};
use super::{Import, pair_size, pairs};
use crate::error::CliError;

struct Row {
    id: String,
    name: String,
    location: String,
    created: i64,
    updated: i64,
    status: i64,
    deleted: bool,
    model_type: String,
    run: String,
}

/// All logged models of an experiment of the store, which is `to` here.
pub async fn import(import: &mut Import, experiment: i64, to: Target) -> Result<(), CliError> {
    let sql = "SELECT model_id, name, artifact_location, CAST(creation_timestamp_ms AS BIGINT), \
         CAST(last_updated_timestamp_ms AS BIGINT), CAST(status AS BIGINT), lifecycle_stage, model_type, source_run_id \
         FROM logged_models WHERE experiment_id = $1 ORDER BY creation_timestamp_ms, model_id";
    for row in import.store.rows(sql, &[Bind::Number(experiment)]).await? {
        let row = Row {
            id: text(&row, 0)?,
            name: text(&row, 1)?,
            location: text(&row, 2)?,
            created: number(&row, 3)?,
            updated: number(&row, 4)?,
            status: number(&row, 5)?,
            deleted: text(&row, 6)? == "deleted",
            model_type: text(&row, 7)?,
            run: text(&row, 8)?,
        };
        one(import, &row, to).await?;
    }
    Ok(())
}

async fn one(import: &mut Import, row: &Row, to: Target) -> Result<(), CliError> {
    let tenant = import.sink.tenant.clone();
    let of = |event_id, time, kind| LoggedModelChanged::of(event_id, at(time), &tenant, &row.id, kind);
    let uri = import.places.rewritten(&row.location);
    let event = LoggedModelChanged {
        experiment_id: Some(to.id.to_string()),
        name: Some(row.name.clone()),
        model_type: Some(row.model_type.clone()),
        source_run_id: Some(row.run.clone()),
        artifact_uri: Some(uri.clone()),
        ..of(import.sink.id("logged_models", &[&row.id]), row.created, LoggedModelKind::Created)
    };
    if !import.sink.put(&event, &[(Kind::LoggedModels, 1)], &row.id).await? {
        return Ok(());
    }
    import.keep_root(&uri);
    let params = "SELECT param_key, param_value FROM logged_model_params WHERE model_id = $1 ORDER BY param_key";
    let params = pairs(&import.store.rows(params, &[Bind::Text(&row.id)]).await?)?;
    let tags = "SELECT tag_key, tag_value FROM logged_model_tags WHERE model_id = $1 ORDER BY tag_key";
    let tags = pairs(&import.store.rows(tags, &[Bind::Text(&row.id)]).await?)?;
    let list = |kind, table, items| List {
        kind,
        table,
        owner: &row.id,
        items,
        size: pair_size,
        name: |pair: &KeyValue| &pair.key,
    };
    let event = |event_id, params| LoggedModelChanged { params, ..of(event_id, row.updated, LoggedModelKind::Params) };
    import.sink.put_list(list(Kind::LoggedModelParams, "logged_models/params", params), event).await?;
    let event = |event_id, tags| LoggedModelChanged { tags, ..of(event_id, row.updated, LoggedModelKind::Tagged) };
    import.sink.put_list(list(Kind::LoggedModelTags, "logged_models/tags", tags), event).await?;

    let updated = row.updated.to_string();
    // MLflow's numbers of states. Pending is what a new one is.
    let status = match row.status {
        1 if row.updated == row.created => None,
        1 => Some("PENDING".to_owned()),
        2 => Some("READY".to_owned()),
        3 => Some("UPLOAD_FAILED".to_owned()),
        other => Some(other.to_string()),
    };
    if let Some(status) = status {
        let event_id = import.sink.id("logged_models/status", &[&row.id, &status, &updated]);
        let event =
            LoggedModelChanged { status: Some(status), ..of(event_id, row.updated, LoggedModelKind::Finalised) };
        import.sink.put_state(&event, Kind::LoggedModels, &row.id).await?;
    }
    if row.deleted {
        let event_id = import.sink.id("logged_models/deleted", &[&row.id, &updated]);
        let event = of(event_id, row.updated, LoggedModelKind::Deleted);
        import.sink.put_state(&event, Kind::LoggedModels, &row.id).await?;
    }
    Ok(())
}

//! The JSON of MLflow's answers, without unset fields and empty lists.

use carbon_read_models::registry::queries::{Experiment, LoggedModel, ModelVersion, RegisteredModel, Webhook};
use carbon_schemas::events::{KeyValue, Metric};
use serde_json::{Map, Value, json};

use super::run_shape;

pub(super) fn put(object: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    object.insert(name.to_owned(), value.into());
}

/// Adds a list, unless it is empty.
pub(super) fn put_list(object: &mut Map<String, Value>, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        put(object, name, list);
    }
}

pub(super) fn pairs(list: &[KeyValue]) -> Vec<Value> {
    list.iter().map(|pair| json!({"key": pair.key, "value": pair.value})).collect()
}

pub(super) fn stage(deleted: bool) -> &'static str {
    if deleted { "deleted" } else { "active" }
}

/// Returns a number as JSON; NaN, which JSON lacks, as the text `NaN`.
pub(super) fn number(value: f64) -> Value {
    if value.is_nan() { Value::from("NaN") } else { Value::from(value) }
}

pub(super) fn experiment(experiment: &Experiment) -> Value {
    let mut object = Map::new();
    put(&mut object, "experiment_id", experiment.id.to_string());
    put(&mut object, "name", experiment.name.as_str());
    put(&mut object, "artifact_location", experiment.artifact_location.as_str());
    put(&mut object, "lifecycle_stage", stage(experiment.deleted));
    // The default experiment has no times until something is written to it.
    if experiment.created_at.0 > 0 {
        put(&mut object, "last_update_time", experiment.updated_at.0);
        put(&mut object, "creation_time", experiment.created_at.0);
    }
    put_list(&mut object, "tags", pairs(&experiment.tags));
    put(&mut object, "workspace", "default");
    object.into()
}

pub(super) fn metric(metric: &Metric) -> Value {
    json!(run_shape::metric(metric))
}

pub(super) fn logged_model(model: &LoggedModel) -> Value {
    let mut info = Map::new();
    put(&mut info, "model_id", model.model_id.as_str());
    put(&mut info, "experiment_id", model.experiment_id.to_string());
    put(&mut info, "name", model.name.as_str());
    put(&mut info, "creation_timestamp_ms", model.created_at.0);
    put(&mut info, "last_updated_timestamp_ms", model.updated_at.0);
    put(&mut info, "artifact_uri", model.artifact_uri.as_str());
    put(&mut info, "status", format!("LOGGED_MODEL_{}", model.status));
    put(&mut info, "model_type", model.model_type.as_str());
    put(&mut info, "source_run_id", model.source_run_id.as_str());
    put_list(&mut info, "tags", pairs(&model.tags));
    let mut data = Map::new();
    put_list(&mut data, "params", pairs(&model.params));
    let with_run = |logged: &carbon_read_models::registry::queries::LoggedMetric| {
        let mut metric = metric(&logged.metric);
        metric["run_id"] = logged.run_id.as_str().into();
        metric
    };
    put_list(&mut data, "metrics", model.metrics.iter().map(with_run).collect());
    json!({"info": info, "data": data})
}

/// MLflow omits the aliases of versions in lists (`with_aliases` false).
pub(super) fn model_version(version: &ModelVersion, with_aliases: bool) -> Value {
    let mut object = Map::new();
    put(&mut object, "name", version.name.as_str());
    put(&mut object, "version", version.version.to_string());
    put(&mut object, "creation_timestamp", version.created_at.0);
    put(&mut object, "last_updated_timestamp", version.last_updated.0);
    put(&mut object, "current_stage", version.stage.as_str());
    put(&mut object, "description", version.description.as_str());
    put(&mut object, "source", version.source.as_str());
    put(&mut object, "run_id", version.run_id.as_str());
    put(&mut object, "status", "READY");
    put_list(&mut object, "tags", pairs(&version.tags));
    put(&mut object, "run_link", version.run_link.as_str());
    if with_aliases {
        put_list(&mut object, "aliases", version.aliases.iter().map(|alias| alias.as_str().into()).collect());
    }
    object.into()
}

pub(super) fn registered_model(model: &RegisteredModel) -> Value {
    let mut object = Map::new();
    put(&mut object, "name", model.name.as_str());
    put(&mut object, "creation_timestamp", model.created_at.0);
    put(&mut object, "last_updated_timestamp", model.last_updated.0);
    if let Some(description) = &model.description {
        put(&mut object, "description", description.as_str());
    }
    let latest = model.latest.iter().map(|version| model_version(version, false));
    put_list(&mut object, "latest_versions", latest.collect());
    put_list(&mut object, "tags", pairs(&model.tags));
    let alias = |(alias, version): &(String, i64)| json!({"alias": alias, "version": version.to_string()});
    put_list(&mut object, "aliases", model.aliases.iter().map(alias).collect());
    object.into()
}

/// The answer never contains the secret.
pub(super) fn webhook(webhook: &Webhook) -> Value {
    let mut object = Map::new();
    put(&mut object, "webhook_id", webhook.webhook_id.as_str());
    put(&mut object, "name", webhook.name.as_str());
    if !webhook.description.is_empty() {
        put(&mut object, "description", webhook.description.as_str());
    }
    put(&mut object, "url", webhook.url.as_str());
    let event = |text: &String| {
        let (entity, action) = text.split_once('.')?;
        Some(json!({"entity": entity.to_uppercase(), "action": action.to_uppercase()}))
    };
    put_list(&mut object, "events", webhook.events.iter().filter_map(event).collect());
    put(&mut object, "status", webhook.status.as_str());
    put(&mut object, "creation_timestamp", webhook.created_at.0);
    put(&mut object, "last_updated_timestamp", webhook.updated_at.0);
    object.into()
}

//! `experiments/*`: create, get, search, update, tag, delete and restore experiments.

use std::sync::Arc;

use carbon_read_models::registry::filter::{Target, parse_filter};
use carbon_read_models::registry::queries::{
    DEFAULT_EXPERIMENT, Experiment, SearchExperiments, View, experiment, experiment_by_name, next_experiment_id,
    search_experiments, stored_experiment,
};
use carbon_read_models::registry::{ConflictCode, deletion_count};
use carbon_schemas::events::{ExperimentChanged, ExperimentKind, KeyValue};
use serde_json::json;
use tokio::sync::OwnedMutexGuard;

use super::args::Args;
use super::call::{Answer, Answered, Call, empty_answer};
use super::check;
use super::error::MlflowError;
use super::page::{Paging, order_by};
use super::shapes;

fn missing(id: &str) -> MlflowError {
    MlflowError::does_not_exist(format!("No Experiment with id={id} exists"))
}

impl Call {
    fn experiment_event(&self, id: i64, kind: ExperimentKind) -> ExperimentChanged {
        ExperimentChanged::of(self.event_id(), self.now(), self.scope.tenant(), id, kind)
    }

    /// Returns the experiment that the arguments name, even if it is deleted.
    pub(super) async fn experiment(&self) -> Result<Experiment, MlflowError> {
        let text = self.args.required("experiment_id")?;
        let id = check::experiment_id(text)?;
        experiment(self.rows()?, &self.scope, id).await?.ok_or_else(|| missing(text))
    }

    /// Returns the id of the experiment that a write refers to. Creates the row of the default experiment if it is missing.
    async fn written_experiment(&self) -> Result<i64, MlflowError> {
        let id = check::experiment_id(self.args.required("experiment_id")?)?;
        ensure_default(self, id).await?;
        Ok(id)
    }

    /// Waits until no other request of this process claims a unique name or number of the tenant, so that only processes
    /// race for them. The claim ends when the guard is dropped.
    pub(super) async fn claim(&self) -> OwnedMutexGuard<()> {
        self.dependencies.claims.lock(self.scope.tenant()).await
    }

    /// Returns the artifact location of an active experiment; an error if the experiment is deleted. `text` is the id as
    /// the caller wrote it.
    pub(super) async fn artifact_location(&self, id: i64, text: &str) -> Result<Arc<str>, MlflowError> {
        let registry = self.registry()?;
        let (epoch, tenant) = (deletion_count(&registry.rows.namespace), self.scope.tenant());
        if let Some(cached) = registry.active.artifact_location(epoch, tenant, id) {
            return Ok(cached);
        }
        ensure_default(self, id).await?;
        let found = experiment(self.rows()?, &self.scope, id).await?.ok_or_else(|| missing(text))?;
        if found.deleted {
            return Err(MlflowError::invalid(format!(
                "The experiment {id} must be in the 'active' state. Current state is deleted."
            )));
        }
        let location = found.artifact_location.into();
        registry.active.add_experiment(epoch, tenant, id, &location);
        Ok(location)
    }
}

/// Creates the row of the default experiment when a write refers to it for the first time. If several requests do so
/// concurrently, one of them wins and all succeed.
async fn ensure_default(call: &Call, id: i64) -> Result<(), MlflowError> {
    if id != DEFAULT_EXPERIMENT || stored_experiment(call.rows()?, &call.scope, id).await?.is_some() {
        return Ok(());
    }
    let Experiment { name, artifact_location, .. } = Experiment::implicit();
    let event = ExperimentChanged {
        name: Some(name),
        artifact_location: Some(artifact_location),
        ..call.experiment_event(id, ExperimentKind::Created)
    };
    match call.append(&event).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_client_error() => Err(error),
        // The error may say that the write is durable, which is not true of the write that the caller requested.
        Err(error) => {
            tracing::warn!(error = error.message(), "creation of the default experiment failed");
            Err(MlflowError::unavailable(
                "nothing of this request was written: the registry has not folded the tenant's default experiment yet; retry",
            ))
        }
    }
}

fn artifact_location(id: i64) -> String {
    format!("mlflow-artifacts:/{id}")
}

/// Parses the tags of a run or logged model. Values that are too long are cut.
pub(super) fn tags(args: &Args) -> Result<Vec<KeyValue>, MlflowError> {
    tags_with(args, |tag| Ok(check::cut(tag.text("value")?.unwrap_or_default(), check::TAG_VALUE_CHARS)))
}

fn tags_with(args: &Args, value: impl Fn(&Args) -> Result<String, MlflowError>) -> Result<Vec<KeyValue>, MlflowError> {
    let mut tags = Vec::new();
    for tag in args.objects("tags")? {
        let (key, parameter) = (tag.required("key")?, tag.full_name("key"));
        check::key(key, &parameter, &parameter)?;
        tags.push(KeyValue::new(key, value(&tag)?));
    }
    Ok(tags)
}

/// Returns the value of an experiment's tag. A value that is too long is an error and is not cut, because the web UI stores
/// the experiment's description in a tag.
fn tag_value(args: &Args) -> Result<String, MlflowError> {
    let value = args.text("value")?.unwrap_or_default();
    check::max_chars(value, "value", check::EXPERIMENT_TAG_VALUE_CHARS)?;
    Ok(value.to_owned())
}

pub(super) async fn create(call: Call) -> Answered {
    let name = call.args.required("name")?;
    check::experiment_name(name)?;
    let location = call.args.text("artifact_location")?.filter(|text| !text.is_empty());
    let tags = tags_with(&call.args, tag_value)?;
    let _claim = call.claim().await;
    if experiment_by_name(call.rows()?, &call.scope, name).await?.is_some() {
        return Err(MlflowError::already_exists(format!("Experiment(name={name}) already exists.")));
    }
    loop {
        let id = next_experiment_id(call.rows()?, &call.scope).await?;
        let event = ExperimentChanged {
            name: Some(name.to_owned()),
            artifact_location: Some(location.map_or_else(|| artifact_location(id), str::to_owned)),
            tags: tags.clone(),
            ..call.experiment_event(id, ExperimentKind::Created)
        };
        match call.append(&event).await? {
            None => return Ok(Answer(json!({"experiment_id": id.to_string()}))),
            // Another process has claimed the same id. Try the next one.
            Some(conflict) if conflict.code == ConflictCode::IdTaken => {}
            Some(conflict) => return Err(MlflowError::conflict(conflict)),
        }
    }
}

pub(super) async fn get(call: Call) -> Answered {
    Ok(Answer(json!({"experiment": shapes::experiment(&call.experiment().await?)})))
}

pub(super) async fn get_by_name(call: Call) -> Answered {
    let name = call.args.required("experiment_name")?;
    match experiment_by_name(call.rows()?, &call.scope, name).await? {
        Some(found) => Ok(Answer(json!({"experiment": shapes::experiment(&found)}))),
        None => Err(MlflowError::does_not_exist(format!("Could not find experiment with name '{name}'"))),
    }
}

async fn set_lifecycle(call: &Call, kind: ExperimentKind) -> Answered {
    let id = call.written_experiment().await?;
    call.write(&call.experiment_event(id, kind)).await?;
    empty_answer()
}

pub(super) async fn delete(call: Call) -> Answered {
    set_lifecycle(&call, ExperimentKind::Deleted).await
}

pub(super) async fn restore(call: Call) -> Answered {
    set_lifecycle(&call, ExperimentKind::Restored).await
}

pub(super) async fn update(call: Call) -> Answered {
    let id = check::experiment_id(call.args.required("experiment_id")?)?;
    let name = call.args.required("new_name")?;
    check::experiment_name(name)?;
    let _claim = call.claim().await;
    ensure_default(&call, id).await?;
    if name == Experiment::implicit().name {
        // The fold rejects the name only if the default experiment has a row.
        ensure_default(&call, DEFAULT_EXPERIMENT).await?;
    }
    let event = ExperimentChanged { name: Some(name.to_owned()), ..call.experiment_event(id, ExperimentKind::Renamed) };
    call.write(&event).await?;
    empty_answer()
}

pub(super) async fn set_tag(call: Call) -> Answered {
    let id = check::experiment_id(call.args.required("experiment_id")?)?;
    let key = call.args.required("key")?;
    check::key(key, "key", "key")?;
    let value = tag_value(&call.args)?;
    ensure_default(&call, id).await?;
    let event = ExperimentChanged {
        tags: vec![KeyValue::new(key, value)],
        ..call.experiment_event(id, ExperimentKind::Tagged)
    };
    call.write(&event).await?;
    empty_answer()
}

pub(super) async fn delete_tag(call: Call) -> Answered {
    let id = check::experiment_id(call.args.required("experiment_id")?)?;
    let key = call.args.required("key")?;
    check::max_chars(key, "Tag name", check::KEY_CHARS)?;
    ensure_default(&call, id).await?;
    let event =
        ExperimentChanged { removed_tags: vec![key.to_owned()], ..call.experiment_event(id, ExperimentKind::Tagged) };
    call.write(&event).await?;
    empty_answer()
}

/// Parses the argument that selects active or deleted items. An unknown name is an error, unlike in MLflow.
pub(super) fn view(args: &Args, name: &str) -> Result<View, MlflowError> {
    match args.text(name)? {
        None | Some("" | "ACTIVE_ONLY") => Ok(View::Active),
        Some("DELETED_ONLY") => Ok(View::Deleted),
        Some("ALL") => Ok(View::All),
        Some(other) => Err(MlflowError::invalid(format!(
            "Invalid value {other:?} for parameter '{name}' supplied: it is one of ACTIVE_ONLY, DELETED_ONLY, ALL"
        ))),
    }
}

pub(super) async fn search(call: Call) -> Answered {
    let paging = Paging::parse(&call.args, None, 50_000)?;
    let filter = parse_filter(Target::Experiments, call.args.text("filter")?.unwrap_or_default())?;
    let order_by = order_by(&call.args, Target::Experiments)?;
    let view = view(&call.args, "view_type")?;
    let search = SearchExperiments { view, filter, order_by, limit: paging.limit, offset: paging.offset };
    let page = search_experiments(call.rows()?, &call.scope, &search).await?;
    paging.answer("experiments", page.items.iter().map(shapes::experiment).collect(), page.more)
}

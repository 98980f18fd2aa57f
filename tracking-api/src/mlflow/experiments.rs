//! `experiments/*`.

use std::sync::Arc;

use carbon_read_models::registry::filter::{Target, parse_filter};
use carbon_read_models::registry::queries::{
    DEFAULT_EXPERIMENT, Experiment, SearchExperiments, View, experiment, experiment_by_name, next_experiment_id,
    search_experiments, stored_experiment,
};
use carbon_read_models::registry::{ConflictCode, deletion_count};
use carbon_schemas::events::{ExperimentChanged, ExperimentKind, KeyValue};
use serde_json::{Map, json};
use tokio::sync::OwnedMutexGuard;

use super::args::Args;
use super::call::{Answer, Answered, Call, nothing};
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

    /// The experiment that the arguments name, deleted ones too.
    pub(super) async fn experiment(&self) -> Result<Experiment, MlflowError> {
        let text = self.args.required("experiment_id")?;
        let id = check::experiment_id(text)?;
        experiment(self.rows()?, &self.scope, id).await?.ok_or_else(|| missing(text))
    }

    /// The id of the experiment that a write refers to, which has a row from then on if it is the default one.
    async fn written_experiment(&self) -> Result<i64, MlflowError> {
        let id = check::experiment_id(self.args.required("experiment_id")?)?;
        ensure_default(self, id).await?;
        Ok(id)
    }

    /// Waits for the tenant's other claims of this process.
    pub(super) async fn claim(&self) -> OwnedMutexGuard<()> {
        self.parts.claims.enter(self.scope.tenant()).await
    }

    /// Where the artifacts of an experiment that takes runs and models lie; `text` is its id as the caller wrote it.
    pub(super) async fn artifact_location(&self, id: i64, text: &str) -> Result<Arc<str>, MlflowError> {
        let registry = self.registry()?;
        let (era, tenant) = (deletion_count(&registry.rows.namespace), self.scope.tenant());
        if let Some(known) = registry.active.artifact_location(era, tenant, id) {
            return Ok(known);
        }
        ensure_default(self, id).await?;
        let found = experiment(self.rows()?, &self.scope, id).await?.ok_or_else(|| missing(text))?;
        if found.deleted {
            return Err(MlflowError::invalid(format!(
                "The experiment {id} must be in the 'active' state. Current state is deleted."
            )));
        }
        let location = found.artifact_location.into();
        registry.active.add_experiment(era, tenant, id, &location);
        Ok(location)
    }
}

/// Makes the row of the default experiment, where a write refers to it for the first time. Of several who do so at once
/// one wins, and all are content.
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
        Err(error) if error.is_callers() => Err(error),
        // What its error says of a durable write is not of the write that was asked for.
        Err(error) => {
            tracing::warn!(error = error.message(), "the default experiment was not made");
            Err(MlflowError::unavailable(
                "nothing of this request was written: the registry has not folded the tenant's default experiment yet; try again",
            ))
        }
    }
}

fn artifact_location(id: i64) -> String {
    format!("mlflow-artifacts:/{id}")
}

/// The tags of a run.
pub(super) fn tags(args: &Args) -> Result<Vec<KeyValue>, MlflowError> {
    tags_with(args, |tag| Ok(check::cut(tag.text("value")?.unwrap_or_default(), check::TAG_VALUE)))
}

fn tags_with(args: &Args, value: impl Fn(&Args) -> Result<String, MlflowError>) -> Result<Vec<KeyValue>, MlflowError> {
    let mut tags = Vec::new();
    for tag in args.objects("tags")? {
        let (key, called) = (tag.required("key")?, tag.called("key"));
        check::key(key, &called, &called)?;
        tags.push(KeyValue::new(key, value(&tag)?));
    }
    Ok(tags)
}

/// The value of an experiment's tag: the web UI keeps descriptions there, so what is too long is refused, not cut.
fn tag_value(args: &Args) -> Result<String, MlflowError> {
    let value = args.text("value")?.unwrap_or_default();
    check::too_long(value, "value", check::EXPERIMENT_TAG_VALUE)?;
    Ok(value.to_owned())
}

pub(super) async fn create(call: Call) -> Answered {
    let name = call.args.required("name")?;
    check::experiment_name(name)?;
    let location = call.args.text("artifact_location")?.filter(|text| !text.is_empty());
    let tags = tags_with(&call.args, tag_value)?;
    // Claims queue within a process, so that races are between replicas alone.
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
            // Another replica has drawn the same number.
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

async fn change(call: &Call, kind: ExperimentKind) -> Answered {
    let id = call.written_experiment().await?;
    call.write(&call.experiment_event(id, kind)).await?;
    nothing()
}

pub(super) async fn delete(call: Call) -> Answered {
    change(&call, ExperimentKind::Deleted).await
}

pub(super) async fn restore(call: Call) -> Answered {
    change(&call, ExperimentKind::Restored).await
}

pub(super) async fn update(call: Call) -> Answered {
    let id = check::experiment_id(call.args.required("experiment_id")?)?;
    let name = call.args.required("new_name")?;
    check::experiment_name(name)?;
    let _claim = call.claim().await;
    ensure_default(&call, id).await?;
    if name == Experiment::implicit().name {
        // So that the fold sees that the name is taken.
        ensure_default(&call, DEFAULT_EXPERIMENT).await?;
    }
    let event = ExperimentChanged { name: Some(name.to_owned()), ..call.experiment_event(id, ExperimentKind::Renamed) };
    call.write(&event).await?;
    nothing()
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
    nothing()
}

pub(super) async fn delete_tag(call: Call) -> Answered {
    let id = check::experiment_id(call.args.required("experiment_id")?)?;
    let key = call.args.required("key")?;
    check::too_long(key, "Tag name", 250)?;
    ensure_default(&call, id).await?;
    let event =
        ExperimentChanged { removed_tags: vec![key.to_owned()], ..call.experiment_event(id, ExperimentKind::Tagged) };
    call.write(&event).await?;
    nothing()
}

/// Which of active and deleted things are asked for; an unknown name is refused.
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
    let paging = Paging::read(&call.args, None, 50_000)?;
    let filter = parse_filter(Target::Experiments, call.args.text("filter")?.unwrap_or_default())?;
    let order_by = order_by(&call.args, Target::Experiments)?;
    let view = view(&call.args, "view_type")?;
    let search = SearchExperiments { view, filter, order_by, limit: paging.limit, offset: paging.offset };
    let page = search_experiments(call.rows()?, &call.scope, &search).await?;
    let mut answer = Map::new();
    if !page.items.is_empty() {
        shapes::put(&mut answer, "experiments", page.items.iter().map(shapes::experiment).collect::<Vec<_>>());
    }
    paging.sign(&mut answer, page.more);
    Ok(Answer(answer.into()))
}

//! `runs/*`: create, get, update, delete, restore and search runs.

use axum::response::Response;
use carbon_read_models::registry::deletion_count;
use carbon_read_models::registry::filter::{Target, parse_filter};
use carbon_read_models::registry::queries::{Run, RunInfo, SearchRuns, run, run_info, search_runs};
use carbon_schemas::events::{RUN_STATUSES, RunKind, RunLogged};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::call::{Answer, Answered, Call, empty_answer, serialised};
use super::check;
use super::error::MlflowError;
use super::experiments::{tags, view};
use super::names;
use super::page::{Paging, order_by};
use super::run_shape;

const NAME_TAG: &str = "mlflow.runName";

fn missing(run_id: &str) -> MlflowError {
    MlflowError::does_not_exist(format!("Run with id={run_id} not found"))
}

impl Call {
    pub(super) fn run_event(&self, run_id: &str, kind: RunKind) -> RunLogged {
        RunLogged::of(self.event_id(), self.now(), self.scope.tenant(), run_id, kind)
    }

    /// Returns the run that the arguments name, even if it is deleted.
    pub(super) async fn run(&self) -> Result<RunInfo, MlflowError> {
        let id = self.args.run_id()?;
        run_info(self.rows()?, &self.scope, id).await?.ok_or_else(|| missing(id))
    }

    /// Returns the run that the arguments name; an error if the run or its experiment is deleted. The fold decides again.
    pub(super) async fn active_run(&self) -> Result<RunInfo, MlflowError> {
        let run = self.run().await?;
        if run.deleted {
            return Err(MlflowError::invalid(format!(
                "The run {} must be in the 'active' state. Current state is deleted.",
                run.run_id
            )));
        }
        Ok(run)
    }

    /// Like [`Self::active_run`], but returns only the id and uses the cache.
    pub(super) async fn active_run_id(&self) -> Result<&str, MlflowError> {
        let (id, registry) = (self.args.run_id()?, self.registry()?);
        let (epoch, tenant) = (deletion_count(&registry.rows.namespace), self.scope.tenant());
        if !registry.active.has_run(epoch, tenant, id) {
            self.active_run().await?;
            registry.active.add_run(epoch, tenant, id);
        }
        Ok(id)
    }
}

/// Parses the argument `status`. An unknown name is an error, unlike in MLflow.
fn status(call: &Call) -> Result<Option<String>, MlflowError> {
    match call.args.text("status")? {
        None | Some("") => Ok(None),
        Some(name) if RUN_STATUSES.contains(&name) => Ok(Some(name.to_owned())),
        Some(other) => Err(MlflowError::invalid(format!(
            "Invalid value {other:?} for parameter 'status' supplied: it is one of {}",
            RUN_STATUSES.join(", ")
        ))),
    }
}

pub(super) async fn create(call: Call) -> Answered {
    // Only this call accepts the camelCase names of protobuf's JSON too.
    let args = &call.args;
    let text = args.any_text(&["experiment_id", "experimentId"])?;
    let text = text.ok_or_else(|| MlflowError::missing("experiment_id"))?;
    let id = check::experiment_id(text)?;
    // The epoch is read before the experiment, so that a deletion of the experiment in the meantime invalidates the cache
    // entry of the run.
    let (registry, tenant) = (call.registry()?, call.scope.tenant());
    let epoch = deletion_count(&registry.rows.namespace);
    let location = call.artifact_location(id, text).await?;
    let mut tags = tags(args)?;
    let given = args.any_text(&["run_name", "runName"])?;
    let tagged = tags.iter().rev().find(|tag| tag.key == NAME_TAG).map(|tag| tag.value.clone());
    let name = match (given, tagged) {
        (Some(given), Some(tagged)) if given != tagged => {
            return Err(MlflowError::invalid(format!(
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values \
                 (run_name='{given}', mlflow.runName='{tagged}')."
            )));
        }
        (Some(given), _) => given.to_owned(),
        (None, Some(tagged)) if !tagged.is_empty() => tagged,
        (None, _) => names::random(),
    };
    tags.retain(|tag| tag.key != NAME_TAG);
    let start_time = args.integer("start_time")?.or(args.integer("startTime")?).unwrap_or(0);
    let run_id = Uuid::new_v4().simple().to_string();
    let root = location.trim_end_matches('/');
    let event = RunLogged {
        experiment_id: Some(id.to_string()),
        run_name: Some(name),
        user_id: Some(args.any_text(&["user_id", "userId"])?.unwrap_or_default().to_owned()),
        status: Some("RUNNING".into()),
        start_time: Some(start_time),
        artifact_uri: Some(format!("{root}/{run_id}/artifacts")),
        tags,
        ..call.run_event(&run_id, RunKind::Started)
    };
    call.write(&event).await?;
    registry.active.add_run(epoch, tenant, &run_id);
    Ok(Answer(json!({"run": run_shape::run(&Run::started(&event)).without_outputs()})))
}

pub(super) async fn get(call: Call) -> Answered {
    let id = call.args.run_id()?;
    let found = run(call.rows()?, &call.scope, id).await?.ok_or_else(|| missing(id))?;
    Ok(Answer(json!({"run": run_shape::run(&found)})))
}

pub(super) async fn update(call: Call) -> Answered {
    let (status, end_time) = (status(&call)?, call.args.integer("end_time")?);
    let name = call.args.text("run_name")?.filter(|name| !name.is_empty()).map(str::to_owned);
    let run = call.active_run().await?;
    let event = RunLogged { status, end_time, run_name: name, ..call.run_event(&run.run_id, RunKind::Updated) };
    call.write(&event).await?;
    Ok(Answer(json!({"run_info": run_shape::run_info(&call.run().await?)})))
}

async fn set_lifecycle(call: &Call, kind: RunKind) -> Answered {
    let run = call.run().await?;
    call.write(&call.run_event(&run.run_id, kind)).await?;
    empty_answer()
}

pub(super) async fn delete(call: Call) -> Answered {
    set_lifecycle(&call, RunKind::Deleted).await
}

pub(super) async fn restore(call: Call) -> Answered {
    set_lifecycle(&call, RunKind::Restored).await
}

pub(super) async fn search(call: Call) -> Result<Response, MlflowError> {
    let paging = Paging::parse(&call.args, Some(1000), 50_000)?;
    let filter = parse_filter(Target::Runs, call.args.text("filter")?.unwrap_or_default())?;
    let order_by = order_by(&call.args, Target::Runs)?;
    let mut experiments = Vec::new();
    for id in call.args.texts("experiment_ids")? {
        experiments.push(check::experiment_id(&id)?);
    }
    let view = view(&call.args, "run_view_type")?;
    let search = SearchRuns { experiments, view, filter, order_by, limit: paging.limit, offset: paging.offset };
    let page = search_runs(call.rows()?, &call.scope, &search).await?;
    let answer =
        RunsPage { runs: page.items.iter().map(run_shape::run).collect(), next_page_token: paging.token(page.more) };
    serialised(&answer)
}

#[derive(Serialize)]
struct RunsPage<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<run_shape::RunShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

//! `POST /graphql`: the 2 queries that MLflow's web UI sends. The operation name selects the query; the query text is
//! ignored. The answer has all fields that the UI uses, in camelCase, with 64-bit integers as text and NaN as null.

use std::sync::Arc;

use axum::extract::{Request, State};
use carbon_http::read_body;
use carbon_read_models::registry::filter::{Clause, Comparator, Entity, Literal};
use carbon_read_models::registry::queries::{
    Experiment, ModelVersion, Run, SearchModels, experiment, run, search_model_versions,
};
use carbon_schemas::events::KeyValue;
use serde_json::{Value, json};

use super::args::Args;
use super::call::{Answer, Answered, Call};
use super::check;
use super::error::MlflowError;
use super::shapes::stage;
use crate::state::Dependencies;

/// Maximum size of the body, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;

/// Maximum number of model versions on the page of a run.
const MAX_VERSIONS: usize = 1000;

pub(super) async fn post(State(dependencies): State<Arc<Dependencies>>, request: Request) -> Answered {
    let (mut head, body) = request.into_parts();
    let mut call = Call::of(&dependencies, &mut head).await?;
    call.args = Args::from_body(&read_body(&head.headers, body, BODY_LIMIT).await?);
    let (field, kind, answered) = match call.args.text("operationName")? {
        Some("MlflowGetExperimentQuery") => {
            ("mlflowGetExperiment", "MlflowGetExperimentResponse", get_experiment(&call).await)
        }
        Some("GetRun") => ("mlflowGetRun", "MlflowGetRunResponse", get_run(&call).await),
        other => {
            let name: String = other.unwrap_or_default().chars().take(100).collect();
            return Ok(error_answer(&format!("the query {name:?} is not supported")));
        }
    };
    let mut response = json!({"__typename": kind, "apiError": null});
    match answered {
        Ok((name, value)) => response[name] = value,
        Err(error) if error.is_client_error() => {
            let (code, message) = (error.code(), error.message());
            response["apiError"] = json!({"__typename": "ApiError", "code": code, "message": message, "helpUrl": null});
        }
        Err(error) => return Err(error),
    }
    Ok(Answer(json!({"data": {field: response}, "errors": null})))
}

fn error_answer(message: &str) -> Answer {
    Answer(json!({"data": null, "errors": [{"message": message}]}))
}

/// The name and the value of a field of the response.
type Field = Result<(&'static str, Value), MlflowError>;

/// Returns the arguments of the query: the variable `input` of one query, `data` of the other.
fn input(call: &Call) -> Result<Args<'static>, MlflowError> {
    let variables = call.args.object("variables")?.unwrap_or_default();
    match variables.object("input")? {
        Some(input) => Ok(input.into_owned()),
        None => Ok(variables.object("data")?.unwrap_or_default().into_owned()),
    }
}

async fn get_experiment(call: &Call) -> Field {
    let input = input(call)?;
    let text = input.required("experimentId")?;
    let found = experiment(call.rows()?, &call.scope, check::experiment_id(text)?).await?;
    let found = found.ok_or_else(|| MlflowError::does_not_exist(format!("No Experiment with id={text} exists")))?;
    let mut json = experiment_json(&found);
    json["creationTime"] = found.created_at.0.to_string().into();
    json["effectiveTraceArchivalRetention"] = "".into();
    Ok(("experiment", json))
}

async fn get_run(call: &Call) -> Field {
    let input = input(call)?;
    let id = input.required("runId")?;
    let found = run(call.rows()?, &call.scope, id).await?;
    let found = found.ok_or_else(|| MlflowError::does_not_exist(format!("Run with id={id} not found")))?;
    let experiment = experiment(call.rows()?, &call.scope, found.info.experiment_id).await?;
    let by_run = Clause {
        entity: Entity::Attribute,
        key: "run_id".into(),
        comparator: Comparator::Eq,
        value: Literal::Text(id.to_owned()),
    };
    let search = SearchModels { filter: vec![by_run], limit: MAX_VERSIONS, ..SearchModels::default() };
    let versions = search_model_versions(call.rows()?, &call.scope, &search).await?.items;
    Ok(("run", run_json(&found, experiment.as_ref(), &versions)))
}

fn pairs(kind: &str, pairs: &[KeyValue]) -> Vec<Value> {
    pairs.iter().map(|pair| json!({"__typename": kind, "key": pair.key, "value": pair.value})).collect()
}

fn experiment_json(experiment: &Experiment) -> Value {
    json!({
        "__typename": "MlflowExperiment",
        "experimentId": experiment.id.to_string(),
        "name": experiment.name,
        "artifactLocation": experiment.artifact_location,
        "lifecycleStage": stage(experiment.deleted),
        "lastUpdateTime": experiment.updated_at.0.to_string(),
        "tags": pairs("MlflowExperimentTag", &experiment.tags),
    })
}

fn run_json(run: &Run, experiment: Option<&Experiment>, versions: &[ModelVersion]) -> Value {
    let metric = |metric: &carbon_schemas::events::Metric| {
        json!({
            "__typename": "MlflowMetricExtension",
            "key": metric.key,
            // serde_json writes NaN as null, which the UI expects.
            "value": metric.value,
            "step": metric.step.to_string(),
            "timestamp": metric.timestamp.to_string(),
        })
    };
    let dataset = |input: &carbon_schemas::events::DatasetInput| {
        json!({
            "__typename": "MlflowDatasetInput",
            "dataset": {
                "__typename": "MlflowDataset",
                "name": input.name,
                "digest": input.digest,
                "sourceType": input.source_type,
                "source": input.source,
                "schema": input.schema,
                "profile": input.profile,
            },
            "tags": pairs("MlflowInputTag", &input.tags),
        })
    };
    let version = |version: &ModelVersion| {
        json!({
            "__typename": "MlflowModelVersion",
            "name": version.name,
            "version": version.version.to_string(),
            "source": version.source,
            "status": "READY",
        })
    };
    let model_input = |id: &String| json!({"__typename": "MlflowModelInput", "modelId": id});
    let model_output = |output: &carbon_schemas::events::ModelOutput| json!({"__typename": "MlflowModelOutput", "modelId": output.model_id, "step": output.step.to_string()});
    let info = &run.info;
    json!({
        "__typename": "MlflowRunExtension",
        "info": {
            "__typename": "MlflowRunInfo",
            "runUuid": info.run_id,
            "runName": info.name,
            "experimentId": info.experiment_id.to_string(),
            "artifactUri": info.artifact_uri,
            "status": info.status,
            "startTime": info.start_time.to_string(),
            "endTime": info.end_time.map(|end| end.to_string()),
            "lifecycleStage": stage(info.deleted),
            "userId": info.user_id,
        },
        "experiment": experiment.map(experiment_json),
        "modelVersions": versions.iter().map(version).collect::<Vec<_>>(),
        "data": {
            "__typename": "MlflowRunData",
            "metrics": run.metrics.iter().map(metric).collect::<Vec<_>>(),
            "params": pairs("MlflowParam", &run.params),
            "tags": pairs("MlflowRunTag", &run.tags),
        },
        "inputs": {
            "__typename": "MlflowRunInputs",
            "datasetInputs": run.datasets.iter().map(dataset).collect::<Vec<_>>(),
            "modelInputs": run.input_models.iter().map(model_input).collect::<Vec<_>>(),
        },
        "outputs": {
            "__typename": "MlflowRunOutputs",
            "modelOutputs": run.output_models.iter().map(model_output).collect::<Vec<_>>(),
        },
    })
}

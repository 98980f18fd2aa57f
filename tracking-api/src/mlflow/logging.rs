//! What is logged to runs: metrics, parameters, tags, inputs and outputs.

use carbon_read_models::registry::Conflict;
use carbon_read_models::registry::queries::has_tag;
use carbon_schemas::events::{DatasetInput, KeyValue, Metric, ModelOutput, RunKind, RunLogged};

use super::args::Args;
use super::call::{Answered, Call, nothing};
use super::check;
use super::error::MlflowError;
use super::experiments::tags;

const METRICS: usize = 1000;
const PARAMS: usize = 100;
const TAGS: usize = 100;
const ALL: usize = 1000;

fn metric(args: &Args) -> Result<Metric, MlflowError> {
    let key = args.required("key")?;
    check::key(key, "Metric name", &args.called("name"))?;
    let value = args.number("value")?.ok_or_else(|| MlflowError::missing(&args.called("value")))?;
    let timestamp = args.integer("timestamp")?.ok_or_else(|| MlflowError::missing(&args.called("timestamp")))?;
    if timestamp < 0 {
        return Err(MlflowError::invalid(format!(
            "Invalid value {timestamp} for parameter '{}' supplied: metric '{key}' (value={value:?}). Timestamp must be a \
             nonnegative long (64-bit integer) ",
            args.called("timestamp")
        )));
    }
    let reference = |name: &str| -> Result<Option<String>, MlflowError> {
        Ok(args.text(name)?.filter(|text| !text.is_empty()).map(str::to_owned))
    };
    Ok(Metric {
        key: key.to_owned(),
        value,
        timestamp,
        step: args.integer("step")?.unwrap_or(0),
        model_id: reference("model_id")?,
        dataset_name: reference("dataset_name")?,
        dataset_digest: reference("dataset_digest")?,
    })
}

fn param(args: &Args) -> Result<KeyValue, MlflowError> {
    let key = args.required("key")?;
    check::key(key, "Param key", &args.called("key"))?;
    Ok(KeyValue::new(key, check::cut(args.text("value")?.unwrap_or_default(), check::PARAM_VALUE)))
}

pub(super) async fn log_metric(call: Call) -> Answered {
    call.args.run_id()?;
    let metric = metric(&call.args)?;
    let run_id = call.active_run_id().await?;
    call.write(&RunLogged { metrics: vec![metric], ..call.run_event(run_id, RunKind::Logged) }).await?;
    nothing()
}

pub(super) async fn log_param(call: Call) -> Answered {
    call.args.run_id()?;
    let param = param(&call.args)?;
    let run_id = call.active_run_id().await?;
    let (key, value) = (param.key.clone(), param.value.clone());
    let event = RunLogged { params: vec![param], ..call.run_event(run_id, RunKind::Logged) };
    match call.append(&event).await? {
        None => nothing(),
        Some(conflict) => Err(MlflowError::conflict(single(conflict, &key, &value, run_id))),
    }
}

/// MLflow words it otherwise where one parameter is logged alone.
fn single(conflict: Conflict, key: &str, value: &str, run_id: &str) -> Conflict {
    let before = conflict.message.split_once("'old_value': '").and_then(|(_, rest)| rest.split_once("', 'new_value'"));
    let Some((before, _)) = before else { return conflict };
    let message = format!(
        "Changing param values is not allowed. Param with key='{key}' was already logged with value='{before}' for run \
         ID='{run_id}'. Attempted logging new value '{value}'."
    );
    Conflict { message, ..conflict }
}

fn too_many(count: usize, limit: usize, what: &str) -> Result<(), MlflowError> {
    if count <= limit {
        return Ok(());
    }
    Err(MlflowError::invalid(format!(
        "A batch logging request can contain at most {limit} {what}. Got {count} {what}. Please split up {what} across \
         multiple requests and try again."
    )))
}

pub(super) async fn log_batch(call: Call) -> Answered {
    let args = &call.args;
    args.required("run_id")?;
    let (given, params, tags) = (args.objects("metrics")?, args.objects("params")?, tags(args)?);
    let metrics: Vec<Metric> = given.iter().map(metric).collect::<Result<_, _>>()?;
    let params: Vec<KeyValue> = params.iter().map(param).collect::<Result<_, _>>()?;
    too_many(metrics.len(), METRICS, "metrics")?;
    too_many(params.len(), PARAMS, "params")?;
    too_many(tags.len(), TAGS, "tags")?;
    too_many(metrics.len() + params.len() + tags.len(), ALL, "metrics, params, and tags")?;
    let mut seen = std::collections::BTreeSet::new();
    let twice: std::collections::BTreeSet<&str> =
        params.iter().map(|param| param.key.as_str()).filter(|key| !seen.insert(*key)).collect();
    if !twice.is_empty() {
        let list: Vec<_> = twice.iter().map(|key| format!("'{key}'")).collect();
        return Err(MlflowError::invalid(format!(
            "Duplicate parameter keys have been submitted: [{}]. Please ensure the request contains only one param value \
             per param key.",
            list.join(", ")
        )));
    }
    let run_id = call.active_run_id().await?;
    if metrics.is_empty() && params.is_empty() && tags.is_empty() {
        return nothing();
    }
    call.write(&RunLogged { metrics, params, tags, ..call.run_event(run_id, RunKind::Logged) }).await?;
    nothing()
}

pub(super) async fn set_tag(call: Call) -> Answered {
    let key = call.args.required("key")?.to_owned();
    check::key(&key, "key", "key")?;
    let value = check::cut(call.args.text("value")?.unwrap_or_default(), check::TAG_VALUE);
    let run_id = call.active_run_id().await?;
    let event = RunLogged { tags: vec![KeyValue::new(key, value)], ..call.run_event(run_id, RunKind::Logged) };
    call.write(&event).await?;
    nothing()
}

pub(super) async fn delete_tag(call: Call) -> Answered {
    let key = call.args.required("key")?.to_owned();
    let run = call.active_run().await?;
    // What is plainly not there needs no event; the fold decides the rest.
    if key.len() > 1000 || !has_tag(call.rows()?, &run, &key).await? {
        return Err(MlflowError::does_not_exist(format!("No tag with name: {key} in run with id {}", run.run_id)));
    }
    let event = RunLogged { removed_tags: vec![key], ..call.run_event(&run.run_id, RunKind::Logged) };
    call.write(&event).await?;
    nothing()
}

fn dataset(args: &Args) -> Result<DatasetInput, MlflowError> {
    let dataset = args.object("dataset")?.ok_or_else(|| MlflowError::missing(&args.called("dataset")))?;
    let text = |name: &str| -> Result<String, MlflowError> { Ok(dataset.text(name)?.unwrap_or_default().to_owned()) };
    let optional = |name: &str| -> Result<Option<String>, MlflowError> {
        Ok(dataset.text(name)?.filter(|text| !text.is_empty()).map(str::to_owned))
    };
    dataset.required("name")?;
    Ok(DatasetInput {
        name: text("name")?,
        digest: text("digest")?,
        source_type: text("source_type")?,
        source: text("source")?,
        schema: optional("schema")?,
        profile: optional("profile")?,
        tags: tags(args)?,
    })
}

pub(super) async fn log_inputs(call: Call) -> Answered {
    let datasets: Vec<_> = call.args.objects("datasets")?.iter().map(dataset).collect::<Result<_, _>>()?;
    let models = call.args.objects("models")?;
    let models: Vec<String> =
        models.iter().map(|m| m.required("model_id").map(str::to_owned)).collect::<Result<_, _>>()?;
    let run_id = call.active_run_id().await?;
    if datasets.is_empty() && models.is_empty() {
        return nothing();
    }
    let event = RunLogged { datasets, input_models: models, ..call.run_event(run_id, RunKind::Inputs) };
    call.write(&event).await?;
    nothing()
}

pub(super) async fn log_outputs(call: Call) -> Answered {
    let mut models = Vec::new();
    for model in call.args.objects("models")? {
        models.push(ModelOutput {
            model_id: model.required("model_id")?.to_owned(),
            step: model.integer("step")?.unwrap_or(0),
        });
    }
    let run_id = call.active_run_id().await?;
    if models.is_empty() {
        return nothing();
    }
    call.write(&RunLogged { output_models: models, ..call.run_event(run_id, RunKind::Outputs) }).await?;
    nothing()
}

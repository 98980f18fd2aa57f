//! The logging endpoints of runs: metrics, parameters, tags, inputs and outputs.

use carbon_read_models::registry::Conflict;
use carbon_read_models::registry::queries::{has_tag, run};
use carbon_schemas::events::{DatasetInput, KeyValue, Metric, ModelOutput, RunKind, RunLogged};

use super::args::Args;
use super::call::{Answered, Call, empty_answer};
use super::check;
use super::error::MlflowError;
use super::experiments::tags;

// Maximum numbers of items in a batch.
const MAX_METRICS: usize = 1000;
const MAX_PARAMS: usize = 100;
const MAX_TAGS: usize = 100;
const MAX_ITEMS: usize = 1000;

/// Maximum length of the stored value in the message about another value of a parameter, in characters. The fold's
/// message has the same limit.
const OLD_VALUE_CHARS: usize = 500;

fn metric(args: &Args) -> Result<Metric, MlflowError> {
    let key = args.required("key")?;
    check::key(key, "Metric name", &args.full_name("name"))?;
    let value = args.number("value")?.ok_or_else(|| MlflowError::missing(&args.full_name("value")))?;
    let timestamp = args.integer("timestamp")?.ok_or_else(|| MlflowError::missing(&args.full_name("timestamp")))?;
    if timestamp < 0 {
        return Err(MlflowError::invalid(format!(
            "Invalid value {timestamp} for parameter '{}' supplied: metric '{key}' (value={value:?}). Timestamp must be a \
             nonnegative long (64-bit integer) ",
            args.full_name("timestamp")
        )));
    }
    Ok(Metric {
        key: key.to_owned(),
        value,
        timestamp,
        step: args.integer("step")?.unwrap_or(0),
        model_id: args.non_empty("model_id")?,
        dataset_name: args.non_empty("dataset_name")?,
        dataset_digest: args.non_empty("dataset_digest")?,
    })
}

fn param(args: &Args) -> Result<KeyValue, MlflowError> {
    let key = args.required("key")?;
    check::key(key, "Param key", &args.full_name("key"))?;
    Ok(KeyValue::new(key, check::cut(args.text("value")?.unwrap_or_default(), check::PARAM_VALUE_CHARS)))
}

pub(super) async fn log_metric(call: Call) -> Answered {
    call.args.run_id()?;
    let metric = metric(&call.args)?;
    let run_id = call.active_run_id().await?;
    call.write(&RunLogged { metrics: vec![metric], ..call.run_event(run_id, RunKind::Logged) }).await?;
    empty_answer()
}

pub(super) async fn log_param(call: Call) -> Answered {
    call.args.run_id()?;
    let param = param(&call.args)?;
    let run_id = call.active_run_id().await?;
    let event = RunLogged { params: vec![param.clone()], ..call.run_event(run_id, RunKind::Logged) };
    match call.append(&event).await? {
        None => empty_answer(),
        Some(conflict) => Err(param_conflict(&call, conflict, run_id, &param).await?),
    }
}

/// Returns the error of a conflict about one parameter. For a parameter that has another value, MLflow's message differs
/// from the one for batches, which the fold writes.
async fn param_conflict(
    call: &Call,
    conflict: Conflict,
    run_id: &str,
    param: &KeyValue,
) -> Result<MlflowError, MlflowError> {
    let run = run(call.rows()?, &call.scope, run_id).await?.filter(|run| !run.info.deleted);
    let stored = run.and_then(|run| run.params.into_iter().find(|stored| stored.key == param.key));
    let Some(stored) = stored.filter(|stored| stored.value != param.value) else {
        return Ok(MlflowError::conflict(conflict));
    };
    Ok(MlflowError::invalid(format!(
        "Changing param values is not allowed. Param with key='{}' was already logged with value='{}' for run \
         ID='{run_id}'. Attempted logging new value '{}'.",
        param.key,
        check::cut(&stored.value, OLD_VALUE_CHARS),
        param.value
    )))
}

/// Rejects a batch with more than `limit` items of one kind.
fn check_count(count: usize, limit: usize, what: &str) -> Result<(), MlflowError> {
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
    check_count(metrics.len(), MAX_METRICS, "metrics")?;
    check_count(params.len(), MAX_PARAMS, "params")?;
    check_count(tags.len(), MAX_TAGS, "tags")?;
    check_count(metrics.len() + params.len() + tags.len(), MAX_ITEMS, "metrics, params, and tags")?;
    let mut seen = std::collections::BTreeSet::new();
    let duplicates: std::collections::BTreeSet<&str> =
        params.iter().map(|param| param.key.as_str()).filter(|key| !seen.insert(*key)).collect();
    if !duplicates.is_empty() {
        let list: Vec<_> = duplicates.iter().map(|key| format!("'{key}'")).collect();
        return Err(MlflowError::invalid(format!(
            "Duplicate parameter keys have been submitted: [{}]. Please ensure the request contains only one param value \
             per param key.",
            list.join(", ")
        )));
    }
    let run_id = call.active_run_id().await?;
    if metrics.is_empty() && params.is_empty() && tags.is_empty() {
        return empty_answer();
    }
    call.write(&RunLogged { metrics, params, tags, ..call.run_event(run_id, RunKind::Logged) }).await?;
    empty_answer()
}

pub(super) async fn set_tag(call: Call) -> Answered {
    let key = call.args.required("key")?.to_owned();
    check::key(&key, "key", "key")?;
    let value = check::cut(call.args.text("value")?.unwrap_or_default(), check::TAG_VALUE_CHARS);
    let run_id = call.active_run_id().await?;
    let event = RunLogged { tags: vec![KeyValue::new(key, value)], ..call.run_event(run_id, RunKind::Logged) };
    call.write(&event).await?;
    empty_answer()
}

pub(super) async fn delete_tag(call: Call) -> Answered {
    let key = call.args.required("key")?.to_owned();
    let run = call.active_run().await?;
    // No event is appended for a tag that does not exist. The fold decides about the others.
    if key.len() > 1000 || !has_tag(call.rows()?, &run, &key).await? {
        return Err(MlflowError::does_not_exist(format!("No tag with name: {key} in run with id {}", run.run_id)));
    }
    let event = RunLogged { removed_tags: vec![key], ..call.run_event(&run.run_id, RunKind::Logged) };
    call.write(&event).await?;
    empty_answer()
}

fn dataset(args: &Args) -> Result<DatasetInput, MlflowError> {
    let dataset = args.object("dataset")?.ok_or_else(|| MlflowError::missing(&args.full_name("dataset")))?;
    let text = |name: &str| -> Result<String, MlflowError> { Ok(dataset.text(name)?.unwrap_or_default().to_owned()) };
    dataset.required("name")?;
    Ok(DatasetInput {
        name: text("name")?,
        digest: text("digest")?,
        source_type: text("source_type")?,
        source: text("source")?,
        schema: dataset.non_empty("schema")?,
        profile: dataset.non_empty("profile")?,
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
        return empty_answer();
    }
    let event = RunLogged { datasets, input_models: models, ..call.run_event(run_id, RunKind::Inputs) };
    call.write(&event).await?;
    empty_answer()
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
        return empty_answer();
    }
    call.write(&RunLogged { output_models: models, ..call.run_event(run_id, RunKind::Outputs) }).await?;
    empty_answer()
}

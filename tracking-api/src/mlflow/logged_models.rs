//! `logged-models/*`: create, get, search, finalise, tag and delete logged models.

use axum::extract::{Path, Request, State};
use carbon_read_models::registry::filter::{Target, parse_filter, parse_order_by};
use carbon_read_models::registry::queries::{
    LoggedModel, MetricOrder, SearchLoggedModels, logged_model, search_logged_models,
};
use carbon_schemas::events::{KeyValue, LOGGED_MODEL_STATUSES, LoggedModelChanged, LoggedModelKind};
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

use super::args::Args;
use super::call::{Answer, Answered, Call, empty_answer};
use super::check;
use super::error::MlflowError;
use super::experiments::tags;
use super::names;
use super::page::{MAX_ORDERS, Paging};
use super::shapes;
use crate::state::Dependencies;

/// The prefix of the status names in MLflow's API.
const STATUS_PREFIX: &str = "LOGGED_MODEL_";

fn missing(id: &str) -> MlflowError {
    MlflowError::does_not_exist(format!("Logged model with ID '{id}' not found."))
}

impl Call {
    fn logged_model_event(&self, id: &str, kind: LoggedModelKind) -> LoggedModelChanged {
        LoggedModelChanged::of(self.event_id(), self.now(), self.scope.tenant(), id, kind)
    }

    /// Returns a logged model; an error if it does not exist or is deleted.
    pub(super) async fn logged_model(&self, id: &str) -> Result<LoggedModel, MlflowError> {
        let found = logged_model(self.rows()?, &self.scope, id).await?;
        found.filter(|model| !model.deleted).ok_or_else(|| missing(id))
    }
}

fn answered(model: &LoggedModel) -> Answered {
    Ok(Answer(json!({"model": shapes::logged_model(model)})))
}

fn params(args: &Args) -> Result<Vec<KeyValue>, MlflowError> {
    let mut params = Vec::new();
    for param in args.objects("params")? {
        let key = param.required("key")?;
        check::key(key, "Param key", &param.full_name("key"))?;
        params.push(KeyValue::new(key, check::cut(param.text("value")?.unwrap_or_default(), check::PARAM_VALUE_CHARS)));
    }
    Ok(params)
}

fn check_name(name: &str) -> Result<(), MlflowError> {
    match name.chars().any(|c| matches!(c, '/' | ':' | '.' | '%' | '"' | '\'')) {
        true => Err(MlflowError::invalid(format!(
            "Invalid model name ('{name}') provided. Model name must be a non-empty string and cannot contain the \
             following characters: ('/', ':', '.', '%', '\"', \"'\")"
        ))),
        false => Ok(()),
    }
}

pub(super) async fn create(call: Call) -> Answered {
    let args = &call.args;
    let text = args.required("experiment_id")?;
    let id = check::experiment_id(text)?;
    let name = args.text("name")?.filter(|name| !name.is_empty()).map_or_else(names::random, str::to_owned);
    check_name(&name)?;
    let (params, tags) = (params(args)?, tags(args)?);
    let location = call.artifact_location(id, text).await?;
    let model_id = format!("m-{}", Uuid::new_v4().simple());
    let root = location.trim_end_matches('/');
    let event = LoggedModelChanged {
        experiment_id: Some(id.to_string()),
        name: Some(name),
        model_type: Some(args.text("model_type")?.unwrap_or_default().to_owned()),
        source_run_id: Some(args.text("source_run_id")?.unwrap_or_default().to_owned()),
        artifact_uri: Some(format!("{root}/models/{model_id}/artifacts")),
        params,
        tags,
        ..call.logged_model_event(&model_id, LoggedModelKind::Created)
    };
    call.write(&event).await?;
    answered(&call.logged_model(&model_id).await?)
}

pub(super) async fn get(Path(id): Path<String>, call: Call) -> Answered {
    match call.args.text("allow_deleted")? {
        Some("true" | "True" | "1") => {
            let found = logged_model(call.rows()?, &call.scope, &id).await?;
            answered(&found.ok_or_else(|| missing(&id))?)
        }
        None | Some("" | "false" | "False" | "0") => answered(&call.logged_model(&id).await?),
        Some(other) => Err(MlflowError::invalid(format!(
            "Invalid value {other:?} for parameter 'allow_deleted' supplied: it is true or false"
        ))),
    }
}

pub(super) async fn finalise(Path(id): Path<String>, call: Call) -> Answered {
    let given = call.args.required("status")?;
    // MLflow's UNSPECIFIED and unknown names are rejected: the model would be neither ready nor failed.
    let status = given.strip_prefix(STATUS_PREFIX).filter(|status| LOGGED_MODEL_STATUSES.contains(status));
    let status = status.ok_or_else(|| {
        let names: Vec<_> = LOGGED_MODEL_STATUSES.iter().map(|status| format!("{STATUS_PREFIX}{status}")).collect();
        let names = names.join(", ");
        MlflowError::invalid(format!("Invalid value {given:?} for parameter 'status' supplied: it is one of {names}"))
    })?;
    call.logged_model(&id).await?;
    let event = LoggedModelChanged {
        status: Some(status.to_owned()),
        ..call.logged_model_event(&id, LoggedModelKind::Finalised)
    };
    call.write(&event).await?;
    answered(&call.logged_model(&id).await?)
}

pub(super) async fn delete(Path(id): Path<String>, call: Call) -> Answered {
    call.logged_model(&id).await?;
    call.write(&call.logged_model_event(&id, LoggedModelKind::Deleted)).await?;
    empty_answer()
}

pub(super) async fn set_tags(Path(id): Path<String>, call: Call) -> Answered {
    let tags = tags(&call.args)?;
    call.logged_model(&id).await?;
    if tags.is_empty() {
        return empty_answer();
    }
    call.write(&LoggedModelChanged { tags, ..call.logged_model_event(&id, LoggedModelKind::Tagged) }).await?;
    empty_answer()
}

/// Takes no body, because the client sends neither a body nor a content type.
pub(super) async fn delete_tag(
    State(dependencies): State<Arc<Dependencies>>,
    Path((id, key)): Path<(String, String)>,
    request: Request,
) -> Answered {
    let call = Call::of(&dependencies, &mut request.into_parts().0).await?;
    let model = call.logged_model(&id).await?;
    // No event is appended for a tag that does not exist. The fold decides about the others.
    if !model.tags.iter().any(|tag| tag.key == key) {
        return Err(MlflowError::does_not_exist(format!("No tag with key '{key}' found for model with ID '{id}'.")));
    }
    let event = LoggedModelChanged { removed_tags: vec![key], ..call.logged_model_event(&id, LoggedModelKind::Tagged) };
    call.write(&event).await?;
    empty_answer()
}

pub(super) async fn log_params(Path(id): Path<String>, call: Call) -> Answered {
    let params = params(&call.args)?;
    call.logged_model(&id).await?;
    if params.is_empty() {
        return empty_answer();
    }
    call.write(&LoggedModelChanged { params, ..call.logged_model_event(&id, LoggedModelKind::Params) }).await?;
    empty_answer()
}

fn parse_order(term: &Args) -> Result<MetricOrder, MlflowError> {
    let mut order = parse_order_by(Target::LoggedModels, term.required("field_name")?)?;
    order.ascending = term.boolean("ascending")?.unwrap_or(true);
    let dataset = (term.non_empty("dataset_name")?, term.non_empty("dataset_digest")?);
    if dataset.0.is_none() && dataset.1.is_some() {
        return Err(MlflowError::invalid(
            "`dataset_digest` can only be specified if `dataset_name` is also specified.",
        ));
    }
    Ok(MetricOrder { order, dataset })
}

pub(super) async fn search(call: Call) -> Answered {
    let args = &call.args;
    let paging = Paging::parse(args, Some(50), 50_000)?;
    let filter = parse_filter(Target::LoggedModels, args.text("filter")?.unwrap_or_default())?;
    let order_by: Vec<_> = args.objects("order_by")?.iter().map(parse_order).collect::<Result<_, _>>()?;
    if order_by.len() > MAX_ORDERS {
        return Err(MlflowError::invalid(format!("`order_by` has more than {MAX_ORDERS} terms")));
    }
    let mut datasets = Vec::new();
    for dataset in args.objects("datasets")? {
        let name = dataset.text("dataset_name")?.filter(|name| !name.is_empty());
        let name =
            name.ok_or_else(|| MlflowError::invalid("`dataset_name` in the `datasets` clause must be specified."))?;
        let digest = dataset.text("dataset_digest")?.filter(|digest| !digest.is_empty());
        datasets.push((name.to_owned(), digest.map(str::to_owned)));
    }
    check::list_length(datasets.len(), "datasets")?;
    let mut experiments = Vec::new();
    for id in args.texts("experiment_ids")? {
        experiments.push(check::experiment_id(&id)?);
    }
    let search =
        SearchLoggedModels { experiments, filter, datasets, order_by, limit: paging.limit, offset: paging.offset };
    let page = search_logged_models(call.rows()?, &call.scope, &search).await?;
    paging.answer("models", page.items.iter().map(shapes::logged_model).collect(), page.more)
}

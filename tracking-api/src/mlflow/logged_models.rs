//! `logged-models/*`: a model's files with what is known of them.

use axum::extract::{Path, Request, State};
use carbon_read_models::registry::filter::{Target, parse_filter, parse_order_by};
use carbon_read_models::registry::queries::{
    LoggedModel, MetricOrder, SearchLoggedModels, logged_model, search_logged_models,
};
use carbon_schemas::events::{KeyValue, LOGGED_MODEL_STATUSES, LoggedModelChanged, LoggedModelKind};
use serde_json::{Map, json};
use std::sync::Arc;
use uuid::Uuid;

use super::args::Args;
use super::call::{Answer, Answered, Call, nothing};
use super::check;
use super::error::MlflowError;
use super::experiments::tags;
use super::names;
use super::page::{MAX_ORDERS, Paging};
use super::shapes;
use crate::Parts;

/// What names of statuses begin with.
const PREFIX: &str = "LOGGED_MODEL_";

fn missing(id: &str) -> MlflowError {
    MlflowError::does_not_exist(format!("Logged model with ID '{id}' not found."))
}

impl Call {
    fn logged_model_event(&self, id: &str, kind: LoggedModelKind) -> LoggedModelChanged {
        LoggedModelChanged::of(self.event_id(), self.now(), self.scope.tenant(), id, kind)
    }

    /// The logged model of an id that is not deleted.
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
        check::key(key, "Param key", &param.called("key"))?;
        params.push(KeyValue::new(key, check::cut(param.text("value")?.unwrap_or_default(), check::PARAM_VALUE)));
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
    // UNSPECIFIED and unknown names would leave a model that is neither.
    let status = given.strip_prefix(PREFIX).filter(|status| LOGGED_MODEL_STATUSES.contains(status));
    let status = status.ok_or_else(|| {
        let names: Vec<_> = LOGGED_MODEL_STATUSES.iter().map(|status| format!("{PREFIX}{status}")).collect();
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
    nothing()
}

pub(super) async fn set_tags(Path(id): Path<String>, call: Call) -> Answered {
    let tags = tags(&call.args)?;
    call.logged_model(&id).await?;
    if tags.is_empty() {
        return nothing();
    }
    call.write(&LoggedModelChanged { tags, ..call.logged_model_event(&id, LoggedModelKind::Tagged) }).await?;
    nothing()
}

/// Without a body: its client sends none, and no content type.
pub(super) async fn delete_tag(
    State(parts): State<Arc<Parts>>,
    Path((id, key)): Path<(String, String)>,
    request: Request,
) -> Answered {
    let call = Call::of(&parts, &mut request.into_parts().0).await?;
    let model = call.logged_model(&id).await?;
    // What is plainly not there needs no event; the fold decides the rest.
    if !model.tags.iter().any(|tag| tag.key == key) {
        return Err(MlflowError::does_not_exist(format!("No tag with key '{key}' found for model with ID '{id}'.")));
    }
    let event = LoggedModelChanged { removed_tags: vec![key], ..call.logged_model_event(&id, LoggedModelKind::Tagged) };
    call.write(&event).await?;
    nothing()
}

pub(super) async fn log_params(Path(id): Path<String>, call: Call) -> Answered {
    let params = params(&call.args)?;
    call.logged_model(&id).await?;
    if params.is_empty() {
        return nothing();
    }
    call.write(&LoggedModelChanged { params, ..call.logged_model_event(&id, LoggedModelKind::Params) }).await?;
    nothing()
}

fn order(term: &Args) -> Result<MetricOrder, MlflowError> {
    let mut order = parse_order_by(Target::LoggedModels, term.required("field_name")?)?;
    order.ascending = term.truth("ascending")?.unwrap_or(true);
    let of = |name: &str| -> Result<Option<String>, MlflowError> {
        Ok(term.text(name)?.filter(|text| !text.is_empty()).map(str::to_owned))
    };
    let dataset = (of("dataset_name")?, of("dataset_digest")?);
    if dataset.0.is_none() && dataset.1.is_some() {
        return Err(MlflowError::invalid(
            "`dataset_digest` can only be specified if `dataset_name` is also specified.",
        ));
    }
    Ok(MetricOrder { order, dataset })
}

pub(super) async fn search(call: Call) -> Answered {
    let args = &call.args;
    let paging = Paging::read(args, Some(50), 50_000)?;
    let filter = parse_filter(Target::LoggedModels, args.text("filter")?.unwrap_or_default())?;
    let order_by: Vec<_> = args.objects("order_by")?.iter().map(order).collect::<Result<_, _>>()?;
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
    check::at_most(datasets.len(), "datasets")?;
    let mut experiments = Vec::new();
    for id in args.texts("experiment_ids")? {
        experiments.push(check::experiment_id(&id)?);
    }
    let search =
        SearchLoggedModels { experiments, filter, datasets, order_by, limit: paging.limit, offset: paging.offset };
    let page = search_logged_models(call.rows()?, &call.scope, &search).await?;
    let mut answer = Map::new();
    if !page.items.is_empty() {
        shapes::put(&mut answer, "models", page.items.iter().map(shapes::logged_model).collect::<Vec<_>>());
    }
    paging.sign(&mut answer, page.more);
    Ok(Answer(answer.into()))
}

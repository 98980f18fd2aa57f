//! `registered-models/*`: registered models, their tags and aliases, and their latest versions.

use carbon_core::{Timestamp, parse_rfc3339};
use carbon_read_models::registry::filter::{Target, parse_filter};
use carbon_read_models::registry::queries::{
    ModelVersion, RegisteredModel, SearchModels, newest_version, registered_model, registered_model_as_of,
    search_registered_models,
};
use carbon_schemas::events::{KeyValue, ModelKind, ModelPromoted, ModelRegistered};
use serde_json::json;
use uuid::Uuid;

use super::args::Args;
use super::call::{Answer, Answered, Call, empty_answer, list_answer};
use super::check;
use super::error::MlflowError;
use super::page::{Paging, order_by};
use super::shapes;

fn missing(name: &str) -> MlflowError {
    MlflowError::does_not_exist(format!("Registered Model with name={name} not found"))
}

/// Parses an id of the registry. Events carry the ids as UUIDs.
pub(super) fn parse_id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

impl Call {
    pub(super) fn model_event(&self, model: &RegisteredModel, kind: ModelKind) -> ModelRegistered {
        ModelRegistered {
            registration_id: parse_id(&model.registration_id),
            ..ModelRegistered::of(self.event_id(), self.now(), self.scope.tenant(), &model.name, kind)
        }
    }

    /// Returns the registered model that the arguments name.
    pub(super) async fn registered_model(&self) -> Result<RegisteredModel, MlflowError> {
        self.model_named(self.args.required("name")?).await
    }

    pub(super) async fn model_named(&self, name: &str) -> Result<RegisteredModel, MlflowError> {
        registered_model(self.rows()?, &self.scope, name).await?.ok_or_else(|| missing(name))
    }

    /// Parses the argument `as_of`.
    fn as_of(&self) -> Result<Option<Timestamp>, MlflowError> {
        let Some(text) = self.args.text("as_of")?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let at = parse_rfc3339(text).ok_or_else(|| {
            MlflowError::invalid(format!(
                "Invalid value {text:?} for parameter 'as_of' supplied: it is a time such as 2026-01-31T12:00:00Z"
            ))
        })?;
        Ok(Some(at))
    }

    /// Returns the registered model that the arguments name, as it was at a time.
    async fn model_as_of(&self, at: Timestamp) -> Result<RegisteredModel, MlflowError> {
        let name = self.args.required("name")?;
        registered_model_as_of(self.rows()?, &self.scope, name, at).await?.ok_or_else(|| missing(name))
    }
}

async fn answered(call: &Call, name: &str) -> Answered {
    let model = call.model_named(name).await?;
    Ok(Answer(json!({"registered_model": shapes::registered_model(&model)})))
}

/// Parses a tag of a model or version. A value that is too long is an error.
pub(super) fn tag(args: &Args) -> Result<KeyValue, MlflowError> {
    let key = args.required("key")?;
    let value = args.text("value")?.unwrap_or_default();
    check::key(key, "Tag name", &args.full_name("key"))?;
    check::max_chars(value, &args.full_name("value"), check::MODEL_TAG_VALUE_CHARS)?;
    Ok(KeyValue::new(key, value))
}

pub(super) async fn create(call: Call) -> Answered {
    let name = call.args.required("name")?;
    let tags = call.args.objects("tags")?.iter().map(tag).collect::<Result<_, _>>()?;
    let description = call.args.text("description")?.map(str::to_owned);
    let event = ModelRegistered {
        registration_id: Some(Uuid::new_v4()),
        description,
        tags,
        ..ModelRegistered::of(call.event_id(), call.now(), call.scope.tenant(), name, ModelKind::Created)
    };
    let _claim = call.claim().await;
    call.write(&event).await?;
    answered(&call, name).await
}

pub(super) async fn get(call: Call) -> Answered {
    let model = match call.as_of()? {
        Some(at) => call.model_as_of(at).await?,
        None => call.registered_model().await?,
    };
    Ok(Answer(json!({"registered_model": shapes::registered_model(&model)})))
}

pub(super) async fn rename(call: Call) -> Answered {
    let model = call.registered_model().await?;
    let name = call.args.required("new_name")?;
    let _claim = call.claim().await;
    call.write(&ModelRegistered { new_name: Some(name.to_owned()), ..call.model_event(&model, ModelKind::Renamed) })
        .await?;
    answered(&call, name).await
}

pub(super) async fn update(call: Call) -> Answered {
    let model = call.registered_model().await?;
    let description = Some(call.args.text("description")?.unwrap_or_default().to_owned());
    call.write(&ModelRegistered { description, ..call.model_event(&model, ModelKind::Described) }).await?;
    answered(&call, &model.name).await
}

pub(super) async fn delete(call: Call) -> Answered {
    let model = call.registered_model().await?;
    call.write(&call.model_event(&model, ModelKind::Deleted)).await?;
    empty_answer()
}

pub(super) async fn set_tag(call: Call) -> Answered {
    let model = call.registered_model().await?;
    let tags = vec![tag(&call.args)?];
    call.write(&ModelRegistered { tags, ..call.model_event(&model, ModelKind::Tagged) }).await?;
    empty_answer()
}

/// Deleting a tag that does not exist is no error.
pub(super) async fn delete_tag(call: Call) -> Answered {
    let model = call.registered_model().await?;
    let key = call.args.required("key")?.to_owned();
    if model.tags.iter().any(|tag| tag.key == key) {
        let event = ModelRegistered { removed_tags: vec![key], ..call.model_event(&model, ModelKind::Tagged) };
        call.write(&event).await?;
    }
    empty_answer()
}

/// Parses the arguments of a search for models or versions. `default` and `limit` apply to `max_results`.
pub(super) fn parse_search(
    call: &Call,
    target: Target,
    default: i64,
    limit: i64,
) -> Result<(SearchModels, Paging), MlflowError> {
    let paging = Paging::parse(&call.args, Some(default), limit)?;
    let filter = parse_filter(target, call.args.text("filter")?.unwrap_or_default())?;
    let order_by = order_by(&call.args, target)?;
    Ok((SearchModels { filter, order_by, limit: paging.limit, offset: paging.offset }, paging))
}

pub(super) async fn search(call: Call) -> Answered {
    let (search, paging) = parse_search(&call, Target::RegisteredModels, 100, 1000)?;
    let page = search_registered_models(call.rows()?, &call.scope, &search).await?;
    paging.answer("registered_models", page.items.iter().map(shapes::registered_model).collect(), page.more)
}

pub(super) async fn latest_versions(call: Call) -> Answered {
    let model = call.registered_model().await?;
    let mut stages = Vec::new();
    for stage in call.args.texts("stages")? {
        stages.push(check::stage(&stage)?);
    }
    let wanted = |version: &&ModelVersion| stages.is_empty() || stages.contains(&version.stage.as_str());
    let versions = model.latest.iter().filter(wanted).map(|version| shapes::model_version(version, true));
    list_answer("model_versions", versions.collect())
}

pub(super) async fn set_alias(call: Call) -> Answered {
    let model = call.registered_model().await?;
    let alias = call.args.required("alias")?.to_owned();
    let version = call.version_of(&model.name, call.version_number()?).await?;
    let previous = model.aliased(&alias);
    let event = ModelPromoted { alias: Some(alias), previous, ..call.promotion_of(&version) };
    call.promote(&event).await?;
    empty_answer()
}

/// Deleting an alias that does not exist is no error.
pub(super) async fn delete_alias(call: Call) -> Answered {
    let model = call.registered_model().await?;
    let alias = call.args.required("alias")?;
    if let Some(version) = model.aliased(alias) {
        let event =
            ModelPromoted { alias: Some(alias.to_owned()), previous: Some(version), ..call.promotion_event(&model) };
        call.promote(&event).await?;
    }
    empty_answer()
}

pub(super) async fn get_alias(call: Call) -> Answered {
    let alias = call.args.required("alias")?;
    let absent = || MlflowError::invalid(format!("Registered model alias {alias} not found."));
    let is_newest = alias.eq_ignore_ascii_case("latest");
    let version = match call.as_of()? {
        Some(at) => {
            let mut model = call.model_as_of(at).await?;
            match is_newest {
                true => model.latest.pop(),
                false => model.latest.into_iter().find(|version| version.aliases.iter().any(|name| name == alias)),
            }
        }
        None => {
            let model = call.registered_model().await?;
            match model.aliased(alias) {
                _ if is_newest => newest_version(call.rows()?, &call.scope, &model.registration_id).await?,
                Some(version) => Some(call.version_of(&model.name, version).await?),
                None => None,
            }
        }
    };
    let version = version.ok_or_else(absent)?;
    Ok(Answer(json!({"model_version": shapes::model_version(&version, true)})))
}

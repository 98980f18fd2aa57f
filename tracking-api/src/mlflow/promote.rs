//! `POST /models/{name}/promote`: a promotion for those who do not speak MLflow.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use carbon_core::Position;
use carbon_http::{Path, Problem, content_type, read_body};
use carbon_read_models::registry::queries::{ModelVersion, versions_of};
use carbon_schemas::events::ModelPromoted;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::call::Call;
use super::check;
use super::error::MlflowError;
use crate::Parts;

const BODY_LIMIT: usize = 64 * 1024;

/// Which version gets which stage or alias.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromoteRequest {
    /// The version's number; this or `run_id`.
    version: Option<VersionNumber>,
    /// The run that made the version; the newest, where it made several.
    run_id: Option<String>,
    /// None, Staging, Production or Archived; this or `alias`.
    stage: Option<String>,
    /// Letters, digits, `_` and `-`.
    alias: Option<String>,
    /// With a stage: whether other versions in it become Archived.
    #[serde(default)]
    archive_existing: bool,
    /// Who does it; what the caller says.
    promoted_by: Option<String>,
    /// As the query's.
    tenant_id: Option<String>,
}

/// MLflow writes versions as text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum VersionNumber {
    Number(i64),
    Text(String),
}

/// A promotion that took effect.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Promoted {
    name: String,
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    /// The version that had the stage or alias before.
    previous: Option<i64>,
    /// Of the event, as `topic:partition:offset`.
    position: String,
}

/// Promote a version of a registered model
///
/// Appends `ml.model.promoted.v1` and answers once the registry has folded it. Promoting an earlier version is a rollback.
#[utoipa::path(post, path = "/models/{name}/promote", tag = "models",
    params(
        ("name" = String, Path, description = "The registered model"),
        ("tenant_id" = Option<String>, Query, description = "The tenant; `default` where nothing names one"),
    ),
    request_body = PromoteRequest,
    responses(
        (status = 200, body = Promoted,
            headers(("x-log-position" = String, description = "The position of the promotion"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such model or version", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn post_promote(
    State(parts): State<Arc<Parts>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut head, body) = request.into_parts();
    let mut call = Call::of(&parts, &mut head).await?;
    if content_type(&head.headers)? != "application/json" {
        return Err(Problem::invalid("this route takes application/json"));
    }
    let bytes = read_body(&head.headers, body, BODY_LIMIT).await?;
    let asked: PromoteRequest = serde_json::from_slice(&bytes).map_err(|error| Problem::invalid(error.to_string()))?;
    if let Some(tenant) = &asked.tenant_id
        && tenant != call.scope.tenant().as_str()
    {
        return Err(Problem::invalid("tenant_id of the body and of the address differ"));
    }
    if asked.promoted_by.is_some() {
        call.user = asked.promoted_by.clone();
    }
    let (event, position) = promote(&call, &name, asked).await?;
    let promoted = Promoted {
        name,
        version: event.version.unwrap_or_default(),
        stage: event.stage,
        alias: event.alias,
        previous: event.previous,
        position: position.to_string(),
    };
    let mut response = Json(promoted).into_response();
    if let Ok(value) = HeaderValue::from_str(&position.to_string()) {
        response.headers_mut().insert("x-log-position", value);
    }
    Ok(response)
}

async fn promote(call: &Call, name: &str, asked: PromoteRequest) -> Result<(ModelPromoted, Position), MlflowError> {
    let stage = asked.stage.as_deref().map(check::stage).transpose()?;
    if stage.is_some() == asked.alias.is_some() {
        return Err(MlflowError::invalid("either stage or alias is needed"));
    }
    let model = call.model_named(name).await?;
    let version = match (&asked.version, &asked.run_id) {
        (Some(VersionNumber::Number(number)), None) => call.version_of(name, *number).await?,
        (Some(VersionNumber::Text(text)), None) => {
            let number = text.parse().map_err(|_| MlflowError::invalid(format!("version {text:?} is no number")))?;
            call.version_of(name, number).await?
        }
        (None, Some(run_id)) => {
            let versions = versions_of(call.rows()?, &call.scope, &model.registration_id).await?;
            let made = |version: &ModelVersion| version.run_id == *run_id;
            versions
                .into_iter()
                .rfind(made)
                .ok_or_else(|| MlflowError::does_not_exist(format!("run {run_id} made no version of {name}")))?
        }
        _ => return Err(MlflowError::invalid("either version or run_id is needed")),
    };
    let previous = match (stage, &asked.alias) {
        (Some(stage), _) => model.newest_in(stage),
        (None, Some(alias)) => model.aliased(alias),
        (None, None) => None,
    };
    let event = ModelPromoted {
        stage: stage.map(str::to_owned),
        alias: asked.alias,
        archive_existing: asked.archive_existing,
        run_id: Some(version.run_id.clone()).filter(|id| !id.is_empty()),
        previous,
        ..call.promotion_of(&version)
    };
    let position = call.promote(&event).await?;
    Ok((event, position))
}

//! `POST /models/{name}/promote`: a promotion without MLflow's API.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use carbon_core::Position;
use carbon_http::{Path, Problem, Tenant, content_type, read_body, responses};
use carbon_read_models::registry::queries::{ModelVersion, versions_of};
use carbon_schemas::events::ModelPromoted;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::call::Call;
use super::check;
use super::error::MlflowError;
use crate::state::Dependencies;

/// Maximum size of the body, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// The version, and the stage or alias that it gets.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromoteRequest {
    /// The number of the version; required without `run_id`.
    version: Option<VersionNumber>,
    /// The run that created the version. If it created several, the newest is promoted.
    run_id: Option<String>,
    /// None, Staging, Production or Archived; required without `alias`.
    stage: Option<String>,
    /// Letters, digits, `_` and `-`; required without `stage`.
    alias: Option<String>,
    /// True moves the other versions of the stage to Archived.
    #[serde(default)]
    archive_existing: bool,
    /// The name of the promoter. Not authenticated.
    promoted_by: Option<String>,
    /// Must equal the tenant of the path and the query string.
    tenant_id: Option<String>,
}

/// The number of a version, which MLflow's clients send as text.
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
    /// The position of the event, as `topic:partition:offset`.
    position: String,
}

/// Promote a version of a registered model
///
/// Appends `ml.model.promoted.v1` and answers when the registry has folded the event. Promoting an earlier version is a
/// rollback. Answers 404 if the model or the version does not exist.
#[utoipa::path(post, path = "/models/{name}/promote", tag = "models",
    params(("name" = String, Path, description = "Name of the registered model"), Tenant),
    request_body = PromoteRequest,
    responses(
        (status = 200, body = Promoted,
            headers(("x-log-position" = String, description = "The position of the promotion"))),
        responses::InvalidInput, responses::NotFound, responses::Unavailable,
    ))]
pub(crate) async fn post_promote(
    State(dependencies): State<Arc<Dependencies>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut head, body) = request.into_parts();
    let mut call = Call::of(&dependencies, &mut head).await?;
    if content_type(&head.headers)? != "application/json" {
        return Err(Problem::invalid("this route accepts application/json"));
    }
    let bytes = read_body(&head.headers, body, BODY_LIMIT).await?;
    let request: PromoteRequest =
        serde_json::from_slice(&bytes).map_err(|error| Problem::invalid(error.to_string()))?;
    if let Some(tenant) = &request.tenant_id
        && tenant != call.scope.tenant().as_str()
    {
        return Err(Problem::invalid("the body and the address name different tenants"));
    }
    if request.promoted_by.is_some() {
        call.user = request.promoted_by.clone();
    }
    let (event, position) = promote(&call, &name, request).await?;
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

async fn promote(call: &Call, name: &str, request: PromoteRequest) -> Result<(ModelPromoted, Position), MlflowError> {
    let stage = request.stage.as_deref().map(check::stage).transpose()?;
    if stage.is_some() == request.alias.is_some() {
        return Err(MlflowError::invalid("exactly one of stage and alias is required"));
    }
    let model = call.model_named(name).await?;
    let version = match (&request.version, &request.run_id) {
        (Some(VersionNumber::Number(number)), None) => call.version_of(name, *number).await?,
        (Some(VersionNumber::Text(text)), None) => {
            let number = text.parse().map_err(|_| MlflowError::invalid(format!("version {text:?} is not a number")))?;
            call.version_of(name, number).await?
        }
        (None, Some(run_id)) => {
            let versions = versions_of(call.rows()?, &call.scope, &model.registration_id).await?;
            let of_run = |version: &ModelVersion| version.run_id == *run_id;
            versions
                .into_iter()
                .rfind(of_run)
                .ok_or_else(|| MlflowError::does_not_exist(format!("run {run_id} created no version of {name}")))?
        }
        _ => return Err(MlflowError::invalid("exactly one of version and run_id is required")),
    };
    let previous = match (stage, &request.alias) {
        (Some(stage), _) => model.newest_in(stage),
        (None, Some(alias)) => model.aliased(alias),
        (None, None) => None,
    };
    let event = ModelPromoted {
        stage: stage.map(str::to_owned),
        alias: request.alias,
        archive_existing: request.archive_existing,
        run_id: Some(version.run_id.clone()).filter(|id| !id.is_empty()),
        previous,
        ..call.promotion_of(&version)
    };
    let position = call.promote(&event).await?;
    Ok((event, position))
}

//! A call: who asks, and for what.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use carbon_core::{TenantScope, Timestamp};
use carbon_http::{Context, Tenant, content_type, read_body};
use carbon_store::Namespace;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::args::Args;
use super::error::MlflowError;
use crate::{Parts, Registry};

/// The largest body: a batch's limits lie far below.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

pub(crate) struct Call {
    pub parts: Arc<Parts>,
    pub scope: TenantScope,
    pub args: Args<'static>,
    pub traceparent: Option<String>,
    /// Who asks, as far as is known.
    pub user: Option<String>,
    /// The generation of the registry that this call reads.
    registry: Result<Registry, MlflowError>,
}

impl Call {
    /// Who asks; the arguments are still to come.
    pub async fn of(parts: &Arc<Parts>, head: &mut axum::http::request::Parts) -> Result<Self, MlflowError> {
        let tenant = <Tenant as axum::extract::FromRequestParts<_>>::from_request_parts(head, parts).await?;
        let traceparent = head.extensions.get::<Context>().map(|context| context.traceparent.clone());
        let user = user(&head.headers);
        let registry = Self::snapshot(parts);
        Ok(Self { parts: parts.clone(), scope: tenant.scope(), args: Args::default(), traceparent, user, registry })
    }

    /// The generation of the registry that is served now.
    fn snapshot(parts: &Parts) -> Result<Registry, MlflowError> {
        let handle = parts.read_models.get("registry").ok_or_else(|| {
            MlflowError::unavailable(
                "this process does not hold the registry: serve tracking-api together with query-api, indexer and projections",
            )
        })?;
        let rows = handle.get().map_err(|error| MlflowError::of(&error))?;
        Ok(Registry { active: rows.cache(), rows })
    }

    /// The read model that answers; an error where this process has none, or serves none yet.
    pub fn registry(&self) -> Result<&Registry, MlflowError> {
        self.registry.as_ref().map_err(Clone::clone)
    }

    pub fn rows(&self) -> Result<&Namespace, MlflowError> {
        Ok(&self.registry()?.rows.namespace)
    }

    pub fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    pub fn event_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// The name that a client gives with Basic authentication (`MLFLOW_TRACKING_USERNAME`). It is what the caller says, and
/// proves nothing; no password is looked at.
fn user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(value.trim()).ok()?).ok()?;
    let name = text.split_once(':').map_or(text.as_str(), |(name, _)| name);
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.chars().take(60).collect())
}

impl FromRequest<Arc<Parts>> for Call {
    type Rejection = MlflowError;

    async fn from_request(request: Request, parts: &Arc<Parts>) -> Result<Self, MlflowError> {
        let (mut head, body) = request.into_parts();
        let mut call = Self::of(parts, &mut head).await?;
        call.args = if head.method == Method::GET {
            let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&head.uri);
            let pairs = pairs.map_err(|rejection| MlflowError::invalid(rejection.body_text()))?.0;
            Args::from_pairs(pairs)
        } else {
            let is_json =
                head.headers.contains_key(header::CONTENT_TYPE) && content_type(&head.headers)? == "application/json";
            // MLflow asks for it of POST and PUT alone.
            if !is_json && (head.method == Method::POST || head.method == Method::PUT) {
                return Err(MlflowError::invalid("Bad Request. Content-Type must be one of ['application/json']."));
            }
            let bytes = read_body(&head.headers, body, BODY_LIMIT).await?;
            Args::from_body(&bytes)
        };
        // Before anything else: a caller's mistake is told from a registry that is being filled by the next attempt.
        call.registry()?;
        Ok(call)
    }
}

/// What a call is answered with.
pub(crate) struct Answer(pub Value);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], Json(self.0)).into_response()
    }
}

/// What is too large to be made a tree first.
pub(crate) fn written(answer: &impl Serialize) -> Result<Response, MlflowError> {
    let bytes = serde_json::to_vec(answer).map_err(|error| MlflowError::internal(error.to_string()))?;
    let head = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::CONTENT_TYPE, "application/json")];
    Ok((head, bytes).into_response())
}

pub(crate) type Answered = Result<Answer, MlflowError>;

/// `{}`: a call that has nothing to say.
pub(crate) fn nothing() -> Answered {
    Ok(Answer(Value::Object(serde_json::Map::new())))
}

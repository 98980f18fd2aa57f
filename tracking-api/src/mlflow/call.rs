//! One call of MLflow's API: its tenant, arguments, trace and user, and the generation of the registry that it reads.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::request::Parts as Head;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use carbon_core::{TenantScope, Timestamp};
use carbon_http::{Context, Tenant, content_type, read_body};
use carbon_store::Namespace;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::args::Args;
use super::error::MlflowError;
use super::shapes;
use crate::state::{AppState, Dependencies, Registry};

/// Maximum size of a body of arguments, in bytes. The largest valid `log-batch` is much smaller.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

pub(crate) struct Call {
    pub dependencies: Arc<Dependencies>,
    pub scope: TenantScope,
    pub args: Args<'static>,
    pub traceparent: Option<String>,
    /// The caller's name, if it gave one. Not authenticated.
    pub user: Option<String>,
    /// The generation of the registry that this call reads, or why there is none.
    registry: Result<Registry, MlflowError>,
}

impl Call {
    /// Returns a call without arguments, for handlers that read the body themselves.
    pub async fn of(dependencies: &Arc<Dependencies>, head: &mut Head) -> Result<Self, MlflowError> {
        let tenant = Tenant::from_request_parts(head, dependencies).await?;
        let traceparent = head.extensions.get::<Context>().map(|context| context.traceparent.clone());
        let user = basic_auth_user(&head.headers);
        let registry = Self::snapshot(dependencies);
        Ok(Self {
            dependencies: dependencies.clone(),
            scope: tenant.scope(),
            args: Args::default(),
            traceparent,
            user,
            registry,
        })
    }

    /// Returns the generation of the registry that is served now.
    fn snapshot(dependencies: &Dependencies) -> Result<Registry, MlflowError> {
        let handle = dependencies.read_models.get("registry").ok_or_else(|| {
            MlflowError::unavailable(
                "this process does not hold the registry: serve tracking-api together with query-api, indexer and projections",
            )
        })?;
        let rows = handle.get().map_err(|error| MlflowError::of(&error))?;
        Ok(Registry { active: rows.cache(), rows })
    }

    /// Returns the generation of the registry. An error if this process does not hold the registry or does not serve it yet.
    pub fn registry(&self) -> Result<&Registry, MlflowError> {
        self.registry.as_ref().map_err(Clone::clone)
    }

    pub fn rows(&self) -> Result<&Namespace, MlflowError> {
        Ok(&self.registry()?.rows.namespace)
    }

    pub fn now(&self) -> Timestamp {
        self.dependencies.clock.now()
    }

    pub fn event_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// Returns the user name of Basic authentication (`MLFLOW_TRACKING_USERNAME`). The password is ignored, so the name proves
/// nothing.
fn basic_auth_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(value.trim()).ok()?).ok()?;
    let name = text.split_once(':').map_or(text.as_str(), |(name, _)| name);
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.chars().take(60).collect())
}

impl FromRequest<AppState> for Call {
    type Rejection = MlflowError;

    async fn from_request(request: Request, AppState(dependencies): &AppState) -> Result<Self, MlflowError> {
        let (mut head, body) = request.into_parts();
        let mut call = Self::of(dependencies, &mut head).await?;
        call.args = if head.method == Method::GET {
            let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&head.uri);
            let pairs = pairs.map_err(|rejection| MlflowError::invalid(rejection.body_text()))?.0;
            Args::from_pairs(pairs)
        } else {
            let is_json =
                head.headers.contains_key(header::CONTENT_TYPE) && content_type(&head.headers)? == "application/json";
            // MLflow requires the content type for POST and PUT only.
            if !is_json && (head.method == Method::POST || head.method == Method::PUT) {
                return Err(MlflowError::invalid("Bad Request. Content-Type must be one of ['application/json']."));
            }
            let bytes = read_body(&head.headers, body, BODY_LIMIT).await?;
            Args::from_body(&bytes)
        };
        // A registry that is still being filled is reported before the arguments are checked. The client retries, and then
        // gets the errors of its arguments.
        call.registry()?;
        Ok(call)
    }
}

/// A JSON answer with status 200.
pub(crate) struct Answer(pub Value);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], Json(self.0)).into_response()
    }
}

/// Returns a JSON answer with status 200 that is serialised directly. For large answers: it needs no tree of `Value`s.
pub(crate) fn serialised(answer: &impl Serialize) -> Result<Response, MlflowError> {
    let bytes = serde_json::to_vec(answer).map_err(|error| MlflowError::internal(error.to_string()))?;
    let head = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::CONTENT_TYPE, "application/json")];
    Ok((head, bytes).into_response())
}

pub(crate) type Answered = Result<Answer, MlflowError>;

/// Returns the answer `{name: items}`, or `{}` if there are no items.
pub(crate) fn list_answer(name: &str, items: Vec<Value>) -> Answered {
    let mut answer = Map::new();
    shapes::put_list(&mut answer, name, items);
    Ok(Answer(answer.into()))
}

/// Returns the empty answer `{}`.
pub(crate) fn empty_answer() -> Answered {
    Ok(Answer(Map::new().into()))
}

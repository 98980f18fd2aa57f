//! Errors in MLflow's format: `{error_code, message}`. Clients match on both. They retry a 5xx for more than a minute, so an
//! invalid request never gets a 5xx.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carbon_core::{Classify, Fault, Retry};
use carbon_http::{Code, Problem};
use carbon_read_models::registry::filter::GrammarError;
use carbon_read_models::registry::{Conflict, ConflictCode};
use carbon_store::StoreError;
use serde_json::json;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MlflowError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

/// The last sentence of MLflow's messages about parameters.
const SEE: &str = "See the API docs for more information about request parameters.";

impl MlflowError {
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "INVALID_PARAMETER_VALUE", message: message.into() }
    }

    pub fn missing(parameter: &str) -> Self {
        Self::invalid(format!("Missing value for required parameter '{parameter}'. {SEE}"))
    }

    /// `value` is the JSON of the value, `kind` the name of its Python type.
    pub fn wrong_type(parameter: &str, value: &str, kind: &str) -> Self {
        let value: String = value.chars().take(500).collect();
        Self::invalid(format!(
            "Invalid value {value} for parameter '{parameter}' supplied: Hint: Value was of type '{kind}'. {SEE}"
        ))
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, code: "REQUEST_LIMIT_EXCEEDED", message: message.into() }
    }

    pub fn does_not_exist(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "RESOURCE_DOES_NOT_EXIST", message: message.into() }
    }

    pub fn already_exists(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "RESOURCE_ALREADY_EXISTS", message: message.into() }
    }

    pub fn no_endpoint(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "ENDPOINT_NOT_FOUND", message: message.into() }
    }

    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_IMPLEMENTED, code: "NOT_IMPLEMENTED", message: message.into() }
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code: "TEMPORARILY_UNAVAILABLE", message: message.into() }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "INTERNAL_ERROR", message: message.into() }
    }

    pub fn code(&self) -> &'static str {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// True for a 4xx: the request is wrong, and a retry fails again.
    pub fn is_client_error(&self) -> bool {
        self.status.is_client_error()
    }

    /// Maps an error of the platform, by its fault and retry.
    pub fn of(error: &impl Classify) -> Self {
        match (error.fault(), error.retry()) {
            (Fault::User, _) => Self::invalid(error.to_string()),
            (_, Retry::Later) => Self::unavailable(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }

    /// Maps the fold's conflict about a write.
    pub fn conflict(conflict: Conflict) -> Self {
        match conflict.code {
            ConflictCode::AlreadyExists | ConflictCode::IdTaken => Self::already_exists(conflict.message),
            ConflictCode::DoesNotExist => Self::does_not_exist(conflict.message),
            ConflictCode::Refused => Self::invalid(conflict.message),
        }
    }
}

impl From<StoreError> for MlflowError {
    fn from(error: StoreError) -> Self {
        Self::of(&error)
    }
}

impl From<GrammarError> for MlflowError {
    fn from(error: GrammarError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<Problem> for MlflowError {
    fn from(problem: Problem) -> Self {
        let message = problem.detail().to_owned();
        match problem.code() {
            Code::InvalidInput => Self::invalid(message),
            Code::TooLarge => Self::too_large(message),
            Code::Unavailable => Self::unavailable(message),
            Code::Unauthenticated => Self { status: StatusCode::UNAUTHORIZED, code: "UNAUTHENTICATED", message },
            Code::Forbidden => Self { status: StatusCode::FORBIDDEN, code: "PERMISSION_DENIED", message },
            _ => Self::internal(message),
        }
    }
}

/// For the platform's own routes, which answer problems.
impl From<MlflowError> for Problem {
    fn from(error: MlflowError) -> Self {
        match error.status {
            StatusCode::BAD_REQUEST if error.code == "RESOURCE_ALREADY_EXISTS" => {
                Problem::new(Code::Conflict, error.message)
            }
            StatusCode::BAD_REQUEST => Problem::invalid(error.message),
            StatusCode::NOT_FOUND => Problem::not_found(error.message),
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::TooLarge, error.message),
            StatusCode::SERVICE_UNAVAILABLE => Problem::unavailable(error.message),
            StatusCode::UNAUTHORIZED => Problem::new(Code::Unauthenticated, error.message),
            StatusCode::FORBIDDEN => Problem::new(Code::Forbidden, error.message),
            _ => Problem::internal(error.message),
        }
    }
}

impl IntoResponse for MlflowError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED {
            tracing::error!(code = self.code, message = %self.message, "mlflow request failed");
        }
        let body = json!({"error_code": self.code, "message": self.message});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

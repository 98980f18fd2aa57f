//! Errors as RFC 9457 problems, and the one mapping from [`Classify`] to HTTP.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carbon_core::{Classify, Fault, Retry};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The kind of an error; stable across versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    InvalidInput,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    TooLarge,
    Unprocessable,
    Overloaded,
    Unavailable,
    DeadlineExceeded,
    Internal,
}

impl Code {
    pub fn status(self) -> StatusCode {
        match self {
            Code::InvalidInput => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::Forbidden => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::Conflict => StatusCode::CONFLICT,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Code::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the URN of the problem type.
    fn urn(self) -> &'static str {
        match self {
            Code::InvalidInput => "urn:carbon-ml:problem:invalid_input",
            Code::Unauthenticated => "urn:carbon-ml:problem:unauthenticated",
            Code::Forbidden => "urn:carbon-ml:problem:forbidden",
            Code::NotFound => "urn:carbon-ml:problem:not_found",
            Code::MethodNotAllowed => "urn:carbon-ml:problem:method_not_allowed",
            Code::Conflict => "urn:carbon-ml:problem:conflict",
            Code::TooLarge => "urn:carbon-ml:problem:too_large",
            Code::Unprocessable => "urn:carbon-ml:problem:unprocessable",
            Code::Overloaded => "urn:carbon-ml:problem:overloaded",
            Code::Unavailable => "urn:carbon-ml:problem:unavailable",
            Code::DeadlineExceeded => "urn:carbon-ml:problem:deadline_exceeded",
            Code::Internal => "urn:carbon-ml:problem:internal",
        }
    }

    /// Returns the title of the problem type.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Code::InvalidInput => "The request is not valid",
            Code::Unauthenticated => "The caller is not authenticated",
            Code::Forbidden => "The caller is not allowed to do this",
            Code::NotFound => "The resource does not exist",
            Code::MethodNotAllowed => "The route does not support this method",
            Code::Conflict => "The request conflicts with the current state",
            Code::TooLarge => "The request is too large",
            Code::Unprocessable => "The model cannot process the input",
            Code::Overloaded => "The service is overloaded",
            Code::Unavailable => "A required part of the service is not available",
            Code::DeadlineExceeded => "The request timed out",
            Code::Internal => "Internal error",
        }
    }
}

/// The media type of problems (RFC 9457).
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// An error answer (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    #[schema(example = "urn:carbon-ml:problem:invalid_input")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    code: Code,
    request_id: Option<String>,
    /// Additional fields of some problems, such as the number of records that were accepted before a failure.
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Map<String, Value>,
    #[serde(skip)]
    #[schema(ignore)]
    outside_body: Box<OutsideBody>,
}

/// The cause and the headers of a problem, which are not in its body.
#[derive(Clone, Debug, Default)]
struct OutsideBody {
    /// Is logged, and not answered.
    cause: Option<String>,
    headers: HeaderMap,
}

/// Maximum length of `detail`, in characters. Details repeat what the caller sent, which can be megabytes.
const DETAIL_CHARS: usize = 1000;

/// Returns `text` cut to at most `chars` characters, with an ellipsis if it was longer.
pub fn shorten(text: impl Into<Cow<'static, str>>, chars: usize) -> Cow<'static, str> {
    let text = text.into();
    match text.char_indices().nth(chars) {
        Some((cut, _)) => Cow::Owned(format!("{}…", &text[..cut])),
        None => text,
    }
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: code.urn(),
            title: code.title(),
            status: code.status().as_u16(),
            detail: shorten(detail.into(), DETAIL_CHARS),
            code,
            request_id: None,
            extra: Map::new(),
            outside_body: Box::default(),
        }
    }

    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidInput, detail)
    }

    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::NotFound, detail)
    }

    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unavailable, detail).retry_after(Duration::from_secs(1))
    }

    /// An internal error. The cause is logged; the caller gets only the request id.
    pub fn internal(cause: impl Into<String>) -> Self {
        let detail = "internal error; the service's log contains the cause under this request id";
        Self::new(Code::Internal, detail).caused_by(cause.into())
    }

    /// Maps an error to a problem: by its fault to 400, 503 or 500, unless `code` gives a more specific one.
    pub fn of(error: &(impl Classify + ?Sized), code: Option<Code>) -> Self {
        let code = code.unwrap_or(match error.fault() {
            Fault::User => Code::InvalidInput,
            Fault::External => Code::Unavailable,
            Fault::Internal => Code::Internal,
        });
        if code == Code::Internal {
            return Self::internal(error.to_string());
        }
        let problem = Self::new(code, error.to_string());
        let problem = if error.retry() == Retry::Later { problem.retry_after(Duration::from_secs(1)) } else { problem };
        match code {
            Code::Unavailable => problem.caused_by(error.to_string()),
            _ => problem,
        }
    }

    /// Sets the header `Retry-After`, in whole seconds (at least 1).
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
        self.with_header(header::RETRY_AFTER, &seconds.to_string())
    }

    /// Sets a header of the answer. Ignores a value with characters that are not allowed in headers.
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.outside_body.headers.insert(name, value);
        }
        self
    }

    fn caused_by(mut self, cause: String) -> Self {
        self.outside_body.cause = Some(cause);
        self
    }

    /// Adds a field to the body.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn cause(&self) -> Option<&str> {
        self.outside_body.cause.as_deref()
    }

    pub(crate) fn for_request(mut self, id: &str) -> Self {
        self.request_id = Some(id.to_owned());
        self
    }
}

impl<E: Classify> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::of(&error, None)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Serialisation cannot fail: the body holds only strings, numbers, lists and maps.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let content_type = [(header::CONTENT_TYPE, CONTENT_TYPE)];
        let mut response = (self.code.status(), content_type, self.outside_body.headers.clone(), body).into_response();
        // The outer middleware takes the problem from the extensions and writes the body again with the request id.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("secret detail")]
    struct Failure(Fault, Retry);

    impl Classify for Failure {
        fn fault(&self) -> Fault {
            self.0
        }
        fn retry(&self) -> Retry {
            self.1
        }
    }

    #[test]
    fn faults_map_to_statuses() {
        let status = |fault| Problem::from(Failure(fault, Retry::Never)).code().status().as_u16();
        assert_eq!([Fault::User, Fault::External, Fault::Internal].map(status), [400, 503, 500]);
    }

    #[test]
    fn internal_causes_are_not_answered() {
        let problem = Problem::from(Failure(Fault::Internal, Retry::Never));
        let body = serde_json::to_string(&problem).unwrap();
        assert!(!body.contains("secret"), "{body}");
        assert_eq!(problem.cause(), Some("secret detail"));
    }

    #[test]
    fn a_problem_serialises_as_documented() {
        let problem = Problem::invalid("x").for_request("r").with("accepted", 3);
        assert_eq!(
            serde_json::to_value(&problem).unwrap(),
            serde_json::json!({
                "type": "urn:carbon-ml:problem:invalid_input", "title": "The request is not valid", "status": 400,
                "detail": "x", "code": "invalid_input", "request_id": "r", "accepted": 3
            })
        );
        let later = Problem::from(Failure(Fault::External, Retry::Later)).into_response();
        assert_eq!(later.headers()[header::RETRY_AFTER], "1");
    }
}

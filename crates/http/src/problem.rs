//! Errors as RFC 9457 problems, and the one mapping from [`Classify`] to HTTP.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carbon_core::{Classify, Fault, Retry};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What went wrong, stable across versions.
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

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Code::InvalidInput => ("urn:carbon-ml:problem:invalid_input", "The request is not valid"),
            Code::Unauthenticated => ("urn:carbon-ml:problem:unauthenticated", "Who is asking is not known"),
            Code::Forbidden => ("urn:carbon-ml:problem:forbidden", "That is not allowed to the caller"),
            Code::NotFound => ("urn:carbon-ml:problem:not_found", "There is no such thing"),
            Code::MethodNotAllowed => ("urn:carbon-ml:problem:method_not_allowed", "The route has no such method"),
            Code::Conflict => ("urn:carbon-ml:problem:conflict", "It conflicts with what is there"),
            Code::TooLarge => ("urn:carbon-ml:problem:too_large", "The request is too large"),
            Code::Unprocessable => ("urn:carbon-ml:problem:unprocessable", "The model cannot take it"),
            Code::Overloaded => ("urn:carbon-ml:problem:overloaded", "Too much is waiting already"),
            Code::Unavailable => ("urn:carbon-ml:problem:unavailable", "A part that is needed is not available"),
            Code::DeadlineExceeded => ("urn:carbon-ml:problem:deadline_exceeded", "It took longer than it may"),
            Code::Internal => ("urn:carbon-ml:problem:internal", "Something is wrong in the service"),
        }
    }
}

/// An error as it is answered: `application/problem+json`.
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
    /// What some problems say beyond the rest, such as what was accepted before a failure.
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Map<String, Value>,
    #[serde(skip)]
    #[schema(ignore)]
    beside: Box<Beside>,
}

/// What does not go into the body.
#[derive(Clone, Debug, Default)]
struct Beside {
    /// For the log alone.
    cause: Option<String>,
    headers: HeaderMap,
}

/// Details repeat what the caller sent; nobody is answered megabytes of it.
const DETAIL_CHARS: usize = 1000;

/// Cuts a text that holds something of the caller's.
pub fn shorten(text: impl Into<Cow<'static, str>>, chars: usize) -> Cow<'static, str> {
    let text = text.into();
    match text.char_indices().nth(chars) {
        Some((cut, _)) => Cow::Owned(format!("{}…", &text[..cut])),
        None => text,
    }
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let (kind, title) = code.names();
        Self {
            kind,
            title,
            status: code.status().as_u16(),
            detail: shorten(detail.into(), DETAIL_CHARS),
            code,
            request_id: None,
            extra: Map::new(),
            beside: Box::default(),
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

    /// An internal error: the cause goes to the log, not to the caller.
    pub fn internal(cause: impl Into<String>) -> Self {
        let detail = "an internal error; the service's log has its cause under this request id";
        Self::new(Code::Internal, detail).caused_by(cause.into())
    }

    /// The mapping. Where an error knows better (404, 413, 422, 429), `code` says so.
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

    /// When to try again, in whole seconds.
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
        self.with_header(header::RETRY_AFTER, &seconds.to_string())
    }

    /// A value that no header can hold is left out.
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.beside.headers.insert(name, value);
        }
        self
    }

    fn caused_by(mut self, cause: String) -> Self {
        self.beside.cause = Some(cause);
        self
    }

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
        self.beside.cause.as_deref()
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
        // Strings and numbers always serialise.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.code.status(), content_type, self.beside.headers.clone(), body).into_response();
        // Kept, so that the outer layer can write it again with the request's id.
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
    fn internal_causes_stay_in_the_log() {
        let problem = Problem::from(Failure(Fault::Internal, Retry::Never));
        let body = serde_json::to_string(&problem).unwrap();
        assert!(!body.contains("secret"), "{body}");
        assert_eq!(problem.cause(), Some("secret detail"));
    }

    #[test]
    fn the_shape_is_the_contracts() {
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

//! The middleware around every request: request id, trace context, duration, metrics, and the final form of problems.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use carbon_core::RequestId;
use uuid::Uuid;

use crate::problem::{Code, Problem};
use crate::rewrite::PathTenant;
use crate::trace;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESS_TIME: HeaderName = HeaderName::from_static("x-process-time");

/// Request id and trace context; an extension of every request.
#[derive(Clone, Debug)]
pub struct Context {
    pub request_id: RequestId,
    /// A valid W3C `traceparent`: the caller's, or a generated one.
    pub traceparent: String,
}

pub(crate) async fn observe(State(service): State<&'static str>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let context = context(&request);
    // Callers can send any method. All methods that are not standard share one label, so the number of labels is bounded.
    let standard =
        [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS, Method::PATCH];
    let method = if standard.contains(request.method()) { request.method().as_str() } else { "other" }.to_owned();
    // Callers can send any path. The label is the matched route, so the number of labels is bounded.
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    request.extensions_mut().insert(context.clone());
    let bad_tenant = match request.extensions().get::<PathTenant>() {
        Some(PathTenant(Err(message))) => Some(message.clone()),
        _ => None,
    };
    let mut response = match bad_tenant {
        Some(message) => Problem::invalid(message).into_response(),
        None => next.run(request).await,
    };
    let elapsed = began.elapsed().as_secs_f64();
    let id = &context.request_id.0;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let (code, trace_id) = (problem.code(), trace::trace_id(&context.traceparent));
        if let Some(cause) = problem.cause() {
            let (status, latency_ms) = (u64::from(code.status().as_u16()), elapsed * 1e3);
            match code {
                Code::Internal => {
                    tracing::error!(route, status, latency_ms, request_id = id, trace_id, cause, "request failed")
                }
                _ => tracing::warn!(route, status, latency_ms, request_id = id, trace_id, cause, "request rejected"),
            }
        }
        // Keep the headers that inner layers added, such as `allow`.
        let mut headers = std::mem::take(response.headers_mut());
        headers.remove(header::CONTENT_LENGTH);
        response = problem.for_request(id).into_response();
        for (name, value) in &headers {
            response.headers_mut().insert(name, value.clone());
        }
        response.extensions_mut().remove::<Problem>();
    }
    let (code, latency_ms) = (u64::from(response.status().as_u16()), elapsed * 1e3);
    let trace_id = trace::trace_id(&context.traceparent);
    tracing::debug!(api = service, method, route, status = code, latency_ms, request_id = id, trace_id, "request");
    let status = response.status().as_str().to_owned();
    metrics::counter!("http_requests_total", "service" => service, "method" => method.clone(), "route" => route.clone(), "status" => status.clone()).increment(1);
    metrics::histogram!("http_request_duration_seconds", "service" => service, "method" => method, "route" => route, "status" => status).record(elapsed);
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if let Ok(value) = HeaderValue::from_str(&format!("{elapsed:.6}")) {
        response.headers_mut().insert(PROCESS_TIME, value);
    }
    response
}

fn context(request: &Request) -> Context {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let given = header("x-request-id").filter(|id| acceptable(id)).map(str::to_owned);
    let traceparent = header("traceparent").and_then(trace::parse);
    Context {
        request_id: RequestId(given.unwrap_or_else(|| Uuid::now_v7().to_string())),
        traceparent: traceparent.unwrap_or_else(trace::generate),
    }
}

/// True if a caller's request id can be written to logs and headers unchanged.
fn acceptable(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
}

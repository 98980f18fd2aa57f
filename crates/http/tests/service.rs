//! The router that `assemble` builds: prefixes, problems, request ids, readiness, OpenAPI document.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use carbon_core::Positions;
use carbon_http::{Context, JsonBody, LogPosition, Problem, Service, Tenant, assemble};
use carbon_runtime::{Check, Health, Metrics};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct In {
    count: u32,
}

#[utoipa::path(post, path = "/echo", request_body = In, responses((status = 200)))]
async fn echo(
    tenant: Tenant,
    axum::Extension(context): axum::Extension<Context>,
    JsonBody(body): JsonBody<In, 64>,
) -> Result<(LogPosition, Json<Value>), Problem> {
    let positions = Positions::parse_done("t:0:4,t:1:9").unwrap();
    let answer = json!({"tenant": tenant.scope().tenant(), "count": body.count, "traceparent": context.traceparent});
    Ok((LogPosition(positions), Json(answer)))
}

#[utoipa::path(get, path = "/panic", responses((status = 500)))]
#[allow(clippy::panic, clippy::unused_async)]
async fn panics() -> &'static str {
    panic!("the secret of the handler")
}

fn router(health: Arc<Health>) -> axum::Router {
    // A process has one metrics recorder; a second one would record nothing.
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    let metrics = METRICS.get_or_init(Metrics::install).clone();
    let service = Service { name: "test", title: "Test", description: "A test.", health, metrics };
    assemble(service, OpenApiRouter::new().routes(routes!(echo)).routes(routes!(panics)))
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }
}

async fn send(request: Request<Body>) -> Answer {
    let health = Arc::new(Health::new(&["log"]));
    health.set("log", Check::ready("open"));
    send_to(router(health), request).await
}

async fn send_to(router: axum::Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(bytes.to_vec()).unwrap() }
}

fn post(uri: &str, body: &str) -> Request<Body> {
    Request::post(uri).header("content-type", "application/json").body(Body::from(body.to_owned())).unwrap()
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn every_route_answers_under_its_prefixes() {
    for (uri, tenant) in [
        ("/echo", "default"),
        ("/api/v1/echo", "default"),
        ("/tenants/acme/echo", "acme"),
        ("/tenants/acme/api/v1/echo?tenant_id=acme", "acme"),
        ("/echo?tenant_id=acme", "acme"),
    ] {
        let answer = send(post(uri, r#"{"count":3}"#)).await;
        assert_eq!((answer.status, answer.json()["tenant"].as_str()), (StatusCode::OK, Some(tenant)), "{uri}");
        assert_eq!(answer.header("x-log-position"), "t:0:4,t:1:9");
        assert!(answer.header("x-process-time").parse::<f64>().unwrap() >= 0.0);
        assert_eq!(send(get(&uri.replace("echo", "live"))).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn every_invalid_request_is_answered_with_a_problem() {
    let big = format!(r#"{{"count":1,"x":"{}"}}"#, "x".repeat(100));
    let bare = |body: &str| Request::post("/echo").body(Body::from(body.to_owned())).unwrap();
    let text = Request::post("/echo").header("content-type", "text/plain").body(Body::from("{}")).unwrap();
    for (name, request, status, code) in [
        ("malformed", post("/echo", "{"), 400, "invalid_input"),
        ("wrong type", post("/echo", r#"{"count":"3"}"#), 400, "invalid_input"),
        ("unknown field", post("/echo", r#"{"count":3,"x":1}"#), 400, "invalid_input"),
        ("negative", post("/echo", r#"{"count":-3}"#), 400, "invalid_input"),
        ("empty", post("/echo", ""), 400, "invalid_input"),
        ("no content type", bare("{\"count\":3}"), 400, "invalid_input"),
        ("wrong content type", text, 400, "invalid_input"),
        ("too large", post("/echo", &big), 413, "too_large"),
        ("two tenants", post("/tenants/a/echo?tenant_id=b", r#"{"count":3}"#), 400, "invalid_input"),
        ("bad tenant", post("/tenants/a.b/echo", r#"{"count":3}"#), 400, "invalid_input"),
        ("encoded tenant", post("/tenants/a%2Fb/echo", r#"{"count":3}"#), 400, "invalid_input"),
        ("no tenant", post("/tenants//echo", r#"{"count":3}"#), 400, "invalid_input"),
        ("bad tenant, any route", get("/tenants/a.b/live"), 400, "invalid_input"),
        ("query that is no text", post("/echo?tenant_id=%ff%fe", r#"{"count":3}"#), 400, "invalid_input"),
        ("no route", get("/nothing"), 404, "not_found"),
        ("prefix alone", get("/tenants/a"), 404, "not_found"),
        ("wrong method", get("/echo"), 405, "method_not_allowed"),
    ] {
        let answer = send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{name}");
        let problem = answer.json();
        assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(status.into())), "{name}");
        assert_eq!(problem["request_id"].as_str(), Some(answer.header("x-request-id")), "{name}");
        for field in ["type", "title", "detail"] {
            assert!(!problem[field].as_str().unwrap().is_empty(), "{name}: {field}");
        }
    }
    assert_eq!(send(get("/echo")).await.header("allow"), "POST");
}

#[tokio::test]
async fn valid_request_ids_and_traces_are_kept_and_others_replaced() {
    let with = |name: &str, value: &str| {
        let mut request = post("/echo", r#"{"count":1}"#);
        request.headers_mut().insert(
            axum::http::HeaderName::try_from(name).unwrap(),
            axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
        request
    };
    assert_eq!(send(with("x-request-id", "abc-1.2:3")).await.header("x-request-id"), "abc-1.2:3");
    for invalid in ["", "a b", "é", &"x".repeat(129), "a\"b"] {
        let answer = send(with("x-request-id", invalid)).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_ne!(answer.header("x-request-id"), invalid);
    }
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(send(with("traceparent", trace)).await.json()["traceparent"], trace);
    let made = send(with("traceparent", "00-zz")).await.json()["traceparent"].as_str().unwrap().to_owned();
    assert!(made.len() == 55 && made != trace, "{made}");
}

#[tokio::test]
async fn a_panic_is_answered_without_its_message() {
    let answer = send(get("/panic")).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.json()["code"], "internal");
    assert!(!answer.body.contains("secret"));
}

#[tokio::test]
async fn readiness_names_the_parts_that_do_not_work() {
    let health = Arc::new(Health::new(&["log", "model"]));
    health.set("log", Check::ready("open"));
    let router = router(health.clone());
    let answer = send_to(router.clone(), get("/ready")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["checks"]["model"], json!({"ready": false, "optional": false, "detail": "starting"}));
    assert_eq!(answer.json()["not_running"], json!(["model"]));
    assert_eq!(send_to(router.clone(), get("/health")).await.json()["status"], "unavailable");
    health.set("model", Check::ready("m"));
    health.set("embedder", Check::failing("halted at t:0:3").optional());
    let answer = send_to(router.clone(), get("/ready")).await;
    assert_eq!((answer.status, &answer.json()["not_running"]), (StatusCode::OK, &json!(["embedder"])));
    assert_eq!(send_to(router.clone(), get("/health")).await.json()["status"], "degraded");
    let metrics = send_to(router, get("/metrics")).await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    assert!(metrics.body.contains("http_requests_total{"), "{}", metrics.body);
    assert!(metrics.body.contains("route=\"/ready\""), "{}", metrics.body);
}

#[tokio::test]
async fn the_openapi_document_lists_routes_and_schemas() {
    let spec = send(get("/openapi.json")).await.json();
    for path in ["/echo", "/live", "/ready", "/health", "/metrics"] {
        assert!(spec["paths"][path].is_object(), "{path}");
    }
    assert!(spec["components"]["schemas"]["In"].is_object());
    let page = send(get("/api/v1/docs")).await;
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.body.contains("\"/echo\""));
}

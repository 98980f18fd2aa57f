//! Builds the router that a service serves: its own routes, the common ones, the OpenAPI document, and the layers.

use std::any::Any;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use carbon_runtime::{Health, Metrics};
use tower::Layer as _;
use tower::util::MapRequestLayer;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::{InfoBuilder, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_scalar::Scalar;

use crate::common::{self, Common};
use crate::observe::observe;
use crate::problem::{Code, Problem};
use crate::responses;
use crate::rewrite::rewrite;

/// Name, description, health and metrics of a service.
pub struct Service {
    /// The name in metrics and logs, such as `query-api`.
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub health: Arc<Health>,
    pub metrics: Metrics,
}

/// Returns the router of a service: its routes and `/live`, `/ready`, `/health`, `/metrics`, `/openapi.json` and
/// `/docs`, each also under the prefixes `/api/v1` and `/tenants/{tenant_id}`. Unknown routes and methods and panics of
/// handlers are answered with problems.
pub fn assemble(service: Service, routes: OpenApiRouter) -> Router {
    let info = InfoBuilder::new()
        .title(service.title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(service.description))
        .build();
    // A service without routes of its own answers no problem of its own either.
    let components = (!routes.get_openapi().paths.paths.is_empty()).then(responses::components);
    let openapi = OpenApiBuilder::new().info(info).components(components).build();
    let common = common::routes(Common { health: service.health, metrics: service.metrics });
    let (router, openapi) = OpenApiRouter::with_openapi(openapi).merge(routes).merge(common).split_for_parts();
    // Serialisation of the document cannot fail: it holds only strings, numbers, lists and maps.
    let json = bytes::Bytes::from(openapi.to_json().unwrap_or_default());
    let page = bytes::Bytes::from(Scalar::new(openapi).custom_html(PAGE).to_html());
    let serve =
        |kind: &'static str, body: bytes::Bytes| get(move || async move { ([(header::CONTENT_TYPE, kind)], body) });
    let router = router
        .route("/openapi.json", serve("application/json", json))
        .route("/docs", serve("text/html; charset=utf-8", page))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(service.name, observe));
    // The rewrite wraps the router, because the layers of an axum router run after routing.
    Router::new().fallback_service(MapRequestLayer::new(rewrite).layer(router))
}

/// The page of `/docs`. It embeds the OpenAPI document; the viewer is loaded from a CDN. Offline, a link to the document
/// remains.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head><title>carbon-ml API</title><meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/></head>
<body>
<p id="offline">The viewer is loaded from a CDN. If it does not load, read <a href="openapi.json">openapi.json</a>.</p>
<script id="api-reference" type="application/json">$spec</script>
<script src="https://cdn.jsdelivr.net/npm/@scalar/api-reference" onload="document.getElementById('offline').remove()"></script>
</body>
</html>
"#;

async fn no_route(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    Problem::not_found(format!("no such route: {path}; /docs lists all routes"))
}

async fn no_method(request: Request) -> Problem {
    let detail = format!("method {} is not allowed here; the header allow lists the allowed methods", request.method());
    Problem::new(Code::MethodNotAllowed, detail)
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Problem::internal(format!("a handler panicked: {}", message.unwrap_or("no message"))).into_response()
}

//! The routes of every service: `/live`, `/ready`, `/health` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use carbon_runtime::{Health, Metrics, is_ready};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Clone)]
pub(crate) struct Common {
    pub health: Arc<Health>,
    pub metrics: Metrics,
}

/// The state of one part of the process.
#[derive(Serialize, ToSchema)]
struct Check {
    /// True if the part works.
    ready: bool,
    /// True if the routes work without the part.
    optional: bool,
    /// What the part waits for, why it does not work, or what it is.
    detail: String,
}

#[derive(Serialize, ToSchema)]
struct Live {
    /// Always `live`.
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
struct Ready {
    /// True if this process can answer its routes.
    ready: bool,
    /// The parts that do not work.
    not_running: Vec<String>,
    checks: BTreeMap<String, Check>,
}

#[derive(Serialize, ToSchema)]
struct HealthReport {
    /// `ready`, `degraded` (ready, but an optional part does not work), or `unavailable`.
    status: &'static str,
    live: bool,
    ready: bool,
    /// The parts that do not work.
    not_running: Vec<String>,
    checks: BTreeMap<String, Check>,
}

pub(crate) fn routes(common: Common) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(health))
        .routes(routes!(metrics_text))
        .with_state(common)
}

fn report(health: &Health) -> Ready {
    let checks = health.checks();
    let ready = is_ready(&checks);
    let not_running = checks.iter().filter(|(_, check)| !check.ready).map(|(part, _)| part.clone()).collect();
    let checks = checks.into_iter().map(|(part, check)| {
        let carbon_runtime::Check { ready, optional, detail } = check;
        (part, Check { ready, optional, detail })
    });
    Ready { ready, not_running, checks: checks.collect() }
}

/// Liveness: the process runs
#[utoipa::path(get, path = "/live", tag = "health", responses((status = 200, body = Live)))]
async fn live() -> Json<Live> {
    Json(Live { status: "live" })
}

/// Readiness: whether this process can answer its routes, with the state of each part
#[utoipa::path(get, path = "/ready", tag = "health",
    responses((status = 200, body = Ready), (status = 503, description = "The process cannot answer its routes", body = Ready)))]
async fn ready(State(common): State<Common>) -> (StatusCode, Json<Ready>) {
    let report = report(&common.health);
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

/// Liveness and readiness; always answers 200
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = HealthReport)))]
async fn health(State(common): State<Common>) -> Json<HealthReport> {
    let Ready { ready, not_running, checks } = report(&common.health);
    let status = match (ready, not_running.is_empty()) {
        (true, true) => "ready",
        (true, false) => "degraded",
        (false, _) => "unavailable",
    };
    Json(HealthReport { status, live: true, ready, not_running, checks })
}

/// Metrics in the Prometheus text format
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics_text(State(common): State<Common>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], common.metrics.render())
}

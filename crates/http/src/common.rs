//! The routes that every service has.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use carbon_runtime::{Health, Metrics};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Clone)]
pub(crate) struct Common {
    pub health: Arc<Health>,
    pub metrics: Metrics,
}

/// The state of one part.
#[derive(Serialize, ToSchema)]
struct Check {
    ready: bool,
    /// What it waits for, or what it is.
    detail: String,
}

#[derive(Serialize, ToSchema)]
struct Live {
    /// Always `live`.
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
struct Ready {
    ready: bool,
    checks: BTreeMap<String, Check>,
}

#[derive(Serialize, ToSchema)]
struct HealthReport {
    /// `ready` or `starting`.
    status: &'static str,
    live: bool,
    ready: bool,
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

fn checks(health: &Health) -> (bool, BTreeMap<String, Check>) {
    let checks = health.checks();
    let ready = checks.values().all(|check| check.ready);
    let shown = checks.into_iter().map(|(part, check)| (part, Check { ready: check.ready, detail: check.detail }));
    (ready, shown.collect())
}

/// Whether the process runs
#[utoipa::path(get, path = "/live", tag = "health", responses((status = 200, body = Live)))]
async fn live() -> Json<Live> {
    Json(Live { status: "live" })
}

/// Whether every part is there, each named with its state
#[utoipa::path(get, path = "/ready", tag = "health",
    responses((status = 200, body = Ready), (status = 503, description = "Not yet", body = Ready)))]
async fn ready(State(common): State<Common>) -> (StatusCode, Json<Ready>) {
    let (ready, checks) = checks(&common.health);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, checks }))
}

/// Liveness and readiness; always 200 from a live process
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = HealthReport)))]
async fn health(State(common): State<Common>) -> Json<HealthReport> {
    let (ready, checks) = checks(&common.health);
    Json(HealthReport { status: if ready { "ready" } else { "starting" }, live: true, ready, checks })
}

/// Metrics, as Prometheus text
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics_text(State(common): State<Common>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], common.metrics.render())
}

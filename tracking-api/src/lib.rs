//! Writes: HTTP in, events out. Nothing is changed but by appending to the log (law 1).

mod entities;
mod status;

use std::sync::{Arc, Mutex};

use carbon_core::Clock;
use carbon_http::{Service, assemble};
use carbon_log::EventLog;
use carbon_runtime::consume::ProcessorView;
use carbon_runtime::{Config, GenerationLog, Health, Metrics, Shutdown};
use carbon_store::Namespace;
use carbon_topology::Topology;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the service is made of.
pub struct Parts {
    pub log: Arc<dyn EventLog>,
    pub topology: Arc<Topology>,
    pub generations: GenerationLog,
    /// Shared, since some processors start after the service does.
    pub processors: Arc<Mutex<Vec<ProcessorView>>>,
    /// The namespace of the `deadletters` read model; `None` in a process that does not hold it.
    pub deadletters: Option<Namespace>,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub shutdown: Shutdown,
}

/// The whole service.
pub fn router(parts: Arc<Parts>) -> axum::Router {
    let service = Service {
        name: "tracking-api",
        title: "carbon-ml tracking-api",
        description: "Writes: each becomes an event of the log.",
        health: parts.health.clone(),
        metrics: parts.metrics.clone(),
    };
    let routes = OpenApiRouter::new()
        .routes(routes!(entities::post_entities))
        .routes(routes!(entities::delete_entity))
        .routes(routes!(status::get_status))
        .with_state(parts);
    assemble(service, routes)
}

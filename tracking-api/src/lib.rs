//! Writes: HTTP in, events out. Nothing is changed but by appending to the log (law 1).

mod active;
mod claims;
mod entities;
mod generations;
mod mlflow;
mod status;

use std::sync::Arc;

use carbon_artifacts::ArtifactStore;
use carbon_core::Clock;
use carbon_http::{Service, assemble};
use carbon_log::EventLog;
use carbon_runtime::generations::Keepers;
use carbon_runtime::{Config, GenerationLog, Health, Metrics, Processors, ReadModels, Rows, Shutdown, Supervisor};
use carbon_topology::Topology;
use carbon_webhooks::Webhooks;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use claims::Claims;

/// What the service is made of.
pub struct Parts {
    pub log: Arc<dyn EventLog>,
    pub topology: Arc<Topology>,
    pub generations: GenerationLog,
    /// How this process keeps its read models.
    pub keepers: Keepers,
    /// The processors of this process, which come and go with generations.
    pub processors: Processors,
    /// The tasks of this process.
    pub supervisor: Supervisor,
    /// The relational read models that this process holds.
    pub read_models: ReadModels,
    /// The bytes of files.
    pub artifacts: ArtifactStore,
    /// Where webhooks may be, and what seals their secrets.
    pub webhooks: Webhooks,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub shutdown: Shutdown,
    /// Claims of names and numbers queue here by tenant, so that races are between processes alone (law 9).
    pub claims: Claims,
}

/// The generation of the registry that one request reads, and what its writers know of it.
#[derive(Clone)]
pub(crate) struct Registry {
    pub rows: Arc<Rows>,
    pub active: Arc<active::Active>,
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
    let ui = parts.config.mlflow_ui.clone();
    let routes = OpenApiRouter::new()
        .routes(routes!(entities::post_entities))
        .routes(routes!(entities::delete_entity))
        .routes(routes!(mlflow::post_promote))
        .routes(routes!(status::get_status))
        .routes(routes!(generations::get_generations))
        .routes(routes!(generations::get_generation))
        .routes(routes!(generations::post_promote))
        .routes(routes!(generations::post_retire))
        .routes(routes!(generations::post_replay))
        .merge(OpenApiRouter::from(mlflow::routes(&ui)))
        .with_state(parts);
    assemble(service, routes)
}

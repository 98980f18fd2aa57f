//! Writes: HTTP in, events out. Nothing is changed but by appending to the log (law 1).

mod active;
mod entities;
mod mlflow;
mod status;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use carbon_artifacts::ArtifactStore;
use carbon_core::{Clock, TenantId};
use carbon_http::{Service, assemble};
use carbon_log::EventLog;
use carbon_runtime::consume::ProcessorView;
use carbon_runtime::{Config, GenerationLog, Health, Metrics, Shutdown};
use carbon_store::Namespace;
use carbon_topology::Topology;
use carbon_webhooks::Webhooks;
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
    /// The registry; `None` in a process that does not hold it.
    pub registry: Option<RegistryParts>,
    /// The bytes of files.
    pub artifacts: ArtifactStore,
    /// Where webhooks may be, and what seals their secrets.
    pub webhooks: Webhooks,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub shutdown: Shutdown,
}

/// The registry of this process, and what its writers share.
pub struct RegistryParts {
    pub namespace: Namespace,
    /// Its fold.
    pub view: ProcessorView,
    /// Claims of names and numbers queue here, so that races are between replicas alone (law 9).
    claims: tokio::sync::Mutex<()>,
    /// Tenants that have their default experiment.
    defaults: Mutex<HashSet<TenantId>>,
    active: active::Active,
}

impl RegistryParts {
    pub fn new(namespace: Namespace, view: ProcessorView) -> Self {
        let claims = tokio::sync::Mutex::default();
        Self { namespace, view, claims, defaults: Mutex::default(), active: active::Active::default() }
    }

    fn has_default(&self, tenant: &TenantId) -> bool {
        self.defaults.lock().unwrap_or_else(PoisonError::into_inner).contains(tenant)
    }

    fn set_has_default(&self, tenant: &TenantId) {
        self.defaults.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone());
    }
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
        .merge(OpenApiRouter::from(mlflow::routes(&ui)))
        .with_state(parts);
    assemble(service, routes)
}

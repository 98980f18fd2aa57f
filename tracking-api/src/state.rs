//! What the handlers work with: the process's log, read models, artifacts and settings.

use std::sync::Arc;

use axum::extract::FromRef;
use carbon_artifacts::ArtifactStore;
use carbon_core::Clock;
use carbon_log::EventLog;
use carbon_runtime::generations::Keepers;
use carbon_runtime::{Config, GenerationLog, Health, Metrics, Processors, ReadModels, Rows, Shutdown, Supervisor};
use carbon_topology::Topology;
use carbon_webhooks::Webhooks;

use crate::active::ActiveCache;
use crate::claims::Claims;
use crate::generations::Generations;

/// The parts of the process that the service uses.
pub struct Dependencies {
    pub log: Arc<dyn EventLog>,
    pub topology: Arc<Topology>,
    pub generations: GenerationLog,
    /// The read models of this process, with the generation that each serves.
    pub keepers: Keepers,
    /// The processors of this process. The set changes when generations are switched.
    pub processors: Processors,
    /// The tasks of this process.
    pub supervisor: Supervisor,
    /// The relational read models that this process holds.
    pub read_models: ReadModels,
    /// The store of artifact files.
    pub artifacts: ArtifactStore,
    /// Checks webhook URLs, encrypts webhook secrets, and sends test deliveries.
    pub webhooks: Webhooks,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    pub shutdown: Shutdown,
    /// Serialises the claims of unique names and numbers of each tenant, so that only processes race (law 9).
    pub claims: Claims,
}

/// The generation of the registry that one request reads, and the cache that belongs to it.
#[derive(Clone)]
pub(crate) struct Registry {
    pub rows: Arc<Rows>,
    pub active: Arc<ActiveCache>,
}

/// The state of the router. A handler that needs only one part extracts that part.
#[derive(Clone)]
pub(crate) struct AppState(pub Arc<Dependencies>);

impl FromRef<AppState> for Arc<Dependencies> {
    fn from_ref(AppState(dependencies): &AppState) -> Self {
        dependencies.clone()
    }
}

impl FromRef<AppState> for Arc<dyn EventLog> {
    fn from_ref(AppState(dependencies): &AppState) -> Self {
        dependencies.log.clone()
    }
}

impl FromRef<AppState> for Arc<dyn Clock> {
    fn from_ref(AppState(dependencies): &AppState) -> Self {
        dependencies.clock.clone()
    }
}

impl FromRef<AppState> for Shutdown {
    fn from_ref(AppState(dependencies): &AppState) -> Self {
        dependencies.shutdown.clone()
    }
}

impl FromRef<AppState> for Generations {
    fn from_ref(AppState(dependencies): &AppState) -> Self {
        Self { log: dependencies.generations.clone(), keepers: dependencies.keepers.clone() }
    }
}

//! The HTTP services of a process, each a supervised task: one that ends or hangs ends the process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use carbon_core::SystemClock;
use carbon_http::Heartbeat;
use carbon_query_api::SearchIndex;
use carbon_runtime::generations::Keepers;
use carbon_runtime::{Config, GenerationLog, Policy, ReadModels, Serving};
use carbon_webhooks::Webhooks;
use tokio::net::TcpListener;

use super::assembly::Assembly;
use super::platform::{Start, artifacts};
use super::roles::{Role, Roles};
use crate::error::CliError;

/// A server whose loop does not run for this long hangs, and the process ends.
const HUNG_AFTER: Duration = Duration::from_secs(30);

/// The sockets of a process, taken before anything else is done.
pub struct Listeners {
    query: Option<TcpListener>,
    tracking: Option<TcpListener>,
    operations: Option<TcpListener>,
}

type Address = Option<SocketAddr>;

impl Listeners {
    pub async fn bind(config: &Config, roles: &Roles) -> Result<Self, CliError> {
        let open = async |wanted: bool, port: u16, variable: &str| match wanted {
            true => carbon_http::bind(&config.listen, port, variable)
                .await
                .map(Some)
                .map_err(|error| CliError::Failed(error.to_string())),
            false => Ok(None),
        };
        let (query, tracking) = (roles.has(Role::QueryApi), roles.has(Role::TrackingApi));
        Ok(Self {
            query: open(query, config.query_port, "ML_QUERY_PORT").await?,
            tracking: open(tracking, config.tracking_port, "ML_TRACKING_PORT").await?,
            operations: open(!query && !tracking, config.operations_port, "ML_OPERATIONS_PORT").await?,
        })
    }

    /// Those of query-api, tracking-api and operations.
    pub fn addresses(&self) -> Result<(Address, Address, Address), CliError> {
        let address = |listener: &Option<TcpListener>| {
            let address = listener.as_ref().map(TcpListener::local_addr).transpose();
            address.map_err(|error| CliError::Failed(error.to_string()))
        };
        Ok((address(&self.query)?, address(&self.tracking)?, address(&self.operations)?))
    }
}

/// What the services are made of.
pub struct Services<'a> {
    pub start: &'a Start,
    pub assembly: &'a Assembly,
    pub generations: GenerationLog,
    pub keepers: Keepers,
    pub read_models: ReadModels,
    pub search: Option<Arc<Serving<SearchIndex>>>,
    pub webhooks: Webhooks,
}

impl Services<'_> {
    /// Starts the servers. Until a read model is filled, a route that needs it answers with an error that names it.
    pub async fn serve(self, listeners: Listeners) -> Result<(), CliError> {
        let Services { start, assembly, .. } = &self;
        let (config, topology) = (start.config.clone(), start.topology.clone());
        let (log, shutdown) = (assembly.log.clone(), start.shutdown.clone());
        let (health, metrics) = (assembly.health.clone(), start.metrics.clone());
        if let Some(listener) = listeners.query {
            let router = carbon_query_api::router(Arc::new(carbon_query_api::Dependencies {
                log: log.clone(),
                topology: topology.clone(),
                search: self.search.clone(),
                read_models: self.read_models.clone(),
                health: health.clone(),
                metrics: metrics.clone(),
                config: config.clone(),
                shutdown: shutdown.clone(),
            }));
            supervise("query-api", assembly, listener, router);
        }
        if let Some(listener) = listeners.tracking {
            let router = carbon_tracking_api::router(Arc::new(carbon_tracking_api::Dependencies {
                log,
                topology,
                generations: self.generations.clone(),
                keepers: self.keepers.clone(),
                processors: assembly.processors.clone(),
                supervisor: assembly.supervisor.clone(),
                read_models: self.read_models.clone(),
                artifacts: artifacts(&config).await?,
                webhooks: self.webhooks.clone(),
                health: health.clone(),
                metrics: metrics.clone(),
                config,
                clock: Arc::new(SystemClock),
                shutdown,
                claims: Default::default(),
            }));
            supervise("tracking-api", assembly, listener, router);
        }
        if let Some(listener) = listeners.operations {
            let service = carbon_http::Service {
                name: "operations",
                title: "carbon-ml operations",
                description: "Health and metrics of a process that serves no API.",
                health,
                metrics,
            };
            supervise("operations", assembly, listener, carbon_http::assemble(service, Default::default()));
        }
        Ok(())
    }
}

fn supervise(name: &'static str, assembly: &Assembly, listener: TcpListener, router: axum::Router) {
    let (shutdown, heartbeat) = (assembly.shutdown().clone(), Heartbeat::default());
    watch(name, heartbeat.clone(), shutdown.clone());
    let mut listener = Some(listener);
    assembly.supervisor.spawn(name, Policy::EndProcess, move || {
        let (listener, router) = (listener.take(), router.clone());
        let (shutdown, heartbeat) = (shutdown.clone(), heartbeat.clone());
        async move {
            let listener = listener.ok_or("its socket is closed")?;
            carbon_http::serve(listener, router, shutdown, heartbeat).await;
            Ok::<(), &str>(())
        }
    });
}

/// Ends the process when a server hangs. A thread of its own: when the runtime hangs, its tasks do too.
#[allow(clippy::disallowed_methods)] // It sleeps on its own thread.
fn watch(name: &'static str, heartbeat: Heartbeat, shutdown: carbon_runtime::Shutdown) {
    let watching = move || {
        let (mut seen, mut at) = (heartbeat.count(), std::time::Instant::now());
        while !shutdown.is_cancelled() {
            std::thread::sleep(Duration::from_secs(1));
            if heartbeat.count() != seen {
                (seen, at) = (heartbeat.count(), std::time::Instant::now());
            } else if at.elapsed() >= HUNG_AFTER && !shutdown.is_cancelled() {
                tracing::error!(task = name, hung_s = HUNG_AFTER.as_secs(), "the server hangs; the process ends");
                std::process::exit(1);
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name(format!("watch-{name}")).spawn(watching) {
        tracing::warn!(%error, task = name, "nothing watches whether the server hangs");
    }
}

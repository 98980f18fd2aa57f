//! The roles of a process, wired together.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use carbon_artifacts::{ArtifactStore, StoreOptions};
use carbon_core::{GenerationId, SystemClock};
use carbon_inference::{Catalogue, EncodeQueue, EncoderOptions, Lane, ModelEntry, ModelStore, Progress, load_encoder};
use carbon_log::{DataFolder, EventLog, Group};
use carbon_processors::{Embedder, Indexer};
use carbon_read_models::catalog::Catalog;
use carbon_read_models::deadletters::DeadLetters;
use carbon_read_models::registry::Registry;
use carbon_runtime::consume::{ProcessorHandle, ProcessorView};
use carbon_runtime::{Config, GenerationLog, Health, Metrics, Shutdown};
use carbon_search::{EmbeddedIndex, GenerationSpec, HybridIndex};
use carbon_store::Postgres;
use carbon_topology::Topology;
use carbon_webhooks::Webhooks;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::open_log::{self, Instance, OpenLog};
use super::parts::{Parts, Rows};
use super::roles::{Role, Roles};
use super::watch;
use crate::error::CliError;

/// The version of the index's fold: another one is another generation.
const INDEX_VERSION: u32 = 1;

/// A running process.
pub struct Platform {
    pub query: Option<SocketAddr>,
    pub tracking: Option<SocketAddr>,
    /// Health and metrics, where no API is served.
    pub operations: Option<SocketAddr>,
    pub health: Arc<Health>,
    pub generation: Option<GenerationId>,
    /// What the log is, for people.
    pub log_shown: String,
    /// What the index had to mend when it was opened.
    pub repairs: Vec<String>,
    log: Arc<dyn EventLog>,
    index: Option<Arc<EmbeddedIndex>>,
    handles: Vec<ProcessorHandle>,
    /// The APIs, and what tells webhooks.
    servers: Vec<JoinHandle<()>>,
    shutdown: Shutdown,
    _folder: Option<DataFolder>,
}

/// What starting needs to know.
pub struct Start<'a> {
    pub config: Arc<Config>,
    pub topology: Arc<Topology>,
    pub roles: Roles,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
    /// Told how the pull of the weights goes on; `None` to fail where they are missing.
    pub pull: Option<&'a dyn Progress>,
}

pub fn failed(error: &impl carbon_core::Classify) -> CliError {
    CliError::Failed(error.to_string())
}

/// The sockets of a process, taken before anything else is done.
struct Listeners {
    query: Option<TcpListener>,
    tracking: Option<TcpListener>,
    operations: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config, roles: &Roles) -> Result<Self, CliError> {
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
}

fn address(listener: Option<&TcpListener>) -> Result<Option<SocketAddr>, CliError> {
    let address = listener.map(TcpListener::local_addr).transpose();
    address.map_err(|error| CliError::Failed(error.to_string()))
}

impl Platform {
    pub async fn start(start: Start<'_>) -> Result<Self, CliError> {
        let (config, topology, roles) = (start.config.clone(), start.topology.clone(), start.roles.clone());
        let entry = model_entry(&config, &topology)?;
        let listeners = Listeners::bind(&config, &roles).await?;
        let (query, tracking) = (address(listeners.query.as_ref())?, address(listeners.tracking.as_ref())?);
        let operations = address(listeners.operations.as_ref())?;

        let folder = if roles.hold_folder() {
            Some(DataFolder::open(config.data_dir.path()).map_err(|error| failed(&error))?)
        } else {
            None
        };
        let encodes = roles.has(Role::Embedder) || roles.hold_index();
        let models = ModelStore::new(config.data_dir.path().join("models"));
        if encodes && start.pull.is_none() && !models.missing(entry).is_empty() {
            let model = &entry.model;
            return Err(CliError::Failed(format!(
                "the weights of {model} are not here: run `carbon-ml models pull {model}`, or start without --no-pull"
            )));
        }
        let mut checks = vec!["log"];
        checks.extend(roles.read_rows().then_some("store"));
        checks.extend(roles.hold_index().then_some("index"));
        checks.extend(encodes.then_some("model"));
        let health = Arc::new(Health::new(&checks));
        let OpenLog { log, embedded } = open(&config, &topology, folder.as_ref()).await?;
        let log_shown = match &embedded {
            Some(_) => format!("embedded, opening {}", log.identity()),
            None => format!("kafka {}, cluster {}", config.kafka_brokers, log.identity()),
        };
        health.set("log", true, &log_shown);
        let opened = GenerationLog::open(log.clone(), &topology, start.shutdown.clone()).await;
        let mut generations = opened.map_err(|error| failed(&error))?;

        let copy = match (&folder, &embedded) {
            (Some(folder), None) => Some(folder.instance().map_err(|error| failed(&error))?),
            _ => None,
        };
        let mut parts = Parts {
            topology: topology.clone(),
            shutdown: start.shutdown.clone(),
            log: log.clone(),
            copy,
            views: Arc::default(),
            handles: Vec::new(),
        };
        let webhooks = webhooks(&config)?;
        let (mut projections, mut registry) = (None, None);
        let mut servers = Vec::new();
        if let Some(rows) = rows(&config, &roles, folder.as_ref()).await? {
            let catalog = parts.projection(Catalog, &rows, &mut generations).await?;
            let letters = parts.projection(DeadLetters, &rows, &mut generations).await?;
            let own = parts.projection(Registry, &rows, &mut generations).await?;
            let views = [catalog.1.clone(), letters.1, own.1.clone()];
            tokio::spawn(watch::store(log.clone(), views, health.clone()));
            if let (true, Some(folder)) = (roles.has(Role::Projections), &folder) {
                servers.push(parts.webhooks(folder, own.clone(), webhooks.clone()).await?);
            }
            projections = Some((catalog, letters.0));
            registry = Some(own);
        }

        // The APIs answer from here on; what needs the model says so until it is there.
        let (search, indexer_view) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        let deadletters = projections.as_ref().map(|(_, letters)| letters.clone());
        if let Some(listener) = listeners.query {
            let catalog = projections.map(|(catalog, _)| OnceLock::from(catalog)).unwrap_or_default();
            let router = carbon_query_api::router(Arc::new(carbon_query_api::Parts {
                log: log.clone(),
                topology: topology.clone(),
                search: search.clone(),
                catalog: Arc::new(catalog),
                registry: Arc::new(registry.clone().map(OnceLock::from).unwrap_or_default()),
                indexer: indexer_view.clone(),
                health: health.clone(),
                metrics: start.metrics.clone(),
                config: config.clone(),
                shutdown: start.shutdown.clone(),
            }));
            servers.push(serve(listener, router, start.shutdown.clone()));
        }
        if let Some(listener) = listeners.tracking {
            let artifacts = artifacts(&config).await?;
            let router = carbon_tracking_api::router(Arc::new(carbon_tracking_api::Parts {
                log: log.clone(),
                topology: topology.clone(),
                generations: generations.clone(),
                processors: parts.views.clone(),
                deadletters,
                registry: registry.map(|(rows, view)| carbon_tracking_api::RegistryParts::new(rows, view)),
                artifacts,
                webhooks,
                health: health.clone(),
                metrics: start.metrics.clone(),
                config: config.clone(),
                clock: Arc::new(SystemClock),
                shutdown: start.shutdown.clone(),
            }));
            servers.push(serve(listener, router, start.shutdown.clone()));
        }
        if let Some(listener) = listeners.operations {
            let service = carbon_http::Service {
                name: "operations",
                title: "carbon-ml operations",
                description: "Health and metrics of a process that serves no API.",
                health: health.clone(),
                metrics: start.metrics.clone(),
            };
            servers.push(serve(listener, carbon_http::assemble(service, Default::default()), start.shutdown.clone()));
        }

        let mut index = None;
        let (mut generation, mut repairs) = (None, Vec::new());
        if encodes {
            let group = Group::new("embedder", &entry.model);
            match folder.as_ref().filter(|_| roles.hold_index()) {
                Some(folder) => {
                    let made = Arc::new(EmbeddedIndex::new(folder.read_models()));
                    let model = entry.model.clone();
                    let active = generations.ensure_active("search", INDEX_VERSION, Some(&model)).await;
                    let id = active.map_err(|error| failed(&error))?.id;
                    let spec = GenerationSpec { id: id.clone(), model: model.clone(), dimension: entry.dimension };
                    // Reading the weights and opening the index each keep one core busy.
                    let (encoder, opened) =
                        tokio::join!(load_model(entry, models, start.pull, &health), made.create(&spec));
                    let encoder = encoder?;
                    opened.map_err(|error| failed(&error))?;
                    repairs = made.repairs(&id).map_err(|error| failed(&error))?;
                    let embedder = match roles.has(Role::Embedder) {
                        true => Some(embed(&mut parts, &encoder, group)?),
                        false => None,
                    };
                    let shared: Arc<dyn HybridIndex> = made.clone();
                    let indexer = parts.sink("indexer", Indexer::new(shared.clone(), spec), &id)?;
                    let _ = indexer_view.set(indexer.clone());
                    let _ = search.set(carbon_query_api::SearchParts {
                        index: shared.clone(),
                        generation: id.clone(),
                        model,
                        encoder: encoder.lane(Lane::Interactive),
                    });
                    let watched = (shared, id.clone());
                    tokio::spawn(watch::index(log.clone(), embedder, indexer, watched, health.clone()));
                    (index, generation) = (Some(made), Some(id));
                }
                None => {
                    let encoder = load_model(entry, models, start.pull, &health).await?;
                    embed(&mut parts, &encoder, group)?;
                }
            }
        }
        if let Some(embedded) = embedded {
            tokio::spawn(watch::compaction(embedded, config.compaction_interval_s, start.shutdown.clone()));
        }
        tokio::spawn(watch::gauges(log.clone(), parts.views.clone(), start.shutdown.clone()));
        let (handles, shutdown) = (parts.handles, start.shutdown.clone());
        Ok(Self {
            query,
            tracking,
            operations,
            health,
            generation,
            log_shown,
            repairs,
            log,
            index,
            handles,
            servers,
            shutdown,
            _folder: folder,
        })
    }

    /// Drains: requests under way are answered, batches under way land, and the files are closed.
    pub async fn stop(self) {
        self.shutdown.cancel();
        for server in self.servers {
            let _ = server.await;
        }
        for handle in self.handles {
            if let Err(error) = handle.join().await {
                tracing::error!(%error, "processor did not drain");
            }
        }
        if let Some(index) = &self.index
            && let Err(error) = index.close().await
        {
            tracing::error!(%error, "index was not closed cleanly");
        }
        self.log.close().await;
    }
}

/// Where this process has the relational read models, if it has them.
async fn rows<'a>(
    config: &Config,
    roles: &Roles,
    folder: Option<&'a DataFolder>,
) -> Result<Option<Rows<'a>>, CliError> {
    match (roles.read_rows(), folder) {
        (true, _) if config.shares_rows() => {
            let database = Postgres::open(config.backend_dsn.expose()).await;
            let database = database.map_err(|error| CliError::Failed(format!("ML_MLFLOW_BACKEND_DSN: {error}")))?;
            Ok(Some(Rows::Postgres { database, folds: roles.has(Role::Projections), shared: config.on_kafka() }))
        }
        (true, Some(folder)) => Ok(Some(Rows::Files(folder))),
        _ => Ok(None),
    }
}

async fn open(config: &Config, topology: &Topology, folder: Option<&DataFolder>) -> Result<OpenLog, CliError> {
    match (config.on_kafka(), folder) {
        (true, Some(folder)) => {
            let instance = folder.instance().map_err(|error| failed(&error))?;
            open_log::kafka(config, topology, Instance::Of(instance)).await
        }
        // Several of these may share a data folder.
        (true, None) => open_log::kafka(config, topology, Instance::Passing).await,
        (false, Some(folder)) => open_log::embedded(folder, topology).await,
        (false, None) => Err(CliError::Failed("a process without a data folder has no log".into())),
    }
}

/// Where the bytes of files lie.
pub async fn artifacts(config: &Config) -> Result<ArtifactStore, CliError> {
    let opened = match config.artifact_uri.as_str() {
        "" => ArtifactStore::local(config.data_dir.path().join("artifacts")),
        uri => {
            let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let options = StoreOptions {
                endpoint: set(&config.minio_endpoint),
                access_key: set(config.minio_access_key.expose()),
                secret_key: set(config.minio_secret_key.expose()),
                region: None,
            };
            ArtifactStore::open(uri, &options).await
        }
    };
    opened.map_err(|error| failed(&error))
}

/// How webhooks are reached. One attempt takes ten seconds at the most.
fn webhooks(config: &Config) -> Result<Webhooks, CliError> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    Webhooks::new(config.secret_key.expose(), config.webhooks_may_be_private(), TIMEOUT).map_err(|error| failed(&error))
}

fn embed(parts: &mut Parts, encoder: &Arc<EncodeQueue>, group: Group) -> Result<ProcessorView, CliError> {
    parts.stage("embedder", Embedder::new(encoder.lane(Lane::Bulk), group.clone()), group)
}

fn serve(listener: TcpListener, router: axum::Router, shutdown: Shutdown) -> JoinHandle<()> {
    tokio::spawn(carbon_http::serve(listener, router, shutdown))
}

/// The model that the configuration names, or else the topology.
fn model_entry(config: &Config, topology: &Topology) -> Result<&'static ModelEntry, CliError> {
    let declared = topology.read_models.get("search").and_then(|search| search.model.as_deref());
    let name = if config.embedding_model.is_empty() { declared.unwrap_or_default() } else { &config.embedding_model };
    Catalogue::builtin().find(name).map_err(|error| failed(&error))
}

async fn load_model(
    entry: &ModelEntry,
    store: ModelStore,
    pull: Option<&dyn Progress>,
    health: &Health,
) -> Result<Arc<EncodeQueue>, CliError> {
    if let (false, Some(progress)) = (store.missing(entry).is_empty(), pull) {
        health.set("model", false, format!("pulling {}", entry.model));
        store.pull(entry, progress).await.map_err(|error| failed(&error))?;
    }
    health.set("model", false, format!("loading {}", entry.model));
    let encoder = load_encoder(entry, &store, EncoderOptions::default()).await.map_err(|error| failed(&error))?;
    health.set("model", true, entry.model.to_string());
    let labels = [("model", entry.model.name().to_owned()), ("version", entry.model.version().to_owned())];
    metrics::gauge!("model_version_loaded", &labels).set(1.0);
    Ok(encoder)
}

//! The roles of a process, assembled from the topology and the list of read models.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use carbon_artifacts::{ArtifactStore, StoreOptions};
use carbon_core::GenerationId;
use carbon_inference::{Catalogue, ModelEntry, ModelStore, Progress};
use carbon_log::{DataFolder, EventLog, Group};
use carbon_processors::{Pace, WebhookParts, WebhookSink};
use carbon_query_api::SearchIndex;
use carbon_read_models::{Projection, Visitor};
use carbon_runtime::consume::{Processors, spawn_shared_sink};
use carbon_runtime::generations::{Keeper, Keepers, SharedStatus};
use carbon_runtime::{Config, GenerationLog, Health, Metrics, Policy, ReadModels, Rows, Serving, Shutdown, Supervisor};
use carbon_store::Postgres;
use carbon_topology::{CutOver, Topology};
use carbon_webhooks::Webhooks;
use futures::future::BoxFuture;

use super::assembly::Assembly;
use super::embedders::Embedders;
use super::models::Models;
use super::open_log::{self, Instance, OpenLog};
use super::read_models::{self, Index, IndexParts, Place, Relational, SEARCH};
use super::roles::{Role, Roles};
use super::{probes, servers, watch};
use crate::error::CliError;

/// How long the tasks may take to end: requests under way take 10 s at most.
const DRAIN: Duration = Duration::from_secs(15);

/// A running process.
pub struct Platform {
    pub query: Option<SocketAddr>,
    pub tracking: Option<SocketAddr>,
    /// Health and metrics, where no API is served.
    pub operations: Option<SocketAddr>,
    pub health: Arc<Health>,
    /// What the log is, for people.
    pub log_shown: String,
    pub supervisor: Supervisor,
    pub keepers: Keepers,
    log: Arc<dyn EventLog>,
    /// Closes what the processors write to, once they have stopped.
    closers: Vec<BoxFuture<'static, ()>>,
    _folder: Option<DataFolder>,
}

/// What starting needs to know.
pub struct Start {
    pub config: Arc<Config>,
    pub topology: Arc<Topology>,
    pub roles: Roles,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
    /// Shows the progress of a pull of weights; `None`: missing weights are an error.
    pub pull: Option<Arc<dyn Progress>>,
}

pub fn failed(error: &impl carbon_core::Classify) -> CliError {
    CliError::Failed(error.to_string())
}

/// Starts a keeper for each relational read model of the list.
struct Keep<'a> {
    assembly: &'a Assembly,
    place: Place,
    generations: &'a GenerationLog,
    read_models: ReadModels,
    keepers: BTreeMap<String, SharedStatus>,
    closers: Vec<BoxFuture<'static, ()>>,
}

impl Keep<'_> {
    fn cut_over(&self, read_model: &str) -> CutOver {
        self.assembly.topology.read_models.get(read_model).map(|declared| declared.cut_over).unwrap_or_default()
    }
}

impl Visitor for Keep<'_> {
    fn visit<P: Projection>(&mut self, projection: P) {
        let relational = Relational {
            projection,
            place: self.place.clone(),
            assembly: self.assembly.clone(),
            handle: self.read_models.add(P::NAME),
            cut_over: self.cut_over(P::NAME),
        };
        let (status, keeper) = Keeper::start(relational, self.generations.clone(), &self.assembly.supervisor);
        self.keepers.insert(P::NAME.to_owned(), status);
        self.closers.push(Box::pin(async move { keeper.lock().await.close().await }));
    }
}

impl Platform {
    pub async fn start(start: Start) -> Result<Self, CliError> {
        let (config, topology, roles) = (start.config.clone(), start.topology.clone(), start.roles.clone());
        read_models::check(&topology)?;
        let entry = model_entry(&config, &topology)?;
        let listeners = servers::Listeners::bind(&config, &roles).await?;
        let (query, tracking, operations) = listeners.addresses()?;
        let folder = match roles.hold_folder() {
            true => Some(DataFolder::open(config.data_dir.path()).map_err(|error| failed(&error))?),
            false => None,
        };
        let store = ModelStore::new(config.data_dir.path().join("models"));
        let encodes = roles.has(Role::Embedder) || roles.hold_index();
        if encodes && start.pull.is_none() && !store.missing(entry).is_empty() {
            let model = &entry.model;
            return Err(CliError::Failed(format!(
                "the weights of {model} are not here: run `carbon-ml models pull {model}`, or start without --no-pull"
            )));
        }
        let health = Arc::new(Health::new(&["log"]));
        let OpenLog { log, embedded } = open(&config, &topology, folder.as_ref()).await?;
        let log_shown = match &embedded {
            Some(_) => format!("embedded, opening {}", log.identity()),
            None => format!("kafka {}, cluster {}", config.kafka_brokers, log.identity()),
        };
        let supervisor = Supervisor::new(start.shutdown.clone());
        let copy = match (&folder, &embedded) {
            (Some(folder), None) => Some(folder.instance().map_err(|error| failed(&error))?),
            _ => None,
        };
        let processors = Processors::default();
        let assembly = Assembly {
            topology: topology.clone(),
            supervisor: supervisor.clone(),
            log: log.clone(),
            copy,
            processors,
            health: health.clone(),
        };
        watch::log(&assembly, &log_shown);
        let generations = GenerationLog::start(log.clone(), &topology, &supervisor).map_err(|error| failed(&error))?;
        let models = Models::new(store, start.pull.clone(), health.clone());
        let mut kept = Kept::default();
        if let Some(place) = place(&config, &roles, folder.as_ref()).await? {
            kept.relational(&assembly, place, &generations);
        }
        let search = folder.as_ref().filter(|_| roles.hold_index());
        let search = search.map(|folder| kept.index(&assembly, folder, &models, &generations, (entry, &roles)));
        if roles.has(Role::Embedder) {
            let embedders = Embedders::start(assembly.clone(), models, generations.clone(), entry.model.clone());
            kept.closers.push(Box::pin(async move { embedders.close().await }));
        }
        let webhooks = webhooks(&config)?;
        if let (true, Some(folder), Some(registry)) =
            (roles.has(Role::Projections), &folder, kept.read_models.get("registry"))
        {
            let closer = deliver(&assembly, folder, registry.clone(), webhooks.clone()).await?;
            kept.closers.insert(0, closer);
        }
        let keepers: Keepers = Arc::new(kept.keepers);
        probes::add(&health, &assembly, &keepers, &roles);
        let parts = servers::Services {
            start: &start,
            assembly: &assembly,
            generations,
            keepers: keepers.clone(),
            read_models: kept.read_models,
            search,
            webhooks,
        };
        parts.serve(listeners).await?;
        if let Some(embedded) = embedded {
            watch::compaction(&assembly, embedded, config.compaction_interval_s);
        }
        watch::gauges(&assembly);
        let closers = kept.closers;
        Ok(Self { query, tracking, operations, health, log_shown, supervisor, keepers, log, closers, _folder: folder })
    }

    /// The generation of the search index that is served.
    pub fn generation(&self) -> Option<GenerationId> {
        self.keepers.get(SEARCH)?.now().served
    }

    /// Drains: requests under way are answered, batches under way land, and the files are closed.
    pub async fn stop(self) {
        self.supervisor.shutdown().cancel();
        self.supervisor.join(DRAIN).await;
        for closer in self.closers {
            closer.await;
        }
        self.log.close().await;
    }
}

/// The read models of the process, while it is assembled.
#[derive(Default)]
struct Kept {
    read_models: ReadModels,
    keepers: BTreeMap<String, SharedStatus>,
    closers: Vec<BoxFuture<'static, ()>>,
}

impl Kept {
    fn relational(&mut self, assembly: &Assembly, place: Place, generations: &GenerationLog) {
        let (read_models, keepers, closers) = Default::default();
        let mut keep = Keep { assembly, place, generations, read_models, keepers, closers };
        carbon_read_models::list(&mut keep);
        self.read_models = keep.read_models;
        self.keepers.extend(keep.keepers);
        self.closers.extend(keep.closers);
    }

    fn index(
        &mut self,
        assembly: &Assembly,
        folder: &DataFolder,
        models: &Models,
        generations: &GenerationLog,
        (entry, roles): (&ModelEntry, &Roles),
    ) -> Arc<Serving<SearchIndex>> {
        let handle = Arc::new(Serving::new(SEARCH));
        let declared = assembly.topology.read_models.get(SEARCH);
        let index = Index::new(IndexParts {
            root: folder.read_models(),
            models: models.clone(),
            assembly: assembly.clone(),
            handle: handle.clone(),
            cut_over: declared.map(|declared| declared.cut_over).unwrap_or_default(),
            configured: entry.model.clone(),
            embeds: roles.has(Role::Embedder),
        });
        let (status, keeper) = Keeper::start(index, generations.clone(), &assembly.supervisor);
        self.keepers.insert(SEARCH.to_owned(), status);
        self.closers.push(Box::pin(async move { keeper.lock().await.close().await }));
        handle
    }
}

/// Starts what notifies webhooks. All processes share one group: nothing is delivered twice.
async fn deliver(
    assembly: &Assembly,
    folder: &DataFolder,
    registry: Arc<Serving<Rows>>,
    webhooks: Webhooks,
) -> Result<BoxFuture<'static, ()>, CliError> {
    let options = assembly.options("webhooks", Group::new("webhooks", "deliveries"), None);
    let options = options.map_err(|error| failed(&error))?;
    let (log, group, topics) = (assembly.log.clone(), options.group.clone(), options.topics.clone());
    let parts = WebhookParts { log, group, topics, registry };
    let sink = WebhookSink::open(&folder.webhooks_file(), parts).await.map_err(|error| failed(&error))?;
    let deliveries = Arc::new(sink.deliveries(webhooks, Pace::default()));
    let handle = spawn_shared_sink(sink, options);
    assembly.processors.add(handle.view());
    let shutdown = assembly.shutdown().clone();
    assembly.supervisor.spawn("webhook deliveries", Policy::Restart, move || {
        let (deliveries, shutdown) = (deliveries.clone(), shutdown.clone());
        async move {
            deliveries.run(shutdown).await;
            Ok::<(), Infallible>(())
        }
    });
    let assembly = assembly.clone();
    Ok(Box::pin(async move { assembly.stop(handle).await }))
}

/// Where this process has the relational read models, if it has them.
async fn place(config: &Config, roles: &Roles, folder: Option<&DataFolder>) -> Result<Option<Place>, CliError> {
    match (roles.read_rows(), folder) {
        (true, _) if config.shares_rows() => {
            let database = Postgres::open(config.backend_dsn.expose()).await;
            let database = database.map_err(|error| CliError::Failed(format!("ML_MLFLOW_BACKEND_DSN: {error}")))?;
            let (folds, shared) = (roles.has(Role::Projections), config.on_kafka());
            Ok(Some(Place::Postgres { database, folds, shared }))
        }
        (true, Some(folder)) => Ok(Some(Place::Files(folder.read_models()))),
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

/// The model that the configuration names, or else the topology.
fn model_entry(config: &Config, topology: &Topology) -> Result<&'static ModelEntry, CliError> {
    let declared = topology.read_models.get("search").and_then(|search| search.model.as_deref());
    let name = if config.embedding_model.is_empty() { declared.unwrap_or_default() } else { &config.embedding_model };
    Catalogue::builtin().find(name).map_err(|error| failed(&error))
}

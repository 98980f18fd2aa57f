//! Every role in one process, on embedded parts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use carbon_core::{Classify as _, Clock as _, GenerationId, SystemClock};
use carbon_inference::{Catalogue, EncodeQueue, EncoderOptions, Lane, ModelEntry, ModelStore, Progress, load_encoder};
use carbon_log::{DataFolder, EmbeddedLog, EventLog, Group};
use carbon_processors::{Embedder, Indexer, ProjectionSink};
use carbon_read_models::Projection;
use carbon_read_models::catalog::Catalog;
use carbon_read_models::deadletters::DeadLetters;
use carbon_runtime::consume::{Options, ProcessorHandle, ProcessorView, spawn_sink, spawn_stage};
use carbon_runtime::{Config, GenerationLog, Health, Metrics, Shutdown};
use carbon_search::{EmbeddedIndex, GenerationSpec, HybridIndex};
use carbon_store::Namespace;
use carbon_topology::Topology;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::error::CliError;

/// The version of the index's fold: another one is another generation.
const INDEX_VERSION: u32 = 1;

/// A running platform.
pub struct Platform {
    pub query: SocketAddr,
    pub tracking: SocketAddr,
    pub health: Arc<Health>,
    pub generation: GenerationId,
    /// What the index had to mend when it was opened.
    pub repairs: Vec<String>,
    log: Arc<EmbeddedLog>,
    index: Arc<EmbeddedIndex>,
    handles: Vec<ProcessorHandle>,
    servers: Vec<JoinHandle<()>>,
    shutdown: Shutdown,
    _folder: DataFolder,
}

/// What starting needs to know.
pub struct Start<'a> {
    pub config: Arc<Config>,
    pub topology: Arc<Topology>,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
    /// Told how the pull of the weights goes on; `None` to fail where they are missing.
    pub pull: Option<&'a dyn Progress>,
}

/// What the roles share while they are started.
struct Parts<'a> {
    start: &'a Start<'a>,
    log: Arc<dyn EventLog>,
    views: Arc<Mutex<Vec<ProcessorView>>>,
    handles: Vec<ProcessorHandle>,
}

fn failed(error: &impl carbon_core::Classify) -> CliError {
    CliError::Failed(error.to_string())
}

impl Platform {
    pub async fn start(start: Start<'_>) -> Result<Self, CliError> {
        let (config, topology) = (start.config.clone(), start.topology.clone());
        let entry = model_entry(&config, &topology)?;
        let query_listener = bind(&config.listen, config.query_port, "ML_QUERY_PORT").await?;
        let tracking_listener = bind(&config.listen, config.tracking_port, "ML_TRACKING_PORT").await?;
        let (query, tracking) = (local(&query_listener)?, local(&tracking_listener)?);

        let folder = DataFolder::open(config.data_dir.path()).map_err(|error| failed(&error))?;
        let models = ModelStore::new(folder.models());
        if start.pull.is_none() && !models.missing(entry).is_empty() {
            let model = &entry.model;
            return Err(CliError::Failed(format!(
                "the weights of {model} are not here: run `carbon-ml models pull {model}`, or start without --no-pull"
            )));
        }
        let health = Arc::new(Health::new(&["log", "store", "index", "model"]));
        let embedded = Arc::new(EmbeddedLog::open(&folder).await.map_err(|error| failed(&error))?);
        let log: Arc<dyn EventLog> = embedded.clone();
        log.ensure_topics(&topology.specs()).await.map_err(|error| failed(&error))?;
        health.set("log", true, format!("embedded, opening {}", log.identity()));
        let opened = GenerationLog::open(log.clone(), &topology, start.shutdown.clone()).await;
        let mut generations = opened.map_err(|error| failed(&error))?;

        let mut parts = Parts { start: &start, log: log.clone(), views: Arc::default(), handles: Vec::new() };
        let (catalog, catalog_view) = parts.projection(Catalog, &folder, &mut generations).await?;
        let (deadletters, letters_view) = parts.projection(DeadLetters, &folder, &mut generations).await?;
        tokio::spawn(watch_store(log.clone(), [catalog_view.clone(), letters_view], health.clone()));

        // Both APIs answer from here on; what needs the model says so until it is there.
        let (search, indexer_view) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        let query_router = carbon_query_api::router(Arc::new(carbon_query_api::Parts {
            log: log.clone(),
            topology: topology.clone(),
            search: search.clone(),
            catalog: Arc::new(OnceLock::from((catalog, catalog_view))),
            indexer: indexer_view.clone(),
            health: health.clone(),
            metrics: start.metrics.clone(),
            config: config.clone(),
            shutdown: start.shutdown.clone(),
        }));
        let tracking_router = carbon_tracking_api::router(Arc::new(carbon_tracking_api::Parts {
            log: log.clone(),
            topology: topology.clone(),
            generations: generations.clone(),
            processors: parts.views.clone(),
            deadletters,
            health: health.clone(),
            metrics: start.metrics.clone(),
            config: config.clone(),
            clock: Arc::new(SystemClock),
            shutdown: start.shutdown.clone(),
        }));
        let servers = vec![
            serve(query_listener, query_router, start.shutdown.clone()),
            serve(tracking_listener, tracking_router, start.shutdown.clone()),
        ];

        let index = Arc::new(EmbeddedIndex::new(folder.read_models()));
        let model = entry.model.clone();
        let active = generations.ensure_active("search", INDEX_VERSION, Some(&model)).await;
        let generation = active.map_err(|error| failed(&error))?.id;
        let spec = GenerationSpec { id: generation.clone(), model: model.clone(), dimension: entry.dimension };
        // Reading the weights and opening the index each keep one core busy.
        let (encoder, made) = tokio::join!(load_model(entry, models, start.pull, &health), index.create(&spec));
        let encoder = encoder?;
        made.map_err(|error| failed(&error))?;
        let repairs = index.repairs(&generation).map_err(|error| failed(&error))?;

        let embedder = Embedder::new(encoder.lane(Lane::Bulk), Group::new("embedder", &model));
        let embedder = parts.stage("embedder", embedder, Group::new("embedder", &model))?;
        let shared: Arc<dyn HybridIndex> = index.clone();
        let indexer = Indexer::new(shared.clone(), spec);
        let indexer = parts.sink("indexer", indexer, Group::new("indexer", &generation))?;
        let _ = indexer_view.set(indexer.clone());
        let _ = search.set(carbon_query_api::SearchParts {
            index: shared,
            generation: generation.clone(),
            model,
            encoder: encoder.lane(Lane::Interactive),
        });
        let watched = (index.clone() as Arc<dyn HybridIndex>, generation.clone());
        tokio::spawn(watch_index(log.clone(), embedder, indexer, watched, health.clone()));
        tokio::spawn(compaction(embedded.clone(), config.compaction_interval_s, start.shutdown.clone()));

        tokio::spawn(gauges(log.clone(), parts.views.clone(), start.shutdown.clone()));

        let handles = parts.handles;
        let shutdown = start.shutdown.clone();
        Ok(Self {
            query,
            tracking,
            health,
            generation,
            repairs,
            log: embedded,
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
        if let Err(error) = self.index.close().await {
            tracing::error!(%error, "index was not closed cleanly");
        }
        self.log.close().await;
    }
}

impl Parts<'_> {
    /// Opens the active generation of a projection, and folds into it.
    async fn projection<P: Projection>(
        &mut self,
        projection: P,
        folder: &DataFolder,
        generations: &mut GenerationLog,
    ) -> Result<(Namespace, ProcessorView), CliError> {
        let active = generations.ensure_active(P::NAME, P::VERSION, None).await;
        let generation = active.map_err(|error| failed(&error))?.id;
        let path = folder.read_models().join(generation.as_str());
        let sink = ProjectionSink::open(projection, path).await.map_err(|error| failed(&error))?;
        let namespace = sink.namespace().clone();
        let owner = self.start.topology.owner(P::NAME).map(|processor| processor.name.clone());
        let name = owner.ok_or_else(|| CliError::Failed(format!("the topology has no processor for {}", P::NAME)))?;
        let view = self.sink(&name, sink, Group::new(&name, &generation))?;
        Ok((namespace, view))
    }

    fn sink<S: carbon_runtime::consume::Sink>(
        &mut self,
        name: &str,
        sink: S,
        group: Group,
    ) -> Result<ProcessorView, CliError> {
        let options = self.options(name, group)?;
        Ok(self.keep(spawn_sink(sink, options)))
    }

    fn stage<S: carbon_runtime::consume::Stage>(
        &mut self,
        name: &str,
        stage: S,
        group: Group,
    ) -> Result<ProcessorView, CliError> {
        let options = self.options(name, group)?;
        Ok(self.keep(spawn_stage(stage, options)))
    }

    fn keep(&mut self, handle: ProcessorHandle) -> ProcessorView {
        let view = handle.view();
        self.views.lock().unwrap_or_else(PoisonError::into_inner).push(view.clone());
        self.handles.push(handle);
        view
    }

    fn options(&self, name: &str, group: Group) -> Result<Options, CliError> {
        let topology = &self.start.topology;
        let processor = topology.processors.get(name);
        let processor = processor.ok_or_else(|| CliError::Failed(format!("the topology has no processor {name}")))?;
        let topic = processor.consumes.first().and_then(|topic| topology.topics.get(topic.as_str()));
        let topic = topic.ok_or_else(|| CliError::Failed(format!("processor {name} consumes nothing")))?;
        Ok(Options {
            name: name.to_owned(),
            group,
            topic: topic.clone(),
            batch: processor.batch,
            log: self.log.clone(),
            shutdown: self.start.shutdown.clone(),
        })
    }
}

async fn bind(host: &str, port: u16, variable: &str) -> Result<TcpListener, CliError> {
    carbon_http::bind(host, port, variable).await.map_err(|error| CliError::Failed(error.to_string()))
}

fn local(listener: &TcpListener) -> Result<SocketAddr, CliError> {
    listener.local_addr().map_err(|error| CliError::Failed(error.to_string()))
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

/// The store is ready when its read models have folded what the log held at the start.
async fn watch_store(log: Arc<dyn EventLog>, views: [ProcessorView; 2], health: Arc<Health>) {
    for view in &views {
        catch_up(&log, view, &health, "store").await;
    }
    health.set("store", true, "read models follow the log");
}

/// The index is ready when queries see what the log held at the start.
async fn watch_index(
    log: Arc<dyn EventLog>,
    embedder: ProcessorView,
    indexer: ProcessorView,
    (index, generation): (Arc<dyn HybridIndex>, GenerationId),
    health: Arc<Health>,
) {
    catch_up(&log, &embedder, &health, "index").await;
    catch_up(&log, &indexer, &health, "index").await;
    // What is committed is seen a moment later, with the next view.
    if let Ok(sources) = index.source_positions(&generation).await {
        let far = tokio::time::Instant::now() + Duration::from_secs(3600);
        if let Err(error) = index.reached(&generation, &sources, far).await {
            tracing::error!(%error, "the index cannot be asked how far it is");
        }
    }
    health.set("index", true, "follows the log");
}

/// Waits until a processor has reached the end that its topic has now, and says how far it is meanwhile.
async fn catch_up(log: &Arc<dyn EventLog>, view: &ProcessorView, health: &Health, part: &str) {
    let Ok(ends) = log.ends(&view.topic).await else { return };
    while !view.reached(&ends, Duration::from_millis(500)).await {
        if view.progress.has_changed().is_err() {
            return;
        }
        let now = view.progress.borrow().clone();
        let left: u64 = ends.iter().map(|(at, end)| now.lag_of(at, end)).sum();
        health.set(part, false, format!("{}: {left} records to go", view.name));
    }
}

/// Keeps the gauges of lag and age current for whoever scrapes them.
async fn gauges(log: Arc<dyn EventLog>, views: Arc<Mutex<Vec<ProcessorView>>>, shutdown: Shutdown) {
    const EVERY: Duration = Duration::from_secs(5);
    while tokio::time::timeout(EVERY, shutdown.cancelled()).await.is_err() {
        let views = views.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for view in views {
            match view.lag(&*log, SystemClock.now()).await {
                Ok(lag) => {
                    metrics::gauge!("processor_lag", "processor" => view.name.clone()).set(lag.records as f64);
                    let age = lag.oldest_event_age_s.unwrap_or(0.0);
                    metrics::gauge!("processor_event_age_seconds", "processor" => view.name).set(age);
                }
                Err(error) => tracing::warn!(processor = %view.name, %error, "lag cannot be told"),
            }
        }
    }
}

async fn compaction(log: Arc<EmbeddedLog>, every_s: u64, shutdown: Shutdown) {
    if every_s == 0 {
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(every_s));
    ticks.tick().await;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match log.compact().await {
            Ok(report) => {
                let (superseded, nulls, expired) = (report.superseded, report.nulls, report.expired);
                tracing::info!(superseded, nulls, expired, "log compacted");
            }
            Err(error) => tracing::error!(%error, fault = ?error.fault(), "log could not be compacted"),
        }
    }
}

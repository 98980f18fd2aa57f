//! What the handlers work with: the process's log, topology and read models, and the snapshot of the search index.

use std::sync::Arc;

use axum::extract::FromRef;
use carbon_core::{GenerationId, ModelRef};
use carbon_http::Problem;
use carbon_inference::Encoder;
use carbon_log::{EventLog, Group};
use carbon_runtime::consume::ProcessorView;
use carbon_runtime::{Config, Health, Metrics, ReadModels, Rows, Serving, Shutdown};
use carbon_search::HybridIndex;
use carbon_topology::Topology;

use crate::search::Defaults;
use crate::vectors::QueryVectors;

/// The active generation of the search index, with the encoder of its model.
pub struct SearchIndex {
    pub index: Arc<dyn HybridIndex>,
    pub generation: GenerationId,
    pub model: ModelRef,
    /// The encoder of the generation's model (law 8).
    pub encoder: Arc<dyn Encoder>,
    /// The processor that fills the generation.
    pub indexer: ProcessorView,
    /// The consumer group of the embedder that emits the generation's embeddings, in any process.
    pub embedder: Group,
    pub(crate) vectors: QueryVectors,
}

impl SearchIndex {
    pub fn new(
        index: Arc<dyn HybridIndex>,
        (generation, model): (GenerationId, ModelRef),
        encoder: Arc<dyn Encoder>,
        indexer: ProcessorView,
        embedder: Group,
    ) -> Self {
        Self { index, generation, model, encoder, indexer, embedder, vectors: QueryVectors::new() }
    }
}

/// The parts of the process that the service uses.
pub struct Dependencies {
    pub log: Arc<dyn EventLog>,
    pub topology: Arc<Topology>,
    /// The serving handle of the search index; `None` in a process that does not hold it.
    pub search: Option<Arc<Serving<SearchIndex>>>,
    pub read_models: ReadModels,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub config: Arc<Config>,
    pub shutdown: Shutdown,
}

/// The state of the router. A handler that needs only one part extracts that part.
#[derive(Clone)]
pub(crate) struct AppState {
    pub dependencies: Arc<Dependencies>,
    pub defaults: Defaults,
}

impl AppState {
    pub fn new(dependencies: Arc<Dependencies>) -> Self {
        let defaults = Defaults::of(&dependencies.config);
        Self { dependencies, defaults }
    }

    /// Returns the snapshot of a relational read model for one request.
    pub fn rows(&self, read_model: &str) -> Result<Arc<Rows>, Problem> {
        Ok(self.dependencies.read_models.get(read_model).ok_or_else(|| not_held(read_model))?.get()?)
    }
}

/// The serving handle of the search index; empty in a process that does not hold it.
#[derive(Clone)]
pub(crate) struct SearchHandle(Option<Arc<Serving<SearchIndex>>>);

impl SearchHandle {
    /// Returns the snapshot of the search index for one request.
    pub fn get(&self) -> Result<Arc<SearchIndex>, Problem> {
        let search = self.0.as_ref().ok_or_else(|| not_held("search index"))?.get()?;
        // Law 8: the generation's own model embeds the query.
        if *search.encoder.model() != search.model {
            let (encoder, model) = (search.encoder.model(), &search.model);
            return Err(Problem::internal(format!("the encoder's model is {encoder}, the generation's is {model}")));
        }
        Ok(search)
    }
}

fn not_held(what: &str) -> Problem {
    Problem::unavailable(format!("this process does not hold the {what}; /ready lists the parts that it runs"))
}

impl FromRef<AppState> for SearchHandle {
    fn from_ref(app: &AppState) -> Self {
        Self(app.dependencies.search.clone())
    }
}

impl FromRef<AppState> for Arc<dyn EventLog> {
    fn from_ref(app: &AppState) -> Self {
        app.dependencies.log.clone()
    }
}

impl FromRef<AppState> for Arc<Topology> {
    fn from_ref(app: &AppState) -> Self {
        app.dependencies.topology.clone()
    }
}

impl FromRef<AppState> for Arc<Config> {
    fn from_ref(app: &AppState) -> Self {
        app.dependencies.config.clone()
    }
}

impl FromRef<AppState> for Shutdown {
    fn from_ref(app: &AppState) -> Self {
        app.dependencies.shutdown.clone()
    }
}

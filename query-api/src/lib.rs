//! Reads: search, embeddings, entities and events. This service changes nothing.

mod embed;
mod entities;
mod events;
mod failure;
mod models;
mod openai;
mod search;
mod stats;
mod vectors;
mod wait;

use std::sync::Arc;

use carbon_core::{GenerationId, ModelRef};
use carbon_http::{Problem, Service, assemble};
use carbon_inference::Encoder;
use carbon_log::{EventLog, Group};
use carbon_runtime::consume::ProcessorView;
use carbon_runtime::{Config, Health, Metrics, ReadModels, Rows, Serving, Shutdown};
use carbon_search::HybridIndex;
use carbon_topology::Topology;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use vectors::QueryVectors;

/// What the active generation of the search index consists of.
pub struct SearchIndex {
    pub index: Arc<dyn HybridIndex>,
    pub generation: GenerationId,
    pub model: ModelRef,
    /// The encoder of the generation's own model (law 8).
    pub encoder: Arc<dyn Encoder>,
    /// The processor that fills the generation.
    pub indexer: ProcessorView,
    /// The group that makes its embeddings, in whichever process.
    pub embedder: Group,
    vectors: QueryVectors,
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

/// What the service is made of.
pub struct Parts {
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

/// The parts, and what is made once beside them.
struct App {
    parts: Arc<Parts>,
    defaults: search::Defaults,
}

impl App {
    /// The snapshot of the search index for one request.
    fn search(&self) -> Result<Arc<SearchIndex>, Problem> {
        let search = self.parts.search.as_ref().ok_or_else(|| not_held("search index"))?.get()?;
        // Law 8: a query is never embedded by another model than its generation's.
        if *search.encoder.model() != search.model {
            let (encoder, model) = (search.encoder.model(), &search.model);
            return Err(Problem::internal(format!("the encoder is of {encoder}, the generation of {model}")));
        }
        Ok(search)
    }

    /// The snapshot of a relational read model for one request.
    fn rows(&self, read_model: &str) -> Result<Arc<Rows>, Problem> {
        Ok(self.parts.read_models.get(read_model).ok_or_else(|| not_held(read_model))?.get()?)
    }
}

fn not_held(what: &str) -> Problem {
    Problem::unavailable(format!("this process does not hold the {what}; /ready says what it runs"))
}

/// The whole service.
pub fn router(parts: Arc<Parts>) -> axum::Router {
    let service = Service {
        name: "query-api",
        title: "carbon-ml query-api",
        description: "Reads: search, embeddings, entities and events.",
        health: parts.health.clone(),
        metrics: parts.metrics.clone(),
    };
    let defaults = search::Defaults::of(&parts.config);
    let app = Arc::new(App { parts, defaults });
    let routes = OpenApiRouter::new()
        .routes(routes!(search::post_search))
        .routes(routes!(embed::post_embed))
        .routes(routes!(openai::post_embeddings))
        .routes(routes!(entities::get_entity))
        .routes(routes!(entities::get_similar))
        .routes(routes!(models::get_model))
        .routes(routes!(models::get_history))
        .routes(routes!(stats::get_stats))
        .routes(routes!(events::get_events))
        .with_state(app);
    assemble(service, routes)
}

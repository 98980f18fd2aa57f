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

use std::sync::{Arc, OnceLock};

use carbon_core::{GenerationId, ModelRef};
use carbon_http::{Problem, Service, assemble};
use carbon_inference::Encoder;
use carbon_log::EventLog;
use carbon_runtime::consume::ProcessorView;
use carbon_runtime::{Config, Health, Metrics, Shutdown};
use carbon_search::HybridIndex;
use carbon_store::Namespace;
use carbon_topology::Topology;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use vectors::QueryVectors;

/// A generation of the index, with the encoder of its own model (law 8).
pub struct SearchParts {
    pub index: Arc<dyn HybridIndex>,
    pub generation: GenerationId,
    pub model: ModelRef,
    pub encoder: Arc<dyn Encoder>,
}

/// What the service is made of. What is not there yet is answered with 503 until it is set.
pub struct Parts {
    pub log: Arc<dyn EventLog>,
    pub topology: Arc<Topology>,
    pub search: Arc<OnceLock<SearchParts>>,
    pub catalog: Arc<OnceLock<(Namespace, ProcessorView)>>,
    pub registry: Arc<OnceLock<(Namespace, ProcessorView)>>,
    pub indexer: Arc<OnceLock<ProcessorView>>,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub config: Arc<Config>,
    pub shutdown: Shutdown,
}

/// The parts, and what is made once beside them.
struct App {
    parts: Arc<Parts>,
    defaults: search::Defaults,
    vectors: QueryVectors,
}

impl App {
    fn search(&self) -> Result<&SearchParts, Problem> {
        let search = self.parts.search.get();
        let search =
            search.ok_or_else(|| Problem::unavailable("the index or its model is not loaded yet; /ready says more"))?;
        // Law 8: whatever else was wired, a query is never embedded by another model.
        if *search.encoder.model() != search.model {
            let (encoder, model) = (search.encoder.model(), &search.model);
            return Err(Problem::internal(format!("the encoder is of {encoder}, the generation of {model}")));
        }
        Ok(search)
    }
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
    let app = Arc::new(App { parts, defaults, vectors: QueryVectors::new() });
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

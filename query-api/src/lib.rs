//! query-api: search, embeddings, entities, models and events. This service only reads.

mod embed;
mod entities;
mod errors;
mod events;
mod models;
mod openai;
mod search;
mod state;
mod stats;
mod vectors;
mod wait;

use std::sync::Arc;

use carbon_http::{Service, assemble};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use state::AppState;
pub use state::{Dependencies, SearchIndex};

/// Returns the router of the service.
pub fn router(dependencies: Arc<Dependencies>) -> axum::Router {
    let service = Service {
        name: "query-api",
        title: "carbon-ml query-api",
        description: "Reads: search, embeddings, entities and events.",
        health: dependencies.health.clone(),
        metrics: dependencies.metrics.clone(),
    };
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
        .with_state(AppState::new(dependencies));
    assemble(service, routes)
}

//! tracking-api: HTTP writes that become events. It changes state only by appending to the log (law 1).

mod active;
mod claims;
mod entities;
mod generations;
mod mlflow;
mod state;
mod status;

use std::sync::Arc;

use carbon_http::{Service, assemble};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use claims::Claims;
use state::AppState;
pub use state::Dependencies;

/// Returns the router of the service.
pub fn router(dependencies: Arc<Dependencies>) -> axum::Router {
    let service = Service {
        name: "tracking-api",
        title: "carbon-ml tracking-api",
        description: "Writes: each becomes an event of the log.",
        health: dependencies.health.clone(),
        metrics: dependencies.metrics.clone(),
    };
    let ui = dependencies.config.mlflow_ui.clone();
    let routes = OpenApiRouter::new()
        .routes(routes!(entities::post_entities))
        .routes(routes!(entities::delete_entity))
        .routes(routes!(mlflow::post_promote))
        .routes(routes!(status::get_status))
        .routes(routes!(generations::get_generations))
        .routes(routes!(generations::get_generation))
        .routes(routes!(generations::post_promote))
        .routes(routes!(generations::post_retire))
        .routes(routes!(generations::post_replay))
        .merge(OpenApiRouter::from(mlflow::routes(&ui)))
        .with_state(AppState(dependencies));
    assemble(service, routes)
}

//! MLflow's REST API for unmodified clients. Each write appends an event.

mod args;
mod artifacts;
mod call;
mod check;
mod error;
mod experiments;
mod graphql;
mod logged_models;
mod logging;
mod metrics;
mod model_versions;
mod names;
mod page;
mod promote;
mod registered_models;
mod run_shape;
mod runs;
mod shapes;
mod sources;
mod ui;
mod webhooks;
mod write;

use axum::extract::DefaultBodyLimit;
use axum::routing::{any, delete, get, patch, post};
use axum::{Router, response::IntoResponse};

use crate::AppState;
use error::MlflowError;
pub(crate) use promote::*;

/// Returns the routes of MLflow's API and web UI. They are not in the OpenAPI document, because MLflow documents them.
/// `ui` is the folder of the web UI's static files; empty if there is none.
pub(crate) fn routes(ui: &str) -> Router<AppState> {
    let mut router = Router::new()
        .route("/version", get(version))
        .route("/get-artifact", get(artifacts::get_of_run))
        .route("/model-versions/get-artifact", get(model_versions::get_artifact))
        .route("/graphql", post(graphql::post))
        .nest("/api/3.0/mlflow", ui::version_3_routes())
        .nest("/ajax-api/3.0/mlflow", ui::version_3_routes())
        .merge(ui::pages(ui));
    // The client uses the first prefix, the web UI the second.
    for prefix in ["/api/2.0/mlflow", "/ajax-api/2.0/mlflow"] {
        router = router.nest(prefix, tracking_routes()).nest(&format!("{prefix}-artifacts"), file_routes());
    }
    router
}

fn file_routes() -> Router<AppState> {
    let file = get(artifacts::download).put(artifacts::upload).delete(artifacts::delete);
    Router::new()
        .route("/artifacts", get(artifacts::list_root))
        .route("/artifacts/{*path}", file.layer(DefaultBodyLimit::disable()))
        .route("/mpu/{*rest}", any(no_multipart))
        .route("/presigned/{*rest}", any(no_multipart))
        .route("/{*rest}", any(no_endpoint))
}

fn tracking_routes() -> Router<AppState> {
    Router::new()
        .route("/experiments/create", post(experiments::create))
        .route("/experiments/get", get(experiments::get))
        .route("/experiments/get-by-name", get(experiments::get_by_name))
        .route("/experiments/search", get(experiments::search).post(experiments::search))
        .route("/experiments/search-datasets", post(ui::search_datasets))
        .route("/gateway-proxy", get(ui::gateway))
        .route("/experiments/delete", post(experiments::delete))
        .route("/experiments/restore", post(experiments::restore))
        .route("/experiments/update", post(experiments::update))
        .route("/experiments/set-experiment-tag", post(experiments::set_tag))
        .route("/experiments/delete-experiment-tag", post(experiments::delete_tag))
        .route("/runs/create", post(runs::create))
        .route("/runs/get", get(runs::get))
        .route("/runs/update", post(runs::update))
        .route("/runs/delete", post(runs::delete))
        .route("/runs/restore", post(runs::restore))
        .route("/runs/search", post(runs::search))
        .route("/runs/log-metric", post(logging::log_metric))
        .route("/runs/log-parameter", post(logging::log_param))
        .route("/runs/log-batch", post(logging::log_batch))
        .route("/runs/set-tag", post(logging::set_tag))
        .route("/runs/delete-tag", post(logging::delete_tag))
        .route("/runs/log-inputs", post(logging::log_inputs))
        .route("/runs/outputs", post(logging::log_outputs))
        .route("/metrics/get-history", get(metrics::get_history))
        .route("/metrics/get-history-bulk", get(metrics::bulk_history))
        .route("/metrics/get-history-bulk-interval", get(metrics::bulk_interval))
        .route("/logged-models", post(logged_models::create))
        .route("/logged-models/search", post(logged_models::search))
        .route(
            "/logged-models/{model_id}",
            get(logged_models::get).patch(logged_models::finalise).delete(logged_models::delete),
        )
        .route("/logged-models/{model_id}/params", post(logged_models::log_params))
        .route("/logged-models/{model_id}/tags", patch(logged_models::set_tags))
        .route("/logged-models/{model_id}/tags/{*key}", delete(logged_models::delete_tag))
        .route("/logged-models/{model_id}/artifacts/directories", get(artifacts::list_of_model))
        .route("/artifacts/list", get(artifacts::list_of_run))
        .merge(model_routes())
        .route("/webhooks", get(webhooks::list).post(webhooks::create))
        .route("/webhooks/{webhook_id}", get(webhooks::get).patch(webhooks::update).delete(webhooks::delete))
        .route("/webhooks/{webhook_id}/test", post(webhooks::test))
        .route("/{*rest}", any(no_endpoint))
}

fn model_routes() -> Router<AppState> {
    use model_versions as versions;
    use registered_models as models;
    let alias = get(models::get_alias).post(models::set_alias).delete(models::delete_alias);
    Router::new()
        .route("/registered-models/create", post(models::create))
        .route("/registered-models/get", get(models::get))
        .route("/registered-models/search", get(models::search))
        .route("/registered-models/rename", post(models::rename))
        .route("/registered-models/update", patch(models::update))
        .route("/registered-models/delete", delete(models::delete))
        .route("/registered-models/set-tag", post(models::set_tag))
        .route("/registered-models/delete-tag", delete(models::delete_tag))
        .route("/registered-models/alias", alias)
        .route("/registered-models/get-latest-versions", get(models::latest_versions).post(models::latest_versions))
        .route("/model-versions/create", post(versions::create))
        .route("/model-versions/get", get(versions::get))
        .route("/model-versions/search", get(versions::search))
        .route("/model-versions/update", patch(versions::update))
        .route("/model-versions/delete", delete(versions::delete))
        .route("/model-versions/set-tag", post(versions::set_tag))
        .route("/model-versions/delete-tag", delete(versions::delete_tag))
        .route("/model-versions/transition-stage", post(versions::transition_stage))
        .route("/model-versions/get-download-uri", get(versions::download_uri))
}

/// The version of MLflow whose API is served. Clients check it before they use newer endpoints.
const MLFLOW_VERSION: &str = "3.17.2";

async fn version() -> impl IntoResponse {
    MLFLOW_VERSION
}

/// After this answer, the client sends the file in one request of any length.
async fn no_multipart() -> MlflowError {
    MlflowError::not_implemented("multipart transfer is not supported: send the file in one request")
}

async fn no_endpoint() -> MlflowError {
    MlflowError::no_endpoint("this endpoint of MLflow is not served")
}

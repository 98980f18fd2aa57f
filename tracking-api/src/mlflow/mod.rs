//! MLflow's REST API: an unmodified client needs only its tracking URI set. Every write is an event.

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

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{any, delete, get, patch, post};
use axum::{Router, response::IntoResponse};

use crate::Parts;
use error::MlflowError;
pub(crate) use promote::*;

/// The routes. They are MLflow's to document, so they are not in this service's OpenAPI.
/// `ui` is the folder of the web UI; empty where there is none.
pub(crate) fn routes(ui: &str) -> Router<Arc<Parts>> {
    let mut router = Router::new()
        .route("/version", get(version))
        .route("/get-artifact", get(artifacts::get_of_run))
        .route("/model-versions/get-artifact", get(model_versions::get_artifact))
        .route("/graphql", post(graphql::post))
        .nest("/api/3.0/mlflow", ui::about())
        .nest("/ajax-api/3.0/mlflow", ui::about())
        .merge(ui::pages(ui));
    // The client uses the first prefix, the web UI the second.
    for prefix in ["/api/2.0/mlflow", "/ajax-api/2.0/mlflow"] {
        router = router.nest(prefix, of_prefix()).nest(&format!("{prefix}-artifacts"), of_files());
    }
    router
}

fn of_files() -> Router<Arc<Parts>> {
    let file = get(artifacts::download).put(artifacts::upload).delete(artifacts::delete);
    Router::new()
        .route("/artifacts", get(artifacts::list_root))
        .route("/artifacts/{*path}", file.layer(DefaultBodyLimit::disable()))
        .route("/mpu/{*rest}", any(no_multipart))
        .route("/presigned/{*rest}", any(no_multipart))
        .route("/{*rest}", any(no_endpoint))
}

fn of_prefix() -> Router<Arc<Parts>> {
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
        .merge(of_models())
        .route("/webhooks", get(webhooks::list).post(webhooks::create))
        .route("/webhooks/{webhook_id}", get(webhooks::get).patch(webhooks::update).delete(webhooks::delete))
        .route("/webhooks/{webhook_id}/test", post(webhooks::test))
        .route("/{*rest}", any(no_endpoint))
}

fn of_models() -> Router<Arc<Parts>> {
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

/// The version of MLflow's API that is spoken: clients look at it before they use what is newer.
const SPOKEN: &str = "3.17.2";

async fn version() -> impl IntoResponse {
    SPOKEN
}

/// The client then sends a file in one stream, of any length.
async fn no_multipart() -> MlflowError {
    MlflowError::not_implemented("multipart transfer is not supported: send the file in one request")
}

async fn no_endpoint() -> MlflowError {
    MlflowError::no_endpoint("this endpoint of MLflow is not served")
}

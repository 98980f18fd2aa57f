//! MLflow's web UI: its static files, if configured, and the endpoints that only the UI and newer clients call.

use std::path::Path;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::Redirect;
use axum::routing::{get, post};
use carbon_read_models::registry::queries::{DatasetSummary, dataset_summaries};
use serde_json::{Map, Value, json};
use tower_http::services::{ServeDir, ServeFile};
use tower_http::set_header::SetResponseHeaderLayer;

use super::call::{Answer, Answered, Call, empty_answer, list_answer};
use super::check;
use super::error::MlflowError;
use super::shapes;
use crate::AppState;

/// Returns the routes of the UI's files: `index.html` at `/`, all others below `/static-files`. Without a folder, `/`
/// redirects to the API documentation.
pub(super) fn pages(folder: &str) -> Router<AppState> {
    if folder.is_empty() {
        return Router::new().route("/", get(|| async { Redirect::temporary("docs") }));
    }
    let folder = Path::new(folder);
    // The names of scripts and styles contain their hash, so they can be cached. The page itself must not be cached.
    let no_cache = SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let page = tower::Layer::layer(&no_cache, ServeFile::new(folder.join("index.html")));
    Router::new().route_service("/", page).nest_service("/static-files", ServeDir::new(folder))
}

/// Returns the routes of version 3 of the API: the server's features, and empty lists for features that do not exist here.
pub(super) fn version_3_routes() -> Router<AppState> {
    Router::new()
        .route("/server-info", get(server_info))
        .route("/ui-telemetry", get(telemetry))
        .route("/traces/search", post(traces))
        .route("/traces/metrics", post(empty))
        .route("/datasets/search", post(empty))
        .route("/scorers/list", get(empty))
        .route("/assistant/config", get(assistant))
        .route("/assistant/providers", get(|| async { Answer(json!({"providers": []})) }))
        .fallback(super::no_endpoint)
}

/// Returns an empty page of traces, evaluation datasets or scorers, which are not supported.
async fn empty() -> Answered {
    empty_answer()
}

async fn traces(call: Call) -> Answered {
    match call.args.objects("locations")?.is_empty() {
        true => Err(MlflowError::missing("locations")),
        false => empty_answer(),
    }
}

async fn server_info() -> Answer {
    Answer(json!({
        "store_type": "SqlStore",
        "workspaces_enabled": false,
        "trace_archival_enabled": false,
        "multipart_uploads_enabled": false,
        "multipart_downloads_enabled": false,
        "presigned_upload_run_id_supported": false,
        "presigned_upload_model_id_supported": false,
        "features_enabled": {"gateway": false},
    }))
}

/// The settings of the UI's assistant, which every page requests. There is no assistant.
async fn assistant() -> Answer {
    Answer(json!({"providers": {}, "projects": {}, "remote_access_allowed": false}))
}

async fn telemetry() -> Answer {
    Answer(json!({"disable_ui_events": [], "disable_ui_telemetry": true, "ui_rollout_percentage": 0}))
}

/// GET `gateway-proxy`: returns no endpoints, because there is no gateway.
pub(super) async fn gateway() -> Answer {
    Answer(json!({"endpoints": []}))
}

/// POST `experiments/search-datasets`: the input datasets of the experiments' runs.
pub(super) async fn search_datasets(call: Call) -> Answered {
    let ids = call.args.texts("experiment_ids")?;
    if ids.is_empty() {
        return Err(MlflowError::missing("experiment_ids"));
    }
    let experiments = ids.iter().map(|id| check::experiment_id(id)).collect::<Result<Vec<_>, _>>()?;
    let found = dataset_summaries(call.rows()?, &call.scope, &experiments).await?;
    let summary = |dataset: &DatasetSummary| {
        let mut object = Map::new();
        shapes::put(&mut object, "experiment_id", dataset.experiment_id.to_string());
        shapes::put(&mut object, "name", dataset.name.as_str());
        shapes::put(&mut object, "digest", dataset.digest.as_str());
        if let Some(context) = &dataset.context {
            shapes::put(&mut object, "context", context.as_str());
        }
        Value::Object(object)
    };
    list_answer("dataset_summaries", found.iter().map(summary).collect())
}

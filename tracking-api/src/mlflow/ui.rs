//! MLflow's web UI, where its static files are given, and what it asks of a server beside the data.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::Redirect;
use axum::routing::{get, post};
use carbon_read_models::registry::queries::dataset_summaries;
use serde_json::{Map, Value, json};
use tower_http::services::{ServeDir, ServeFile};
use tower_http::set_header::SetResponseHeaderLayer;

use super::call::{Answer, Answered, Call, nothing};
use super::check;
use super::error::MlflowError;
use super::shapes;
use crate::Parts;

/// The pages. `index.html` names everything below `static-files/`, relative to itself.
pub(super) fn pages(folder: &str) -> Router<Arc<Parts>> {
    if folder.is_empty() {
        return Router::new().route("/", get(|| async { Redirect::temporary("docs") }));
    }
    let folder = Path::new(folder);
    // Names of scripts and styles hold their hash; the page itself is asked for again each time.
    let fresh = SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let page = tower::Layer::layer(&fresh, ServeFile::new(folder.join("index.html")));
    Router::new().route_service("/", page).nest_service("/static-files", ServeDir::new(folder))
}

/// Version 3 of the API: what the UI and newer clients ask a server about itself.
pub(super) fn about() -> Router<Arc<Parts>> {
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

/// An empty page: there are no traces, evaluation datasets or scorers here.
async fn empty() -> Answered {
    nothing()
}

async fn traces(call: Call) -> Answered {
    match call.args.objects("locations")?.is_empty() {
        true => Err(MlflowError::missing("locations")),
        false => nothing(),
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

/// The UI asks for its assistant's settings on every page: there is none.
async fn assistant() -> Answer {
    Answer(json!({"providers": {}, "projects": {}, "remote_access_allowed": false}))
}

async fn telemetry() -> Answer {
    Answer(json!({"disable_ui_events": [], "disable_ui_telemetry": true, "ui_rollout_percentage": 0}))
}

/// GET `gateway-proxy`: there is no gateway, hence no endpoints.
pub(super) async fn gateway() -> Answer {
    Answer(json!({"endpoints": []}))
}

/// POST `experiments/search-datasets`: what runs of the experiments had as inputs.
pub(super) async fn search_datasets(call: Call) -> Answered {
    let ids = call.args.texts("experiment_ids")?;
    if ids.is_empty() {
        return Err(MlflowError::missing("experiment_ids"));
    }
    let experiments = ids.iter().map(|id| check::experiment_id(id)).collect::<Result<Vec<_>, _>>()?;
    let found = dataset_summaries(call.rows()?, &call.scope, &experiments).await?;
    let summary = |own: &carbon_read_models::registry::queries::DatasetSummary| {
        let mut object = Map::new();
        shapes::put(&mut object, "experiment_id", own.experiment_id.to_string());
        shapes::put(&mut object, "name", own.name.as_str());
        shapes::put(&mut object, "digest", own.digest.as_str());
        if let Some(context) = &own.context {
            shapes::put(&mut object, "context", context.as_str());
        }
        Value::Object(object)
    };
    let mut answer = Map::new();
    if !found.is_empty() {
        shapes::put(&mut answer, "dataset_summaries", found.iter().map(summary).collect::<Vec<_>>());
    }
    Ok(Answer(answer.into()))
}

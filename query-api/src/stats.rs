//! `GET /index/stats`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use carbon_http::{Problem, ReadAfter, Tenant};
use carbon_runtime::consume::end_offsets;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{App, SearchIndex};

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IndexStats {
    total_entities: u64,
    by_entity_type: BTreeMap<String, u64>,
    generation: String,
    model: String,
    /// How many entities are not embedded yet and how many embeddings are not indexed yet, of all tenants.
    lag: u64,
}

/// How many entities of the tenant can be found
#[utoipa::path(get, path = "/index/stats", tag = "search",
    params(("tenant_id" = Option<String>, Query, description = "The tenant; `default` where nothing names one")),
    responses(
        (status = 200, body = IndexStats),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_stats(
    State(app): State<Arc<App>>,
    tenant: Tenant,
    read: ReadAfter,
) -> Result<Json<IndexStats>, Problem> {
    let scope = tenant.scope();
    app.check_positions(&read)?;
    let search = app.search()?;
    app.index_has(&search, &read).await?;
    let stats = search.index.stats(&search.generation, Some(&scope)).await?;
    let ends = search.indexer.ends(&*app.parts.log).await?;
    let progress = search.indexer.progress.borrow().clone();
    let to_index: u64 = ends.iter().map(|(at, end)| progress.lag_of(at, end)).sum();
    let to_embed = to_embed(&app, &search).await?;
    Ok(Json(IndexStats {
        total_entities: stats.total,
        by_entity_type: stats.by_entity_type.into_iter().map(|(name, count)| (name.to_string(), count)).collect(),
        generation: search.generation.to_string(),
        model: search.model.to_string(),
        lag: to_embed + to_index,
    }))
}

/// How many entities the embedder of the generation's model has not embedded yet, whichever process runs it.
async fn to_embed(app: &App, search: &SearchIndex) -> Result<u64, Problem> {
    let log = &*app.parts.log;
    let Some(embedder) = app.parts.topology.processors.get("embedder") else { return Ok(0) };
    let ends = end_offsets(log, &embedder.consumes).await?;
    let positions = log.committed(&search.embedder).await?;
    Ok(ends.iter().map(|(at, end)| end.saturating_sub(positions.next(at))).sum())
}

//! `GET /index/stats`: the size of the search index and its lag.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use carbon_http::{Problem, ReadAfter, Tenant, responses};
use carbon_runtime::consume::end_offsets;
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::{AppState, SearchHandle, SearchIndex};

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IndexStats {
    total_entities: u64,
    by_entity_type: BTreeMap<String, u64>,
    generation: String,
    model: String,
    /// The number of entities not embedded yet plus the number of embeddings not indexed yet, of all tenants.
    lag: u64,
}

/// Size and lag of the search index
#[utoipa::path(get, path = "/index/stats", tag = "search", params(Tenant),
    responses((status = 200, body = IndexStats), responses::InvalidInput, responses::Unavailable))]
pub(crate) async fn get_stats(
    State(app): State<AppState>,
    State(search): State<SearchHandle>,
    tenant: Tenant,
    read: ReadAfter,
) -> Result<Json<IndexStats>, Problem> {
    let scope = tenant.scope();
    app.check_positions(&read)?;
    let search = search.get()?;
    app.wait_for_index(&search, &read).await?;
    let stats = search.index.stats(&search.generation, Some(&scope)).await?;
    let ends = search.indexer.ends(&*app.dependencies.log).await?;
    let progress = search.indexer.progress.borrow().clone();
    let indexer_lag: u64 = ends.iter().map(|(at, end)| progress.lag_of(at, end)).sum();
    let embedder_lag = embedder_lag(&app, &search).await?;
    Ok(Json(IndexStats {
        total_entities: stats.total,
        by_entity_type: stats.by_entity_type.into_iter().map(|(name, count)| (name.to_string(), count)).collect(),
        generation: search.generation.to_string(),
        model: search.model.to_string(),
        lag: embedder_lag + indexer_lag,
    }))
}

/// Returns the number of entities that the embedder of the generation's model has not embedded yet, in any process.
async fn embedder_lag(app: &AppState, search: &SearchIndex) -> Result<u64, Problem> {
    let log = &*app.dependencies.log;
    let Some(embedder) = app.dependencies.topology.processors.get("embedder") else { return Ok(0) };
    let ends = end_offsets(log, &embedder.consumes).await?;
    let positions = log.committed(&search.embedder).await?;
    Ok(ends.iter().map(|(at, end)| end.saturating_sub(positions.next(at))).sum())
}

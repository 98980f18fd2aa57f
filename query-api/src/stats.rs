//! `GET /index/stats`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use carbon_http::{Problem, ReadAfter, Tenant};
use serde::Serialize;
use utoipa::ToSchema;

use crate::App;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IndexStats {
    total_entities: u64,
    by_entity_type: BTreeMap<String, u64>,
    generation: String,
    model: String,
    /// How many embeddings the indexer has not taken yet, of all tenants.
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
    let indexer = app.parts.indexer.get().ok_or_else(|| Problem::unavailable("the indexer has not started yet"))?;
    app.index_has(search, &read).await?;
    let stats = search.index.stats(&search.generation, Some(&scope)).await?;
    let ends = indexer.ends(&*app.parts.log).await?;
    let progress = indexer.progress.borrow().clone();
    Ok(Json(IndexStats {
        total_entities: stats.total,
        by_entity_type: stats.by_entity_type.into_iter().map(|(name, count)| (name.to_string(), count)).collect(),
        generation: search.generation.to_string(),
        model: search.model.to_string(),
        lag: ends.iter().map(|(at, end)| progress.lag_of(at, end)).sum(),
    }))
}

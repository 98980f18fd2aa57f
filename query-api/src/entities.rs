//! `GET /entities/{type}/{id}` and its neighbours.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use carbon_core::{EntityId, EntityKey, EntityType, Metadata};
use carbon_http::{Path, Problem, Query, ReadAfter, Tenant};
use carbon_read_models::catalog::{self, ItemState};
use carbon_search::Filter;
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;
use utoipa::{IntoParams, ToSchema};

use crate::search::Found;
use crate::{App, failure};

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Entity {
    tenant_id: String,
    entity_type: String,
    entity_id: String,
    text: String,
    #[schema(value_type = BTreeMap<String, Value>)]
    metadata: Metadata,
    tags: Vec<String>,
    /// RFC 3339.
    updated_at: String,
    /// Of its last record, as `topic:partition:offset`.
    position: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Neighbours {
    /// By cosine, nearest first.
    results: Vec<Found>,
    total: usize,
    latency_ms: f64,
    generation: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SimilarQuery {
    /// 1 to 1000.
    #[param(default = 10)]
    limit: Option<usize>,
    /// The tenant; `default` where nothing names one.
    #[allow(dead_code)]
    tenant_id: Option<String>,
}

fn parse(entity_type: &str, entity_id: &str) -> Result<(EntityType, EntityId), Problem> {
    let refused = |error: carbon_core::IdError| Problem::invalid(error.to_string());
    Ok((EntityType::parse(entity_type).map_err(refused)?, EntityId::parse(entity_id).map_err(refused)?))
}

/// An entity as its last record says
#[utoipa::path(get, path = "/entities/{entity_type}/{entity_id}", tag = "entities",
    params(
        ("entity_type" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        ("entity_id" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        ("tenant_id" = Option<String>, Query, description = "The tenant; `default` where nothing names one"),
        ("x-min-position" = Option<String>, Header, description = "Wait until the catalog has applied these positions"),
        ("x-timeout-ms" = Option<u64>, Header, description = "How long it may take; 2000 unless said, at most 60000"),
    ),
    responses(
        (status = 200, body = Entity),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Not there, deleted, or quarantined", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_entity(
    State(app): State<Arc<App>>,
    Path((entity_type, entity_id)): Path<(String, String)>,
    tenant: Tenant,
    read: ReadAfter,
) -> Result<Json<Entity>, Problem> {
    let (entity_type, entity_id) = parse(&entity_type, &entity_id)?;
    let scope = tenant.scope();
    app.check_positions(&read)?;
    let catalog = app.rows("catalog")?;
    app.catalog_has(&catalog.view, &read).await?;
    let absent = |why: &str| Problem::not_found(format!("{entity_type}/{entity_id} {why}"));
    let item = match catalog::get(&catalog.namespace, &scope, &entity_type, &entity_id).await? {
        None => return Err(absent("is not there")),
        Some(item) => item,
    };
    match item.state {
        ItemState::Live => {}
        ItemState::Deleted => return Err(absent("is deleted")),
        ItemState::Quarantined => {
            return Err(absent("is quarantined: its last record cannot be taken, and a dead letter says why"));
        }
    }
    Ok(Json(Entity {
        tenant_id: item.key.tenant.to_string(),
        entity_type: item.key.entity_type.to_string(),
        entity_id: item.key.entity_id.to_string(),
        text: item.text,
        metadata: item.metadata,
        tags: item.tags,
        updated_at: item.updated_at.to_rfc3339(),
        position: item.position.to_string(),
    }))
}

/// The nearest neighbours of an entity, by its own vector
#[utoipa::path(get, path = "/entities/{entity_type}/{entity_id}/similar", tag = "entities",
    params(
        ("entity_type" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        ("entity_id" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        SimilarQuery,
        ("x-min-position" = Option<String>, Header, description = "Wait until the index has applied these positions"),
        ("x-timeout-ms" = Option<u64>, Header, description = "How long it may take; 2000 unless said, at most 60000"),
    ),
    responses(
        (status = 200, body = Neighbours),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Not in the index", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
        (status = 504, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn get_similar(
    State(app): State<Arc<App>>,
    Path((entity_type, entity_id)): Path<(String, String)>,
    tenant: Tenant,
    Query(query): Query<SimilarQuery>,
    read: ReadAfter,
) -> Result<Json<Neighbours>, Problem> {
    let began = Instant::now();
    let (entity_type, entity_id) = parse(&entity_type, &entity_id)?;
    let scope = tenant.scope();
    let limit = query.limit.unwrap_or(10);
    // Checked here as well, so that it is refused whether or not an index is there.
    if !(1..=carbon_search::plan::MAX_LIMIT).contains(&limit) {
        return Err(carbon_search::PlanError::Limit(limit).into());
    }
    app.check_positions(&read)?;
    let search = app.search()?;
    app.index_has(&search, &read).await?;
    let key = EntityKey { tenant: scope.tenant().clone(), entity_type, entity_id };
    let running = carbon_search::similar(&*search.index, &search.generation, &scope, &key, Filter::default(), limit);
    let found = match timeout_at(read.deadline(), running).await {
        Ok(found) => found.map_err(|error| failure::search(&error))?,
        Err(_) => return Err(failure::late("the search")),
    };
    Ok(Json(Neighbours {
        results: found.results.into_iter().map(Found::from).collect(),
        total: found.total,
        latency_ms: began.elapsed().as_secs_f64() * 1e3,
        generation: search.generation.to_string(),
    }))
}

//! `GET /entities/{type}/{id}`: one entity, and its nearest neighbours.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use carbon_core::{EntityId, EntityKey, EntityType, Metadata};
use carbon_http::{Path, Problem, Query, ReadAfter, Tenant, responses};
use carbon_read_models::catalog::{self, ItemState};
use carbon_search::Filter;
use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;
use utoipa::{IntoParams, ToSchema};

use crate::errors;
use crate::search::Found;
use crate::state::{AppState, SearchHandle};

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
    /// The position of the entity's last record, as `topic:partition:offset`.
    position: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Neighbours {
    /// The neighbours by cosine similarity, nearest first.
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
    /// The tenant; `default` if the request names none.
    #[allow(dead_code)]
    tenant_id: Option<String>,
}

fn parse(entity_type: &str, entity_id: &str) -> Result<(EntityType, EntityId), Problem> {
    let invalid = |error: carbon_core::IdError| Problem::invalid(error.to_string());
    Ok((EntityType::parse(entity_type).map_err(invalid)?, EntityId::parse(entity_id).map_err(invalid)?))
}

/// One entity, as of its last record
///
/// Answers 404 if the entity does not exist, is deleted, or is quarantined.
#[utoipa::path(get, path = "/entities/{entity_type}/{entity_id}", tag = "entities",
    params(
        ("entity_type" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        ("entity_id" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        Tenant, ReadAfter,
    ),
    responses((status = 200, body = Entity), responses::InvalidInput, responses::NotFound, responses::Unavailable))]
pub(crate) async fn get_entity(
    State(app): State<AppState>,
    Path((entity_type, entity_id)): Path<(String, String)>,
    tenant: Tenant,
    read: ReadAfter,
) -> Result<Json<Entity>, Problem> {
    let (entity_type, entity_id) = parse(&entity_type, &entity_id)?;
    let scope = tenant.scope();
    app.check_positions(&read)?;
    let catalog = app.rows("catalog")?;
    app.wait_for_catalog(&catalog.view, &read).await?;
    let absent = |why: &str| Problem::not_found(format!("{entity_type}/{entity_id} {why}"));
    let item = match catalog::get(&catalog.namespace, &scope, &entity_type, &entity_id).await? {
        None => return Err(absent("does not exist")),
        Some(item) => item,
    };
    match item.state {
        ItemState::Live => {}
        ItemState::Deleted => return Err(absent("is deleted")),
        ItemState::Quarantined => {
            return Err(absent("is quarantined: its last record is poison; the dead letter holds the reason"));
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

/// The nearest neighbours of an entity, by its stored vector
///
/// Answers 404 if the entity is not in the search index.
#[utoipa::path(get, path = "/entities/{entity_type}/{entity_id}/similar", tag = "entities",
    params(
        ("entity_type" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        ("entity_id" = String, Path, description = "^[a-zA-Z0-9_.-]{1,255}$"),
        SimilarQuery, ReadAfter,
    ),
    responses(
        (status = 200, body = Neighbours), responses::InvalidInput, responses::NotFound, responses::Unavailable,
        responses::DeadlineExceeded,
    ))]
pub(crate) async fn get_similar(
    State(app): State<AppState>,
    State(search): State<SearchHandle>,
    Path((entity_type, entity_id)): Path<(String, String)>,
    tenant: Tenant,
    Query(query): Query<SimilarQuery>,
    read: ReadAfter,
) -> Result<Json<Neighbours>, Problem> {
    let began = Instant::now();
    let (entity_type, entity_id) = parse(&entity_type, &entity_id)?;
    let scope = tenant.scope();
    let limit = query.limit.unwrap_or(10);
    // Checked here too, so that an invalid limit is rejected even if no index is loaded.
    if !(1..=carbon_search::plan::MAX_LIMIT).contains(&limit) {
        return Err(carbon_search::PlanError::Limit(limit).into());
    }
    app.check_positions(&read)?;
    let search = search.get()?;
    app.wait_for_index(&search, &read).await?;
    let key = EntityKey { tenant: scope.tenant().clone(), entity_type, entity_id };
    let running = carbon_search::similar(&*search.index, &search.generation, &scope, &key, Filter::default(), limit);
    let found = match timeout_at(read.deadline(), running).await {
        Ok(found) => found.map_err(|error| errors::search(&error))?,
        Err(_) => return Err(errors::timed_out("the search")),
    };
    Ok(Json(Neighbours {
        results: found.results.into_iter().map(Found::from).collect(),
        total: found.total,
        latency_ms: began.elapsed().as_secs_f64() * 1e3,
        generation: search.generation.to_string(),
    }))
}

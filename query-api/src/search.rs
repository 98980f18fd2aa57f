//! `POST /search`: hybrid search over the entities.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use carbon_core::Metadata;
use carbon_http::{JsonBody, Problem, ReadAfter, Tenant, responses};
use carbon_runtime::Config;
use carbon_search::{Explain, Filter, Fusion, Mode, SearchRequest, SearchResult};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout_at;
use utoipa::ToSchema;

use crate::errors;
use crate::state::{AppState, SearchHandle};

/// The configured values of parameters that a request leaves out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    fusion: Fusion,
    dense_weight: f32,
}

impl Defaults {
    pub fn of(config: &Config) -> Self {
        let fusion = match config.search_fusion_algorithm.as_str() {
            "rrf" => Fusion::Rrf,
            "weighted" => Fusion::Weighted,
            other => {
                tracing::warn!(value = other, "ML_SEARCH_FUSION_ALGORITHM is neither weighted nor rrf; using weighted");
                Fusion::Weighted
            }
        };
        let dense_weight = match config.search_dense_weight {
            weight if (0.0..=1.0).contains(&weight) => weight,
            weight => {
                tracing::warn!(weight, "ML_SEARCH_DENSE_WEIGHT is not from 0 to 1; using the default");
                carbon_search::plan::DEFAULT_DENSE_WEIGHT
            }
        };
        Self { fusion, dense_weight }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchBody {
    /// 1 byte to 8 KiB, not blank.
    #[schema(example = "henry hub gas")]
    query: String,
    /// False selects lexical search and overrides `mode`.
    #[serde(default)]
    #[schema(default = true)]
    semantic: Option<bool>,
    /// The search mode: dense and lexical, or one of them.
    #[serde(default)]
    #[schema(value_type = Option<ModeName>)]
    mode: Option<Mode>,
    /// `{type: str|[str], tags: [str], tenant_id: str, <metadata key>: value|[value]|{gte, lte}}`
    #[serde(default)]
    filters: Option<Map<String, Value>>,
    /// 1 to 1000.
    #[serde(default)]
    #[schema(default = 10)]
    limit: Option<usize>,
    /// `offset + limit` is at most 10000.
    #[serde(default)]
    #[schema(default = 0)]
    offset: Option<usize>,
    #[serde(default)]
    #[schema(default = 0.0)]
    similarity_threshold: Option<f32>,
    #[serde(default)]
    #[schema(value_type = Option<FusionName>)]
    fusion: Option<Fusion>,
    /// 0 to 1.
    #[serde(default)]
    dense_weight: Option<f32>,
    /// True adds the scores and ranks to each result.
    #[serde(default)]
    #[schema(default = false)]
    debug: Option<bool>,
    #[serde(default)]
    tenant_id: Option<String>,
}

/// The names of [`Mode`], for the OpenAPI document.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code)]
enum ModeName {
    Hybrid,
    Dense,
    Lexical,
}

/// The names of [`Fusion`], for the OpenAPI document.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code)]
enum FusionName {
    Weighted,
    Rrf,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Found {
    entity_type: String,
    entity_id: String,
    score: f32,
    text: String,
    #[schema(value_type = BTreeMap<String, Value>)]
    metadata: Metadata,
    tags: Vec<String>,
    /// `{semantic_rank, lexical_rank, semantic_score, lexical_score, fused_score, fusion, k, boosts, positions}`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    explain: Option<Explain>,
}

impl From<SearchResult> for Found {
    fn from(result: SearchResult) -> Self {
        let SearchResult { entity_type, entity_id, score, text, metadata, tags, explain } = result;
        Self { entity_type, entity_id, score, text, metadata, tags, explain }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchAnswer {
    results: Vec<Found>,
    /// The number of candidates that reach the threshold.
    total: usize,
    query: String,
    /// True if the search was dense or hybrid.
    semantic: bool,
    latency_ms: f64,
    /// The generation of the search index that answered.
    generation: String,
}

/// Search the entities
///
/// Hybrid by default: finds dense and lexical candidates with one filter, fuses and boosts their scores, drops those below
/// the threshold and returns one page. The model of the searched generation embeds the query. Answers 422 if the model
/// cannot embed the query, and 503 if the index is not loaded or behind `x-min-position`.
#[utoipa::path(post, path = "/search", tag = "search", params(Tenant, ReadAfter),
    request_body = SearchBody,
    responses(
        (status = 200, body = SearchAnswer), responses::InvalidInput, responses::Unprocessable, responses::Overloaded,
        responses::Unavailable, responses::DeadlineExceeded,
    ))]
pub(crate) async fn post_search(
    State(app): State<AppState>,
    State(search): State<SearchHandle>,
    tenant: Tenant,
    read: ReadAfter,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<Json<SearchAnswer>, Problem> {
    let began = Instant::now();
    let parsed = Filter::from_json(&body.filters.unwrap_or_default())?;
    let in_filter = parsed.tenant.as_ref().map(|tenant| tenant.as_str());
    let scope = tenant.resolve([body.tenant_id.as_deref(), in_filter])?;
    let request = SearchRequest {
        query: body.query,
        semantic: body.semantic.unwrap_or(true),
        mode: body.mode,
        filter: parsed.filter,
        limit: body.limit.unwrap_or(10),
        offset: body.offset.unwrap_or(0),
        similarity_threshold: body.similarity_threshold.unwrap_or(0.0),
        fusion: body.fusion.or(Some(app.defaults.fusion)),
        dense_weight: body.dense_weight.or(Some(app.defaults.dense_weight)),
        debug: body.debug.unwrap_or(false),
    };
    let plan = request.plan()?;
    app.check_positions(&read)?;
    // The request is valid. Later errors are the service's.
    let search = search.get()?;
    app.wait_for_index(&search, &read).await?;
    let vector = match plan.mode.dense() {
        true => Some(search.vectors.get_or_encode(&search, &scope, &plan.query, read.deadline()).await?),
        false => None,
    };
    let running = carbon_search::search(&*search.index, &search.generation, &scope, &plan, vector);
    let found = match timeout_at(read.deadline(), running).await {
        Ok(found) => found.map_err(|error| errors::search(&error))?,
        Err(_) => return Err(errors::timed_out("the search")),
    };
    let latency_ms = began.elapsed().as_secs_f64() * 1e3;
    metrics::histogram!("search_query_latency_ms").record(latency_ms);
    Ok(Json(SearchAnswer {
        results: found.results.into_iter().map(Found::from).collect(),
        total: found.total,
        query: plan.query,
        semantic: plan.mode.dense(),
        latency_ms,
        generation: search.generation.to_string(),
    }))
}

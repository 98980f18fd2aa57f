//! `POST /embed`: texts to vectors. Also the checks that `POST /v1/embeddings` shares.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use carbon_core::{EntityId, EntityType, ModelRef, TenantScope};
use carbon_http::{Code, JsonBody, Problem, ReadAfter, Tenant, responses};
use carbon_inference::Catalogue;
use carbon_runtime::Config;
use carbon_schemas::Limits;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::errors;
use crate::state::SearchHandle;
use crate::vectors::{MAX_TEXTS_PER_CALL, encode_all};

/// Maximum size of the body, in bytes.
pub(crate) const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// The default timeout of both embedding routes. A full batch takes longer than a search.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbedBody {
    items: Vec<EmbedItem>,
    /// Name, alias or `name@version@precision` of the model; default: the model of the search index.
    #[serde(default)]
    model: Option<String>,
    /// Maximum number of texts per call of the encoder.
    #[serde(default)]
    batch_size: Option<usize>,
    #[serde(default)]
    tenant_id: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EmbedItem {
    /// With `id`: the vector is cached for searches with this text.
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    id: Option<String>,
    /// 1 byte to 256 KiB, not blank.
    text: String,
    #[serde(default)]
    tenant_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbedAnswer {
    #[schema(example = "all-MiniLM-L6-v2@1@f32")]
    model_version: String,
    /// One vector of unit length per item, in the order of the items.
    vectors: Vec<Vec<f32>>,
    count: usize,
    latency_ms: f64,
    /// For each item, true if the text was longer than the model's input limit.
    truncated: Vec<bool>,
}

/// Embed texts
///
/// Answers 404 if the model does not exist or is not loaded, and 422 if the model cannot embed a text.
#[utoipa::path(post, path = "/embed", tag = "embeddings",
    params(("x-timeout-ms" = Option<u64>, Header, description = "Time limit in milliseconds, at most 60000")),
    request_body = EmbedBody,
    responses(
        (status = 200, body = EmbedAnswer), responses::InvalidInput, responses::NotFound, responses::TooLarge,
        responses::Unprocessable, responses::Overloaded, responses::Unavailable, responses::DeadlineExceeded,
    ))]
pub(crate) async fn post_embed(
    State(config): State<Arc<Config>>,
    State(search): State<SearchHandle>,
    tenant: Tenant,
    read: ReadAfter,
    JsonBody(body): JsonBody<EmbedBody, BODY_LIMIT>,
) -> Result<Json<EmbedAnswer>, Problem> {
    let began = Instant::now();
    let limit = config.max_batch_size.get();
    check_count(body.items.len(), limit)?;
    let batch_size = body.batch_size.unwrap_or(MAX_TEXTS_PER_CALL.min(limit));
    if !(1..=limit).contains(&batch_size) {
        return Err(Problem::invalid(format!("batch_size is {batch_size}; it must be from 1 to {limit}")));
    }
    let mut texts = Vec::with_capacity(body.items.len());
    // For each item, the scope whose cache gets the vector.
    let mut cached: Vec<Option<TenantScope>> = Vec::with_capacity(body.items.len());
    for (index, item) in body.items.into_iter().enumerate() {
        let at = |reason: &str| Problem::invalid(format!("item {index}: {reason}"));
        let scope = tenant.resolve([body.tenant_id.as_deref(), item.tenant_id.as_deref()]);
        let scope = scope.map_err(|problem| at(problem.detail()))?;
        if let Some(name) = &item.r#type {
            EntityType::parse(name).map_err(|error| at(&error.to_string()))?;
        }
        if let Some(name) = &item.id {
            EntityId::parse(name).map_err(|error| at(&error.to_string()))?;
        }
        check_text(&item.text).map_err(|reason| at(&reason))?;
        cached.push((item.r#type.is_some() && item.id.is_some()).then_some(scope));
        texts.push(item.text);
    }
    if let Some(name) = &body.model {
        check_model_name(name)?;
    }
    let search = search.get()?;
    if let Some(name) = &body.model {
        check_model_loaded(name, &search.model)?;
    }
    let embeddings = encode_all(&search, &texts, batch_size, read.deadline_or(TIMEOUT)).await?;
    for ((scope, text), embedding) in cached.iter().zip(&texts).zip(&embeddings) {
        if let Some(scope) = scope {
            search.vectors.put(&search.model, scope, text, &embedding.vector);
        }
    }
    metrics::histogram!("batch_size_histogram", "route" => "/embed").record(texts.len() as f64);
    Ok(Json(EmbedAnswer {
        model_version: search.model.to_string(),
        count: embeddings.len(),
        truncated: embeddings.iter().map(|embedding| embedding.truncated).collect(),
        vectors: embeddings.into_iter().map(|embedding| embedding.vector).collect(),
        latency_ms: began.elapsed().as_secs_f64() * 1e3,
    }))
}

pub(crate) fn check_count(count: usize, limit: usize) -> Result<(), Problem> {
    match count {
        0 => Err(Problem::invalid("the list of texts is empty")),
        n if n > limit => Err(Problem::new(Code::TooLarge, format!("{n} texts; a request takes at most {limit}"))),
        _ => Ok(()),
    }
}

pub(crate) fn check_text(text: &str) -> Result<(), String> {
    match text.len() {
        _ if text.trim().is_empty() => Err("text is empty".into()),
        n if n > Limits::TEXT_BYTES => Err(format!("text has {n} bytes; the limit is {}", Limits::TEXT_BYTES)),
        _ => Ok(()),
    }
}

/// Rejects a name that is neither in the catalogue nor a full model reference. Needs no loaded model.
pub(crate) fn check_model_name(name: &str) -> Result<(), Problem> {
    if name.parse::<ModelRef>().is_ok() {
        return Ok(());
    }
    // The error of the catalogue repeats the name.
    if name.len() > 300 {
        return Err(Problem::not_found("no such model: the name is longer than 300 bytes"));
    }
    Catalogue::builtin().find(name).map(drop).map_err(|error| errors::inference(&error))
}

/// Rejects every model but the one of the search index, which is the only loaded one.
pub(crate) fn check_model_loaded(name: &str, loaded: &ModelRef) -> Result<(), Problem> {
    let named = Catalogue::builtin().find(name).map(|entry| entry.model.clone());
    match named {
        Ok(model) if model == *loaded => Ok(()),
        _ if name == loaded.to_string() => Ok(()),
        _ => {
            let name: String = name.chars().take(100).collect();
            Err(Problem::not_found(format!("model {name:?} is not loaded; the loaded model is {loaded}")))
        }
    }
}

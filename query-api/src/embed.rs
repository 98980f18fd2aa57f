//! `POST /embed`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use carbon_core::{EntityId, EntityType, ModelRef, TenantScope};
use carbon_http::{Code, JsonBody, Problem, ReadAfter, Tenant};
use carbon_inference::Catalogue;
use carbon_schemas::Limits;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::vectors::{ENCODE_AT_ONCE, encode_all};
use crate::{App, failure};

const BODY_LIMIT: usize = 32 * 1024 * 1024;
/// A full batch takes longer than a search.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbedBody {
    items: Vec<EmbedItem>,
    /// A model by name, alias or `name@version@precision`; the index's own unless said.
    #[serde(default)]
    model: Option<String>,
    /// How many are encoded at once.
    #[serde(default)]
    batch_size: Option<usize>,
    #[serde(default)]
    tenant_id: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EmbedItem {
    /// With `id`: the vector is kept for searches by this text.
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
    /// In the items' order, of unit length.
    vectors: Vec<Vec<f32>>,
    count: usize,
    latency_ms: f64,
    /// Whether the text was longer than the model reads.
    truncated: Vec<bool>,
}

/// Turn texts into vectors
#[utoipa::path(post, path = "/embed", tag = "embeddings",
    params(("x-timeout-ms" = Option<u64>, Header, description = "How long it may take, at most 60000")),
    request_body = EmbedBody,
    responses(
        (status = 200, body = EmbedAnswer),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such model", body = Problem, content_type = "application/problem+json"),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The model cannot embed a text", body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
        (status = 504, body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn post_embed(
    State(app): State<Arc<App>>,
    tenant: Tenant,
    read: ReadAfter,
    JsonBody(body): JsonBody<EmbedBody, BODY_LIMIT>,
) -> Result<Json<EmbedAnswer>, Problem> {
    let began = Instant::now();
    let most = app.parts.config.max_batch_size.get();
    check_count(body.items.len(), most)?;
    let batch_size = body.batch_size.unwrap_or(ENCODE_AT_ONCE.min(most));
    if !(1..=most).contains(&batch_size) {
        return Err(Problem::invalid(format!("batch_size is {batch_size}; it must be from 1 to {most}")));
    }
    let mut texts = Vec::with_capacity(body.items.len());
    let mut kept: Vec<Option<TenantScope>> = Vec::with_capacity(body.items.len());
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
        kept.push((item.r#type.is_some() && item.id.is_some()).then_some(scope));
        texts.push(item.text);
    }
    if let Some(name) = &body.model {
        known_model(name)?;
    }
    let search = app.search()?;
    if let Some(name) = &body.model {
        loaded_model(name, &search.model)?;
    }
    let embeddings = encode_all(&search, &texts, batch_size, read.deadline_or(PATIENCE)).await?;
    for ((scope, text), embedding) in kept.iter().zip(&texts).zip(&embeddings) {
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

pub(crate) fn check_count(count: usize, most: usize) -> Result<(), Problem> {
    match count {
        0 => Err(Problem::invalid("there is nothing to embed: the list is empty")),
        n if n > most => Err(Problem::new(Code::TooLarge, format!("{n} texts, at most {most} are taken at once"))),
        _ => Ok(()),
    }
}

pub(crate) fn check_text(text: &str) -> Result<(), String> {
    match text.len() {
        _ if text.trim().is_empty() => Err("text is empty".into()),
        n if n > Limits::TEXT_BYTES => Err(format!("text has {n} bytes, at most {} are taken", Limits::TEXT_BYTES)),
        _ => Ok(()),
    }
}

/// A name that no model could ever have is the caller's mistake whether or not one is loaded.
pub(crate) fn known_model(name: &str) -> Result<(), Problem> {
    if name.parse::<ModelRef>().is_ok() {
        return Ok(());
    }
    // The answer repeats the name.
    if name.len() > 300 {
        return Err(Problem::not_found("no model has so long a name"));
    }
    Catalogue::builtin().find(name).map(drop).map_err(|error| failure::inference(&error))
}

/// Only the model of the index that is searched is loaded.
pub(crate) fn loaded_model(name: &str, loaded: &ModelRef) -> Result<(), Problem> {
    let named = Catalogue::builtin().find(name).map(|entry| entry.model.clone());
    match named {
        Ok(model) if model == *loaded => Ok(()),
        _ if name == loaded.to_string() => Ok(()),
        _ => {
            let name: String = name.chars().take(100).collect();
            Err(Problem::not_found(format!("model {name:?} is not loaded; {loaded} is")))
        }
    }
}
